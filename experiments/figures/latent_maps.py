"""Latents on paper: (N, zdim) means of q(z) as (N, 2) points, and altered latents on the same map.

zdim 2 is drawn as it is and zdim 1 against the particle's index. Larger ones go through UMAP with the
settings of ``cryodrgn analyze`` (umap-learn's defaults), as in the paper.
"""

import functools
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.machine.hardware import threads_kept
from experiments.metrics.latents import drawn
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.safe_numpy import load_npz
from lightning_modules.private_folder import private_folder

Floats = NDArray[np.float64]
AxisLabels = tuple[str, str]

UMAP_AXES = ("UMAP1", "UMAP2")

_N_NEIGHBORS = 15  # umap-learn's default
_FEWEST_FOR_UMAP = 10  # different latents
_FITTED = 200_000  # latents at once; bounds the memory
_ALL_DISTANCES = 4096  # of fewer latents than this, UMAP takes all distances


class LatentMap:
    """A map of latents, fitted on the original ones.

    UMAP is always seeded: a run's pictures are a function of its configuration, like its numbers. umap-learn
    then uses one thread, which costs nothing here (131,899 latents with zdim 8: 114 s seeded, 111 s not, on
    two busy cores).

    UMAP is fitted on all of up to 200,000 latents, the paper's 131,899 among them. Of more, so many are drawn with the
    seed, and the others placed among them, some at a time, so that memory stays bounded. That is cheaper for fewer,
    too, but worse. It was measured on 131,899 simulated latents with zdim 8, in seconds of one thread's processor
    time: a fit on all 61; on 20,000, and ``transform`` of the rest, 17, and of the 100 nearest latents 20 percent
    fewer are among the 100 nearest points (20,000 latents: 6; 5,000 and the rest 5). A minute, once per run, is worth
    the map that ``cryodrgn analyze`` draws.

    Of fewer than 4,096 latents, umap-learn takes all distances, one call from Python for each: 6 of the 9 s of 3,000
    latents. It is given them instead, with the same bits.

    A map is kept in ``cache`` and found there, or in one of ``others``. Latents that are to be placed on a found
    map need UMAP's graph, not its layout: 4 s instead of 61, with the same result to the last bit.

    UMAP of equal points invents a shape. Where fewer than ten latents differ by more than a millionth of the
    largest entry (a frozen zero table, a handful of particles), the first two principal components are drawn
    instead, and the axes say so: collapsed latents are one point on the map.

    Args:
        mu: (N, zdim) means of q(z).
        seed: of UMAP.
        cache: a .npz that holds the UMAP of these very latents from an earlier time, or will.
        others: caches of other runs, which may have seen the same latents. They are only read.

    Attributes:
        xy: (N, 2) the points.
        axis_labels: what the two axes are.

    Raises:
        ValueError: ``mu`` is no (N, zdim) of finite numbers.
    """

    def __init__(self, mu: ArrayLike, seed: int = 0, cache: Path | None = None, others: Sequence[Path] = ()) -> None:
        self._mu = _checked(mu)
        self._seed, self._cache = seed, cache
        self._umap: Any = None
        self._fitted: NDArray[np.float32]  # the latents that it was fitted on
        self.xy: Floats
        self.axis_labels: AxisLabels
        zdim = self._mu.shape[1]
        if zdim == 1:
            self.axis_labels = ("particle", "z")
        elif zdim == 2:
            self.axis_labels = ("z1", "z2")
        elif not differ(self._mu, _FEWEST_FOR_UMAP):
            self.axis_labels = ("PC1", "PC2")
        else:
            self.axis_labels = UMAP_AXES
        self.xy = self._umap_of_originals(others) if self._is_umap else self._place(self._mu)

    def transform(self, mu_altered: ArrayLike) -> Floats:
        """Place altered latents on the map of the originals.

        Args:
            mu_altered: (n, zdim), row i the altered image of particle i, for the first n of the N particles.

        Returns:
            (n, 2) points. Unaltered latents are exactly where the originals are.

        Raises:
            ValueError: ``mu_altered`` is not finite or does not fit to the originals.
        """
        moved = _checked(mu_altered)
        (n, zdim), (n_originals, zdim_originals) = moved.shape, self._mu.shape
        if n > n_originals or zdim != zdim_originals:
            raise ValueError(
                f"altered latents must be (n, {zdim_originals}) with n <= {n_originals}: found {(n, zdim)}"
            )
        if not self._is_umap:
            return self._place(moved)
        xy = self.xy[:n].copy()
        differs = (moved != self._mu[:n]).any(axis=1)
        if differs.any():
            xy[differs] = self._umap_of_altered(moved[differs])
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

    def _umap_of_originals(self, others: Sequence[Path]) -> Floats:
        key = _key(self._mu, self._seed)
        caches = [*others] if self._cache is None else [self._cache, *others]
        for cache in caches:
            stored = _read_cache(cache)
            if stored.get("key") == key and stored["xy"].shape == (len(self._mu), 2):
                if cache != self._cache:
                    self._keep(key=key, xy=stored["xy"])
                return stored["xy"]
        xy = self._fit_umap()
        self._keep(key=key, xy=xy)
        return xy

    def _umap_of_altered(self, moved: Floats) -> Floats:
        key = _key(moved, self._seed)
        stored = {} if self._cache is None else _read_cache(self._cache)
        if stored.get("key_altered") == key and stored["xy_altered"].shape == (len(moved), 2):
            return stored["xy_altered"]
        if self._umap is None:  # the points were found, and no model with them
            self._fit_umap(layout=self.xy)
        xy = self._umap_of_others(moved)
        self._keep(key=_key(self._mu, self._seed), xy=self.xy, key_altered=key, xy_altered=xy)
        return xy

    def _fit_umap(self, layout: Floats | None = None) -> Floats:
        """Fit UMAP; where the layout is known from an earlier time, all but the layout."""
        with _umap_alone():
            umap = _umap()
            rows = drawn(len(self._mu), _FITTED, self._seed)
            self._fitted = self._mu[rows].astype(np.float32)
            n_neighbors = min(_N_NEIGHBORS, len(rows) - 1)
            known = None if layout is None else layout[rows].astype(np.float32)
            options: dict[str, Any] = {} if known is None else {"init": known, "n_epochs": 0}
            if len(rows) < _ALL_DISTANCES:
                options["metric"] = "precomputed"
            self._umap = umap.UMAP(n_neighbors=n_neighbors, random_state=self._seed, **options)
            self._umap.fit(self._as_umap_takes(self._fitted))
        if layout is not None:
            self._umap.embedding_, self._umap.n_epochs = known, None
            return layout
        xy: Floats = np.empty((len(self._mu), 2))
        xy[rows] = self._umap.embedding_
        others = np.setdiff1d(np.arange(len(xy)), rows, assume_unique=True)
        for some in np.split(others, range(_FITTED, len(others), _FITTED)):
            xy[some] = self._umap_of_others(self._mu[some]) if len(some) else 0.0
        return xy

    def _umap_of_others(self, z: Floats) -> Floats:
        """Place latents that UMAP was not fitted on."""
        with _umap_alone():
            xy: Floats = self._umap.transform(self._as_umap_takes(z.astype(np.float32))).astype(np.float64)
        return xy

    def _as_umap_takes(self, z: NDArray[np.float32]) -> NDArray[np.float32]:
        return _distances(z, self._fitted) if self._umap.metric == "precomputed" else z

    def _keep(self, **arrays: Any) -> None:
        if self._cache is not None:
            write_atomically(self._cache, lambda path: np.savez(path, **arrays))


