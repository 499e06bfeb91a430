"""Images altered in real space, before window and transform: shifted or rotated (paper, section 3.4).

An alteration moves what is at p to R^q p + moved_px, with R a quarter turn clockwise and p in px from the pixel
(D/2, D/2), x to the right and y downwards. What the altered image's shift and CTF are said to be is a part of its
own: the original's, as in the paper, or the ones that follow from the motion.
"""

import math
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_modules.encoder_inputs.encoder_input import PreparedImages
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particles import Particles


class Motion(NamedTuple):
    """Where an alteration takes the particle.

    Attributes:
        quarter_turns: q, clockwise, about the pixel (D/2, D/2).
        moved_px: (x, y), after the turn.
    """

    quarter_turns: int
    moved_px: tuple[float, float]


class Metadata(Protocol):
    """What shift, CTF and pose an altered image is given."""

    def __call__(
        self, motion: Motion, formation: ImageFormation, shift_px: Tensor, ctf: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return shift (B, 2) and CTF (B, M) of the altered images, from those of the originals."""

    def pose(self, motion: Motion, formation: ImageFormation, rotations: Tensor) -> Tensor:
        """Return the poses (B, 3, 3) of the altered images, from those of the originals."""


class PaperMetadata(Metadata):
    """The originals', as in the authors' code: the altered image is then neither centred nor flipped right."""

    def __call__(
        self, motion: Motion, formation: ImageFormation, shift_px: Tensor, ctf: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Keep both."""
        return shift_px, ctf

    def pose(self, motion: Motion, formation: ImageFormation, rotations: Tensor) -> Tensor:
        """Keep it."""
        return rotations


class ConsistentMetadata(Metadata):
    """Those that follow from the motion.

    A particle that its shift t brings from p to p + t lies at R^q p + moved after the alteration, and is brought to
    R^q (p + t) by R^q t - moved. The CTF turns with the image: its astigmatism angle grows by 90 q degrees.
    """

    def __call__(
        self, motion: Motion, formation: ImageFormation, shift_px: Tensor, ctf: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Move both."""
        moved = shift_px.new_tensor(motion.moved_px)
        turned = None if ctf is None else formation.turn(ctf, motion.quarter_turns)
        return turn_points(shift_px, motion.quarter_turns) - moved, turned

    def pose(self, motion: Motion, formation: ImageFormation, rotations: Tensor) -> Tensor:
        """Turn it."""
        return formation.turn_poses(rotations, motion.quarter_turns)


def turn_points(points: Tensor, quarter_turns: int) -> Tensor:
    """Turn (B, 2) points x, y clockwise by multiples of 90 degrees; y points down."""
    for _ in range(quarter_turns % 4):
        points = torch.stack([-points[:, 1], points[:, 0]], dim=1)
    return points


class Edge(Protocol):
    """What fills the edge that a shift leaves empty."""

    def __call__(self, rolled: Tensor, raw: Tensor, dx_px: float, dy_px: float) -> Tensor:
        """Return (B, D, D) shifted images, from the images rolled by (dx_px, dy_px) and as they were."""


class Wrap(Edge):
    """What leaves on one side comes in on the other, as in the paper."""

    def __call__(self, rolled: Tensor, raw: Tensor, dx_px: float, dy_px: float) -> Tensor:
        """Leave the rolled images as they are."""
        return rolled


class Fill(Edge):
    """The empty edge takes the mean of the image's noise, from where there is no particle.

    That is the mean of the image's own pixels outside the circle inscribed in the box, before the shift, as RELION
    takes its background. A fraction of a pixel counts as a whole one.
    """

    def __call__(self, rolled: Tensor, raw: Tensor, dx_px: float, dy_px: float) -> Tensor:
        """Overwrite what came in on the other side."""
        box_px = raw.shape[-1]
        at = torch.arange(box_px, device=raw.device)
        from_centre = (at - box_px / 2).square()
        outside = from_centre + from_centre[:, None] > (box_px / 2) ** 2
        mean = raw[:, outside].mean(dim=1)[:, None, None]
        empty = _came_in(at, dy_px)[:, None] | _came_in(at, dx_px)
        return torch.where(empty, mean, rolled)


def _came_in(at: Tensor, moved_px: float) -> Tensor:
    """Tell which rows or columns held nothing before wrapping."""
    n = math.ceil(abs(moved_px))
    return at < n if moved_px > 0 else at >= len(at) - n


PAPER, WRAP = PaperMetadata(), Wrap()


class AlteredInput(PreparedImages):
    """x_i = the image of particle i, altered in real space, centred and phase-flipped as its metadata say.

    Attributes:
        motion: where the alteration takes the particle.
    """

    motion: Motion

    def __init__(self, metadata: Metadata = PAPER) -> None:
        """Set which shift and CTF the altered image is given."""
        self.metadata = metadata

    def alter(self, raw: Tensor) -> Tensor:
        """Alter (B, D, D) real-space images."""
        raise NotImplementedError

    def make(self, particles: Particles, index: np.ndarray, seed: int) -> Tensor:
        """Alter the particles' own images."""
        return self.alter(particles.raw(index))

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Centre and phase-flip the altered images."""
        shift_px, ctf = self.metadata(self.motion, self.formation, shift_px, ctf)
        return self.formation.phase_flip(self.formation.centre(self.fixed(index, y), shift_px), ctf)

    def imaged_with(self, ctf: Tensor | None, rotations: Tensor, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return CTF and pose as the metadata give them."""
        _, altered = self.metadata(self.motion, self.formation, rotations.new_zeros(len(index), 2), ctf)
        return altered, self.metadata.pose(self.motion, self.formation, rotations)


class ShiftedInput(AlteredInput):
    """The image shifted: whole pixels by rolling it, fractions by the phase of its Fourier transform."""

    def __init__(self, dx_px: float = 1, dy_px: float = 0, edge: Edge = WRAP, metadata: Metadata = PAPER) -> None:
        """Set the shift.

        Args:
            dx_px: to the right.
            dy_px: downwards.
            edge: what fills the edge that is left empty.
            metadata: which shift and CTF the altered image is given.
        """
        super().__init__(metadata)
        self.dx_px, self.dy_px, self.edge = dx_px, dy_px, edge
        self.motion = Motion(0, (dx_px, dy_px))

    def alter(self, raw: Tensor) -> Tensor:
        """Shift (B, D, D) images."""
        return self.edge(roll(raw, self.dx_px, self.dy_px), raw, self.dx_px, self.dy_px)


class RotatedInput(AlteredInput):
    """The image rotated, exactly: its rows become columns. Directions are those with the first row on top.

    The middle of an even box lies between pixels, half a pixel up and left of cryoDRGN's centre, the pixel
    (D/2, D/2). A turn of the array about its middle is a turn about that pixel and a shift by whole pixels.
    """

    def __init__(self, clockwise_deg: int = 90, metadata: Metadata = PAPER) -> None:
        """Set the rotation.

        Args:
            clockwise_deg: a multiple of 90.
            metadata: which shift and CTF the altered image is given.

        Raises:
            InputError: another angle.
        """
        if clockwise_deg % 90:
            raise InputError(f"encoder_input.clockwise_deg={clockwise_deg}: expected a multiple of 90")
        super().__init__(metadata)
        self.quarter_turns = clockwise_deg // 90 % 4
        # A turn about (-1/2, -1/2): c + R^q (p - c) = R^q p + (c - R^q c).
        centre = torch.full((1, 2), -0.5)
        x, y = (centre - turn_points(centre, self.quarter_turns))[0].tolist()
        self.motion = Motion(self.quarter_turns, (x, y))

    def alter(self, raw: Tensor) -> Tensor:
        """Rotate (B, D, D) images."""
        return torch.rot90(raw, -self.quarter_turns, dims=(-2, -1))


def roll(images: Tensor, dx_px: float, dy_px: float) -> Tensor:
    """Shift (B, D, D) images by (dx_px, dy_px), right and down; what leaves comes in on the other side."""
    if float(dx_px).is_integer() and float(dy_px).is_integer():
        return torch.roll(images, (int(dy_px), int(dx_px)), dims=(-2, -1))
    box_px = images.shape[-1]
    ky, kx = torch.fft.fftfreq(box_px, device=images.device), torch.fft.rfftfreq(box_px, device=images.device)
    phase = -2 * math.pi * (ky[:, None] * dy_px + kx * dx_px)
    spectrum = torch.fft.rfft2(images) * torch.polar(torch.ones_like(phase), phase)
    return torch.fft.irfft2(spectrum, s=(box_px, box_px))
