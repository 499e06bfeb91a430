"""How alike two volumes are: Fourier shell correlation, its area, resolutions, correlation, and masks.

All numbers are the same when a volume is multiplied by a positive factor. They change sign with its contrast,
so that a volume and its negative are told apart. Nothing is aligned: poses are known here, and volumes of all
runs on the same particles are in the same frame and of the same hand.
"""

from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

_NO_POWER = 1e-28  # of the whole: what rounding leaves in an empty shell


def fsc(volume_a: ArrayLike, volume_b: ArrayLike, mask: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Fourier shell correlation: Re sum_k A(k) B*(k) / sqrt(sum_k |A(k)|^2 sum_k |B(k)|^2), shell by shell.

    The shells are those of ``cryodrgn.commands_utils.fsc.get_fsc_curve`` (Harauz and van Heel 1986), whose
    curve this is: at frequency i / D stand the coefficients with i - 1 <= |k| < i, and 1 at frequency 0. At
    1 / D there is thus the mean of the volumes alone, +-1. Range of each value -1 to 1; unrelated volumes
    have 0 up to noise.

    A shell in which a volume has no power has the value 0, as it has nothing in common with anything; there
    alone cryoDRGN says 1.

    Args:
        volume_a: (D, D, D), D even.
        volume_b: (D, D, D).
        mask: (D, D, D) weights that multiply both volumes first.

    Returns:
        Frequencies (D/2,) in cycles per px, 0 to (D/2 - 1) / D, and the curve (D/2,).

    Raises:
        ValueError: a shape is wrong, or values are not finite.
    """
    from scipy.fft import rfftn

    a, b = _pair(volume_a, volume_b, mask)
    box_px = len(a)
    shells, twice = _shells(box_px)
    fourier_a, fourier_b = rfftn(a).ravel(), rfftn(b).ravel()

    def summed(values: Floats) -> Floats:
        return np.asarray(np.bincount(shells, weights=values * twice)[: box_px // 2], dtype=np.float64)

    common = summed((fourier_a * fourier_b.conj()).real)
    power_a, power_b = summed(np.abs(fourier_a) ** 2), summed(np.abs(fourier_b) ** 2)
    there = (power_a > _NO_POWER * power_a.sum()) & (power_b > _NO_POWER * power_b.sum())
    curve = np.divide(common, np.sqrt(power_a * power_b), out=np.zeros_like(common), where=there)
    curve[0] = 1.0
    return np.arange(box_px // 2) / box_px, np.clip(curve, -1.0, 1.0)


def fsc_auc(volume_a: ArrayLike, volume_b: ArrayLike, mask: ArrayLike | None = None) -> float | None:
    """Area under the FSC up to Nyquist, by trapezoids, frequencies in cycles per px.

    CryoBench's number for a pair of volumes (Jeon et al. 2024, metrics/fsc), but with the sign of the FSC:
    CryoBench takes its absolute value, which hides an inverted contrast. The mean of the volumes counts as 1,
    whatever its sign: cryoDRGN does not train it. Equal volumes have the most, (D/2 - 1) / D, just below 0.5;
    unrelated ones have 1.5 / D, and a volume and its negative have less than 0.

    Args:
        volume_a: (D, D, D), D even.
        volume_b: (D, D, D).
        mask: (D, D, D) weights that multiply both volumes first.

    Returns:
        The area, or None where a volume is constant (before masking).

    Raises:
        ValueError: a shape is wrong, or values are not finite.
    """
    if np.ptp(np.asarray(volume_a)) == 0 or np.ptp(np.asarray(volume_b)) == 0:
        return None
    from scipy.integrate import trapezoid

    frequency, curve = fsc(volume_a, volume_b, mask)
    curve[:2] = 1.0
    return float(trapezoid(curve, frequency))


def matched_fsc_auc(
    volumes_a: Iterable[ArrayLike], volumes_b: Iterable[ArrayLike], mask: ArrayLike | None = None
) -> float | None:
    """Mean ``fsc_auc`` over pairs of volumes: two runs at the z of the same particles, or a run and the truth.

    One pair is in memory at a time where iterators are given.

    Args:
        volumes_a: volumes (D, D, D).
        volumes_b: their partners, as many.
        mask: as for ``fsc``.

    Returns:
        The mean over the pairs that have an area, or None where none has.

    Raises:
        ValueError: one side has more volumes than the other, or volumes are unlike.
    """
    areas = (fsc_auc(a, b, mask) for a, b in zip(volumes_a, volumes_b, strict=True))
    known = [area for area in areas if area is not None]
    return float(np.mean(known)) if known else None


def resolution_angstrom(
    frequency: ArrayLike, curve: ArrayLike, threshold: float, pixel_size_angstrom: float
) -> float | None:
    """Resolution at which an FSC falls below a threshold for the first time, linear between two shells.

    The usual thresholds are 0.5 and, between half maps, 0.143 (Rosenthal and Henderson 2003). cryoDRGN's
    ``get_fsc_thresholds`` names the last shell above the threshold instead, even after a crossing.

    Args:
        frequency: (D/2,) in cycles per px, as from ``fsc``.
        curve: (D/2,).
        threshold: between 0 and 1.
        pixel_size_angstrom: of the volumes.

    Returns:
        The resolution in angstrom, or None where the curve never falls below the threshold.
    """
    f, c = np.asarray(frequency, dtype=np.float64), np.asarray(curve, dtype=np.float64)
    below = np.flatnonzero(c < threshold)
    if len(below) == 0 or below[0] == 0:
        return None
    i = below[0]
    crossing = f[i - 1] + (f[i] - f[i - 1]) * (c[i - 1] - threshold) / (c[i - 1] - c[i])
    return float(pixel_size_angstrom / crossing) if crossing > 0 else None


def correlation(volume_a: ArrayLike, volume_b: ArrayLike, mask: ArrayLike | None = None) -> float | None:
    """Pearson correlation of two volumes' voxels, weighted by a mask. Range -1 to 1.

    Args:
        volume_a: (D, D, D).
        volume_b: (D, D, D).
        mask: (D, D, D) weights of the voxels, at least 0; None: all alike.

    Returns:
        The correlation, or None where a volume is constant within the mask.

    Raises:
        ValueError: a shape is wrong, or values are not finite.
    """
    a, b = _pair(volume_a, volume_b)
    weights = _weights(mask, a)
    unit_a, unit_b = _standardized(a, weights), _standardized(b, weights)
    if unit_a is None or unit_b is None:
        return None
    return float(np.clip(np.sum(unit_a * unit_b), -1.0, 1.0))


class VolumeDiversity:
    """Mean of 1 - correlation over all pairs of volumes, while they pass by one at a time.

    Key ``volumes/diversity``. 0: all volumes are the same up to scale and offset; 1: unrelated ones; at most
    n / (n - 1) for n volumes. What the paper judged by eye in its figures of volumes around a scatter plot
    (a frozen zero table has one volume, Fig. 22). Exact in one pass: with voxels of zero mean and unit norm
    the sum of all correlations is the squared norm of the volumes' sum. A constant volume does not count.
    """

    def __init__(self, mask: ArrayLike | None = None) -> None:
        """Name the weights (D, D, D) of the voxels; None: all alike."""
        self._mask = mask
        self._sum: Floats | None = None
        self._n = 0

    def add(self, volume: ArrayLike) -> None:
        """Take one volume (D, D, D) into account."""
        values = _volume(volume)
        unit = _standardized(values, _weights(self._mask, values))
        if unit is not None:
            self._sum = unit if self._sum is None else self._sum + unit
            self._n += 1

    @property
    def value(self) -> float | None:
        """The diversity so far, or None with fewer than two volumes."""
        if self._sum is None or self._n < 2:
            return None
        mean_correlation = (np.sum(self._sum**2) - self._n) / (self._n * (self._n - 1))
        return max(0.0, float(1 - mean_correlation))


def volume_diversity(volumes: Iterable[ArrayLike], mask: ArrayLike | None = None) -> float | None:
    """Return the ``VolumeDiversity`` of volumes (D, D, D), held one at a time where they come from an iterator."""
    diversity = VolumeDiversity(mask)
    for volume in volumes:
        diversity.add(volume)
    return diversity.value


@lru_cache(maxsize=4)
def spherical_mask(box_px: int, radius: float = 1.0, edge: float = 0.15) -> Floats:
    """Sphere about the centre of the box, with a soft edge.

    The default is CryoSPARC's "spherical" FSC mask: 1 up to 0.85 of half the box, then a cosine down to 0 at
    its faces. Images are windowed beyond that same radius before training, so that nothing outside is learnt.

    Args:
        box_px: D, even; the centre is voxel D/2.
        radius: where the mask has come down to 0, as a fraction of D/2.
        edge: width of the cosine edge, as a fraction of D/2; 0 cuts sharply, and keeps the radius itself.

    Returns:
        (D, D, D) weights from 0 to 1, not writable.
    """
    axis = (np.arange(box_px) - box_px // 2) / (box_px / 2)
    distance = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    if edge == 0:
        mask = (distance <= radius).astype(np.float64)
    else:
        mask = 0.5 * (1 + np.cos(np.pi * np.clip((distance - radius + edge) / edge, 0.0, 1.0)))
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=4)
def _shells(box_px: int) -> tuple[NDArray[np.int64], Floats]:
    """Shell and weight of every coefficient of ``rfftn``; the half that it leaves out counts through the weight."""
    whole, half = np.fft.ifftshift(np.arange(box_px) - box_px // 2), np.arange(box_px // 2 + 1)
    distance = np.sqrt(whole[:, None, None] ** 2 + whole[:, None] ** 2 + half**2)
    twice = np.broadcast_to(np.where(half > 0, 2.0, 1.0), distance.shape)
    return np.floor(distance).astype(np.int64).ravel() + 1, twice.ravel()


def _standardized(volume: Floats, weights: Floats | None) -> Floats | None:
    """Voxels with weighted mean 0 and weighted norm 1, times the root of the weights; None for a constant."""
    if weights is None:
        centred = volume - volume.mean()
    else:
        centred = np.sqrt(weights) * (volume - np.average(volume, weights=weights))
    norm = np.linalg.norm(centred)
    return centred / norm if norm > 1e-12 * (np.linalg.norm(volume) or 1.0) else None


def _volume(volume: ArrayLike) -> Floats:
    """A volume as float64, checked to be a finite cube of even side."""
    values = np.asarray(volume, dtype=np.float64)
    if values.ndim != 3 or len(set(values.shape)) != 1 or len(values) < 4 or len(values) % 2:
        raise ValueError(f"a volume must be (D, D, D) with D even, found shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("a volume has voxels that are not finite")
    return values


def _pair(volume_a: ArrayLike, volume_b: ArrayLike, mask: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Two volumes, checked to be alike, times the mask."""
    a, b = _volume(volume_a), _volume(volume_b)
    if a.shape != b.shape:
        raise ValueError(f"volumes must be alike, found {a.shape} and {b.shape}")
    weights = _weights(mask, a)
    return (a, b) if weights is None else (a * weights, b * weights)


def _weights(mask: ArrayLike | None, volume: Floats) -> Floats | None:
    """A mask as float64, checked to be like a volume."""
    if mask is None:
        return None
    weights = np.asarray(mask, dtype=np.float64)
    if weights.shape != volume.shape:
        raise ValueError(f"the mask must be like the volumes, found {weights.shape} and {volume.shape}")
    return weights