def _distances(z: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances (n, m), rounded where ``umap.distances.euclidean`` rounds."""
    squares = np.zeros((len(z), len(others)))
    for each, other in zip(z.T, others.T, strict=True):
        difference = np.subtract.outer(each, other)
        squares += difference * difference
    return np.sqrt(squares).astype(np.float32)


def _key(z: Floats, seed: int) -> str:
    """Names the latents and the seed that points were made from."""
    return hashlib.sha256(repr((z.shape, seed)).encode() + z.tobytes()).hexdigest()


def latent_map(mu: ArrayLike, seed: int = 0, cache: Path | None = None) -> tuple[Floats, AxisLabels]:
    """Return the points (N, 2) and the axis labels of ``LatentMap(mu, seed, cache)``."""
    fitted = LatentMap(mu, seed, cache)
    return fitted.xy, fitted.axis_labels


def principal_map(mu: ArrayLike) -> Floats:
    """Return latents (N, zdim) along their first two principal axes: (N, 2)."""
    z = _checked(mu)
    return (z - np.median(z, axis=0)) @ _principal_axes(z)


def _checked(mu: ArrayLike) -> Floats:
    z = np.asarray(mu, dtype=np.float64)
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"latents must be a finite (N, zdim), found shape {z.shape}")
    return np.ascontiguousarray(z)


def differ(mu: ArrayLike, n: int = 2) -> bool:
    """Tell whether at least n of the latents (N, zdim) differ by more than float32's rounding."""
    z = _checked(mu)
    step = 1e-6 * np.abs(z).max()
    n_different = len(np.unique(np.round(z / step), axis=0)) if step > 0 else 1
    return n_different >= n


def _principal_axes(z: Floats) -> Floats:
    """First two principal axes (zdim, 2), each with its largest entry positive."""
    centred = z - np.median(z, axis=0)
    axes = np.linalg.eigh(np.cov(centred.T, bias=True))[1][:, :-3:-1]
    largest = np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0)
    return np.asarray(axes * np.sign(largest))


