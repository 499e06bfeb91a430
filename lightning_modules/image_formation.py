"""From an image to what the encoder and the loss see: centring, CTF, phase flip on the masked lattice."""

import math

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError


class ImageFormation(nn.Module):
    """cryoDRGN's centring and CTF, on the M pixels of its circular mask alone.

    cryoDRGN computes them on the whole (D+1) x (D+1) lattice and masks afterwards (``commands.train_vae``:
    ``preprocess_input``, ``run_batch``). No pixel outside the mask is ever used, and the mask is symmetric
    about the origin, so the result is the same. All methods are element-wise, differentiable, and free of
    branches on values.

    Attributes:
        box_px: side D of the images in px.
        n_pixels: M, the number of pixels in the mask; the DC pixel is not one of them.
        mask: (L*L,) bool, with L = D + 1.
        coords: (M, 3), lattice points in the plane z = 0, between -0.5 and 0.5, as the decoder takes them.
        freqs: (M, 2), spatial frequencies in cycles/px.
        turned: (4, M), row q: the pixel that a turn by q times 90 degrees clockwise brings to each place.
        turned_axes: (4, 3, 3), entry q: the pose of an image that is turned so, times that of the image as it was.
    """

    mask: Tensor
    coords: Tensor
    freqs: Tensor
    turned: Tensor
    turned_axes: Tensor

    def __init__(self, box_px: int, masked: bool = True) -> None:
        """Build the lattice and its mask of radius D/2.

        Args:
            box_px: side D of the images in px, even.
            masked: if not, the mask leaves nothing out: M is L * L, DC among them.

        Raises:
            InputError: the box is odd, or one of the few for which cryoDRGN's lattice has no exact centre.
        """
        super().__init__()
        from cryodrgn.lattice import Lattice

        if box_px < 2 or box_px % 2:
            raise InputError(
                f"box of {box_px} px: expected an even number of pixels; pad or downsample the images first"
            )
        lattice = Lattice(box_px + 1, extent=0.5)
        try:
            mask = lattice.get_circular_mask(lattice.D // 2)
        except AssertionError:
            # Rounding in cryoDRGN's np.linspace misses 0 by 6e-17 for 98, 196, 206, ...: it cannot run there
            # either.
            raise InputError(
                f"box of {box_px} px: cryoDRGN's lattice does not work for this size; downsample the images "
                f"to {box_px - 2} px with `cryodrgn downsample -D {box_px - 2}`"
            ) from None
        mask = mask if masked else torch.ones_like(mask)
        self.box_px = box_px
        self.n_pixels = int(mask.sum())
        # The lattice follows from the box: it does not belong into checkpoints.
        self.register_buffer("mask", mask, persistent=False)
        self.register_buffer("coords", lattice.coords[mask] / lattice.extent / 2, persistent=False)
        self.register_buffer("freqs", lattice.freqs2d[mask], persistent=False)
        self.register_buffer("turned", _turned(mask, box_px + 1), persistent=False)
        quarter = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
        turns = torch.stack([torch.linalg.matrix_power(quarter, q) for q in range(4)])
        self.register_buffer("turned_axes", turns, persistent=False)

    def centre(self, y: Tensor, shift_px: Tensor) -> Tensor:
        """Shift images in the Hartley domain: H'(k) = cos(2 pi k.t) H(k) + sin(2 pi k.t) H(-k).

        Equals ``cryodrgn.lattice.Lattice.translate_ht``. Element-wise products instead of its matrix product
        keep the phase in float32 under autocast.

        Args:
            y: (B, M) Hartley transforms.
            shift_px: (B, 2) shifts in px, as ``Particles.shifts_px``.

        Returns:
            (B, M) centred Hartley transforms.
        """
        phase = (2 * math.pi) * (shift_px[:, :1] * self.freqs[:, 0] + shift_px[:, 1:] * self.freqs[:, 1])
        return torch.cos(phase) * y + torch.sin(phase) * y.flip(-1)

    def ctf(self, ctf_params: Tensor) -> Tensor:
        """Contrast transfer function at the masked frequencies, by ``cryodrgn.ctf.compute_ctf``.

        Args:
            ctf_params: (B, 8): pixel size (A), defocus U and V (A), astigmatism angle (deg), voltage (kV),
                spherical aberration (mm), amplitude contrast, phase shift (deg).

        Returns:
            (B, M), between -1 and 1.
        """
        from cryodrgn.ctf import compute_ctf

        pixel_size_angstrom = ctf_params[:, :1, None]
        return compute_ctf(self.freqs / pixel_size_angstrom, *torch.split(ctf_params[:, 1:], 1, dim=1))

    def phase_flip(self, x: Tensor, ctf: Tensor | None) -> Tensor:
        """Multiply by the sign of the CTF: what the encoder sees.

        Args:
            x: (B, M) Hartley transforms.
            ctf: (B, M), from :meth:`ctf`; None: images without a CTF, which stay as they are.

        Returns:
            (B, M) phase-flipped Hartley transforms.
        """
        return x if ctf is None else x * ctf.sign()

    def image(self, y: Tensor) -> Tensor:
        """Return to real space: the inverse of what cryoDRGN does to images, on what its mask keeps.

        The inverse of ``cryodrgn.fft.symmetrize_ht`` and ``ht2_center``, times D: the transform is then orthonormal,
        and noise has as many standard deviations here as there. The mean of an image is not in the mask, and is 0.

        Args:
            y: (B, M) Hartley transforms.

        Returns:
            (B, D, D) images.
        """
        from cryodrgn.fft import iht2_center

        lattice = y.new_zeros(len(y), len(self.mask))
        lattice[:, self.mask] = y
        side = self.box_px + 1
        return iht2_center(lattice.view(len(y), side, side)[:, :-1, :-1]) * self.box_px

    def turn(self, values: Tensor, quarter_turns: Tensor | int) -> Tensor:
        """Turn functions of the frequency, Hartley transforms or CTFs, by multiples of 90 degrees about the origin.

        Exact: the lattice has a centre, and a quarter turn is a permutation of its pixels. In real space it turns
        the image clockwise (first row on top) about the pixel (D/2, D/2).

        Args:
            values: (B, M).
            quarter_turns: clockwise, the same for all, or (B,) int64.

        Returns:
            (B, M).
        """
        if isinstance(quarter_turns, int):
            return values[:, self.turned[quarter_turns % 4]]
        return values.gather(1, self.turned[quarter_turns % 4])

    def turn_poses(self, rotations: Tensor, quarter_turns: Tensor | int) -> Tensor:
        """Turn poses as :meth:`turn` turns their images: a slice at the turned pose is the turned slice. Exact.

        Args:
            rotations: (B, 3, 3).
            quarter_turns: clockwise, the same for all, or (B,) int64.

        Returns:
            (B, 3, 3).
        """
        turns = self.turned_axes[quarter_turns % 4]
        return (turns[..., None] * rotations[..., None, :, :]).sum(dim=-2)


def _turned(mask: Tensor, lattice_px: int) -> Tensor:
    """Return the permutations of the masked pixels: (4, M) int64."""
    number = torch.full(mask.shape, -1)
    number[mask] = torch.arange(int(mask.sum()))
    grid = number.view(lattice_px, lattice_px)
    return torch.stack([torch.rot90(grid, -q).reshape(-1)[mask] for q in range(4)])
