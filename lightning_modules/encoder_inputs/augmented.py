"""What the encoder sees when it is to learn a rule: its own image, turned and moved anew in every epoch."""

import torch
from torch import Tensor

from lightning_modules.encoder_inputs.encoder_input import EncoderInput
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.optimization.minibatches import generator_of
from lightning_modules.particles.particles import Particles


class AugmentedInput(EncoderInput):
    """x_i = the image of particle i, turned by a random multiple of 90 degrees and off its centre by a random shift.

    The turn is consistent: CTF and shift turn with the image, so that it is one of the same particle in another pose.
    On the masked lattice it is a permutation. A consistent shift would leave the centred image as it is, and teach
    nothing (the two phases cancel); what is drawn is a shift that the metadata do not know of, as any refinement
    leaves one. It is a phase. Both act after the window, in one go with the centring.

    What is drawn for a particle is a function of (seed, epoch, particle). Outside of training, the encoder sees the
    centred image itself. The loss compares with that at all times.
    """

    def __init__(self, max_shift_px: float = 2.0, turns: bool = True) -> None:
        """Set what is drawn.

        Args:
            max_shift_px: x and y are uniform in +-max_shift_px; fractions of a pixel are drawn too.
            turns: turn by 0, 90, 180 or 270 degrees, each as likely; if not, never.
        """
        self.max_shift_px, self.turns = max_shift_px, turns

    def prepare(self, particles: Particles, formation: ImageFormation, seed: int) -> None:
        """Make room for the draws.

        Raises:
            InputError: the data are pictures, which know nothing of poses.
        """
        if not isinstance(formation, ImageFormation):
            raise InputError("encoder_input=augmented: pictures were found, expected particles with poses")
        self.formation, self.seed = formation, seed
        self.epoch: int | None = None
        device = particles.images.device
        self.quarter_turns = torch.zeros(len(particles), dtype=torch.int64, device=device)
        self.moved_px = torch.zeros(len(particles), 2, device=device)

    def start_epoch(self, epoch: int | None) -> None:
        """Draw anew for all particles."""
        if epoch == self.epoch:
            return
        self.epoch = epoch
        self.quarter_turns.zero_()
        self.moved_px.zero_()
        if epoch is None:
            return
        n, rng = len(self.moved_px), generator_of(self.seed, 12, epoch)
        self.moved_px.copy_((2 * torch.rand(n, 2, generator=rng) - 1) * self.max_shift_px)
        if self.turns:
            self.quarter_turns.copy_(torch.randint(4, (n,), generator=rng))

    def __call__(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, index: Tensor) -> Tensor:
        """Centre, move, flip and turn."""
        at = index.to(self.moved_px.device)
        x = self.formation.centre(y, shift_px + self.moved_px[at].to(shift_px.device))
        return self.formation.turn(self.formation.phase_flip(x, ctf), self.quarter_turns[at].to(y.device))

    def imaged_with(self, ctf: Tensor | None, rotations: Tensor, index: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return CTF and pose, turned as the image is."""
        turns = self.quarter_turns[index.to(self.quarter_turns.device)].to(rotations.device)
        turned = None if ctf is None else self.formation.turn(ctf, turns)
        return turned, self.formation.turn_poses(rotations, turns)