def _read_cache(path: Path) -> dict[str, Any]:
    """Return what an earlier map left; nothing where there is none or it is damaged."""
    try:
        return load_npz(path)
    except (OSError, InputError):
        return {}


@functools.cache
def _umap() -> ModuleType:
    """Import umap-learn, and have numba keep what it compiles of it: without that, 9 s in every process.

    Numba keeps it for each processor, in a folder that can be written even where packages and HOME are read-only, and
    for each version: it does not notice by itself that a function which it has inlined is another one now.
    """
    import numba
    from numba.core.dispatcher import Dispatcher

    if not os.environ.get("NUMBA_CACHE_DIR"):
        versions = "-".join(importlib.metadata.version(name) for name in ("numba", "pynndescent", "umap-learn"))
        setattr(numba.config, "CACHE_DIR", str(private_folder(f"numba-{versions}") or tempfile.mkdtemp()))  # noqa: B010
    import umap

    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] in ("umap", "pynndescent")]
    for compiled in {part for module in modules for part in vars(module).values() if isinstance(part, Dispatcher)}:
        with suppress(RuntimeError):  # no folder can be written
            compiled.enable_caching()
    return umap


@contextmanager
def _umap_alone() -> Iterator[None]:
    """Leave out what umap-learn says of its own choices, and nothing that it says of the data.

    It also sets the number of threads of the whole process. A run that follows in a sweep would then not have the
    numbers that it has alone: sums depend on how they are split.
    """
    with threads_kept(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "n_jobs value .* overridden", UserWarning)
        warnings.filterwarnings("ignore", "using precomputed metric", UserWarning)
        warnings.filterwarnings("ignore", "Transforming new data with precomputed metric", UserWarning)
        warnings.filterwarnings("ignore", "Cannot cache compiled function")
        warnings.filterwarnings("ignore", "Tensorflow not installed", ImportWarning)
        warnings.filterwarnings("ignore", r"k >= N for N \* N square matrix", RuntimeWarning)  # solved densely
        yield
