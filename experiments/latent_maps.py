"""Latents on paper: (N, zdim) means of q(z) as (N, 2) points, and altered latents on the same map.

zdim 2 is drawn as it is and zdim 1 against the particle's index. Larger ones go through UMAP with the
settings of ``cryodrgn analyze`` (umap-learn's defaults), as in the paper.
"""

import hashlib
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.runs import write_atomically

Floats = NDArray[np.float64]
AxisLabels = tuple[str, str]

_N_NEIGHBORS = 15  # umap-learn's default
_FEWEST_FOR_UMAP = 10  # different latents


class LatentMap:
    """A map of latents, fitted on the original ones.

    UMAP is always seeded: a run's pictures are a function of its configuration, like its numbers. umap-learn
    then uses one thread, which costs nothing here (131,899 latents with zdim 8: 114 s seeded, 111 s not, on
    two busy cores; 2,000: 4 s).

    UMAP of equal points invents a shape. Where fewer than ten latents differ by more than a millionth of the
    largest entry (a frozen zero table, a handful of particles), the first two principal components are drawn
    instead, and the axes say so: collapsed latents are one point on the map.

    Args:
        mu: (N, zdim) means of q(z).
        seed: of UMAP.
        cache: a .npz that holds the UMAP of these very latents from an earlier time, or will.

    Attributes:
        xy: (N, 2) the points.
        axis_labels: what the two axes are.

    Raises:
        ValueError: ``mu`` is no (N, zdim) of finite numbers.
    """

    def __init__(self, mu: ArrayLike, seed: int = 0, cache: Path | None = None) -> None:
        self._mu = _checked(mu)
        self._seed = seed
        self._umap: Any = None
        self.xy: Floats
        self.axis_labels: AxisLabels
        zdim = self._mu.shape[1]
        if zdim == 1:
            self.axis_labels = ("particle", "z")
        elif zdim == 2:
            self.axis_labels = ("z1", "z2")
        elif _n_different(self._mu) < _FEWEST_FOR_UMAP:
            self.axis_labels = ("PC1", "PC2")
        else:
            self.axis_labels = ("UMAP1", "UMAP2")
        self.xy = self._place(self._mu) if not self._is_umap else self._umap_of_originals(cache)

    def transform(self, mu_altered: ArrayLike) -> Floats:
        """Place altered latents on the map of the originals.

        Args:
            mu_altered: (N, zdim), row i the altered image of particle i.

        Returns:
            (N, 2) points. Unaltered latents are exactly where the originals are.

        Raises:
            ValueError: ``mu_altered`` is not finite or does not have the shape of the originals.
        """
        moved = _checked(mu_altered)
        if moved.shape != self._mu.shape:
            raise ValueError(f"altered latents must be {self._mu.shape}, like the originals: found {moved.shape}")
        if not self._is_umap:
            return self._place(moved)
        xy = self.xy.copy()
        differs = (moved != self._mu).any(axis=1)
        if differs.any():
            if self._umap is None:  # the points came from the cache, which holds no model
                self._fit_umap()
            with _umap_noise_silenced():
                xy[differs] = self._umap.transform(moved[differs].astype(np.float32))
        return xy

    @property
    def _is_umap(self) -> bool:
        return self.axis_labels[0] == "UMAP1"

    def _place(self, z: Floats) -> Floats:
        """Every map but UMAP."""
        zdim = z.shape[1]
        if zdim == 1:
            return np.column_stack([np.arange(len(z)), z])
        if zdim == 2:
            return z
        return (z - np.median(self._mu, axis=0)) @ _principal_axes(self._mu)

    def _umap_of_originals(self, cache: Path | None) -> Floats:
        key = self._key()
        cached = _read_cache(cache, key, len(self._mu)) if cache is not None else None
        if cached is not None:
            return cached
        xy = self._fit_umap()
        if cache is not None:
            write_atomically(cache, lambda path: np.savez(path, key=key, xy=xy))
        return xy

    def _fit_umap(self) -> Floats:
        with _umap_noise_silenced():
            import umap

            n_neighbors = min(_N_NEIGHBORS, len(self._mu) - 1)
            self._umap = umap.UMAP(n_neighbors=n_neighbors, random_state=self._seed)
            xy: Floats = self._umap.fit_transform(self._mu.astype(np.float32)).astype(np.float64)
        return xy

    def _key(self) -> str:
        """Names the latents and the seed that a map was made from."""
        return hashlib.sha256(repr((self._mu.shape, self._seed)).encode() + self._mu.tobytes()).hexdigest()


def latent_map(mu: ArrayLike, seed: int = 0, cache: Path | None = None) -> tuple[Floats, AxisLabels]:
    """Return the points (N, 2) and the axis labels of ``LatentMap(mu, seed, cache)``."""
    fitted = LatentMap(mu, seed, cache)
    return fitted.xy, fitted.axis_labels


def _checked(mu: ArrayLike) -> Floats:
    z = np.asarray(mu, dtype=np.float64)
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"latents must be a finite (N, zdim), found shape {z.shape}")
    return np.ascontiguousarray(z)


def _n_different(z: Floats) -> int:
    """How many latents differ by more than float32's rounding."""
    step = 1e-6 * np.abs(z).max()
    return len(np.unique(np.round(z / step), axis=0)) if step > 0 else 1


def _principal_axes(z: Floats) -> Floats:
    """First two principal axes (zdim, 2), each with its largest entry positive."""
    centred = z - np.median(z, axis=0)
    axes = np.linalg.eigh(np.cov(centred.T, bias=True))[1][:, :-3:-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return np.asarray(axes * np.sign(largest))


def _read_cache(path: Path, key: str, n: int) -> Floats | None:
    """Return the points of an earlier map; None where there are none, or they are of other latents."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            xy = stored["xy"]
            return xy if stored["key"] == key and xy.shape == (n, 2) else None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None


@contextmanager
def _umap_noise_silenced() -> Iterator[None]:
    """Leave out what umap-learn says of its own choices, and nothing that it says of the data."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value .* overridden", UserWarning)
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        warnings.filterwarnings("ignore", r"k >= N for N \* N square matrix", RuntimeWarning)  # solved densely
        yield
