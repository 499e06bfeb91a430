"""How a complex of Gaussian pseudo-atoms becomes an image, in cryoDRGN's conventions.

A Gaussian's transform is known and separable, so the transform of a whole projection is one matrix product,
exact up to the Nyquist frequency: nothing is interpolated, nothing aliases, and a smaller box is the Fourier
crop of a larger one. The conventions are those that cryoDRGN's model of an image assumes:

- pixel (D/2, D/2) is the centre, arrays are indexed [y, x] and [z, y, x];
- an image's Hartley transform is the volume's, sampled at ``lattice.coords @ rotation``, so that an atom at r
  is seen at the first two coordinates of ``rotation @ r``;
- the CTF multiplies the transform with the sign of ``cryodrgn.ctf.compute_ctf``, negative at low frequency.
"""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=8)
def _freqs(box_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Frequencies per px of a whole axis (D,) and of the half axis (D/2 + 1,), as in ``np.fft.rfft2``."""
    return np.fft.fftfreq(box_px).astype(np.float32), np.fft.rfftfreq(box_px).astype(np.float32)


def _waves(position_px: NDArray[np.float32], sigma_px: float, box_px: int) -> NDArray[np.float32]:
    """Transforms of 1-D unit Gaussians at positions (K,): F cosine rows above F sine rows, F = D/2 + 1."""
    half = _freqs(box_px)[1]
    phase = np.float32(2 * np.pi) * half[:, None] * position_px[None, :]
    waves = np.concatenate([np.cos(phase), np.sin(phase)])
    envelope = np.exp(np.float32(-2 * np.pi**2 * sigma_px**2) * half**2)
    waves *= np.concatenate([envelope, envelope])[:, None]
    return waves


def spectrum(atoms_px: NDArray[np.floating], sigma_px: float, box_px: int) -> NDArray[np.complex64]:
    """Fourier transform of the projection along z of unit-mass Gaussians.

    Args:
        atoms_px: (K, 2 or 3) rotated and shifted positions x, y(, z) in px from the centre of the box.
        sigma_px: standard deviation of every Gaussian.
        box_px: D.

    Returns:
        (D, D/2 + 1) in the order of ``np.fft.rfft2``, phases measured from the centre of the box.
    """
    atoms = np.asarray(atoms_px, dtype=np.float32)
    y, x = _waves(atoms[:, 1], sigma_px, box_px), _waves(atoms[:, 0], sigma_px, box_px)
    # One real product holds all four of cos, sin (y) times cos, sin (x), summed over the atoms.
    (cos_cos, cos_sin), (sin_cos, sin_sin) = (y @ x.T).reshape(2, len(y) // 2, 2, -1).swapaxes(1, 2)
    upper = (cos_cos - sin_sin) - 1j * (sin_cos + cos_sin)
    lower = (cos_cos + sin_sin) + 1j * (sin_cos - cos_sin)
    return np.concatenate([upper[:-1], lower[:0:-1]])


def ctf(ctf_params: NDArray[np.float32]) -> NDArray[np.float32]:
    """CTF on the frequencies of ``spectrum``.

    Args:
        ctf_params: (9,) a row of ctf.pkl: box side in px, pixel size A/px, defocus U and V in A, astigmatism
            angle in degrees, voltage kV, Cs mm, amplitude contrast, phase shift in degrees.

    Returns:
        (D, D/2 + 1), ``cryodrgn.ctf.compute_ctf`` with its sign.
    """
    import torch
    from cryodrgn.ctf import compute_ctf

    box_px = int(ctf_params[0])
    pixel_size, *optics = torch.from_numpy(np.asarray(ctf_params[1:], dtype=np.float32))
    freqs = torch.from_numpy(_freqs_xy(box_px)) / pixel_size
    values: NDArray[np.float32] = compute_ctf(freqs, *optics).numpy()
    return values.reshape(box_px, -1)


@lru_cache(maxsize=8)
def _freqs_xy(box_px: int) -> NDArray[np.float32]:
    """Frequencies (D * (D/2 + 1), 2) x, y per px."""
    y, x = np.meshgrid(*_freqs(box_px), indexing="ij")
    return np.stack([x.ravel(), y.ravel()], axis=1)


def image(half_plane: NDArray[np.complexfloating]) -> NDArray[np.float32]:
    """The (D, D) image of a spectrum (D, D/2 + 1), its centre at pixel (D/2, D/2)."""
    box_px = half_plane.shape[0]
    return np.fft.fftshift(np.fft.irfft2(half_plane, s=(box_px, box_px))).astype(np.float32)


def density(atoms_px: NDArray[np.floating], sigma_px: float, box_px: int) -> NDArray[np.float32]:
    """Density of unit-mass Gaussians at (K, 3) positions in px: (D, D, D) indexed [z, y, x].

    It is band-limited like the images, and so rings a little where the box is too coarse for ``sigma_px``.
    """
    whole, half = _freqs(box_px)
    x, y, z = (
        np.exp(-2j * np.pi * f[:, None] * atoms_px[:, axis] - 2 * np.pi**2 * sigma_px**2 * f[:, None] ** 2)
        for axis, f in enumerate((half, whole, whole))
    )
    planes = np.stack([((y * z_plane) @ x.T).astype(np.complex64) for z_plane in z])
    return np.fft.fftshift(np.fft.irfftn(planes, s=(box_px,) * 3, axes=(0, 1, 2))).astype(np.float32)
