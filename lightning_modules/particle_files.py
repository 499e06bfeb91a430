"""Which files make up a particle set, which of its particles are taken, and what is known about them."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import PARTICLE_SUFFIXES, check_file
from lightning_modules.files.regular_files import read_bytes
from lightning_modules.files.safe_numpy import load_npy, load_npz
from lightning_modules.files.safe_pickle import load_arrays
from lightning_modules.split import Part

if TYPE_CHECKING:
    from lightning_modules.particles import Particles

ARRAY_SUFFIXES = (".pkl", ".npz", ".star", ".cs")
INDEX_SUFFIXES = (".pkl", ".npy", ".npz", ".txt")
LABELS = {"state": "int64", "hinge_rad": "float64"}


class Normalized(Protocol):
    """What remembers how images were normalized."""

    @property
    def norm(self) -> tuple[float, float]:
        """Mean and std that normalized the Hartley transforms."""


class ParticleSource:
    """A choice of the slot ``data`` that ends in files of cryoDRGN's formats."""

    def particle_files(self) -> "ParticleFiles":
        """Return the files, made first where they have to be."""
        raise NotImplementedError

    def load(
        self,
        residency: str = "memory",
        cache_dir: str | Path = "cache",
        split: Part | None = None,
        like: Normalized | None = None,
        cache_images: bool = False,
    ) -> "Particles":
        """Read the particles and preprocess their images; see ``particles.load_particles``.

        Args:
            residency: "memory" or "disk".
            cache_dir: folder for residency "disk", and for ``cache_images``.
            split: take one side of it; None: all.
            like: what a model was trained on, whose norm is taken over; None: these have their own.
            cache_images: keep preprocessed images in a file, and find them there.
        """
        from lightning_modules.particles import load_particles

        files = dataclasses.replace(self.particle_files(), split=split)
        norm = None if like is None else like.norm
        return load_particles(files, residency, cache_dir, norm=norm, cache_images=cache_images)


@dataclass(frozen=True)
class ParticleFiles(ParticleSource):
    """A particle set in cryoDRGN's formats, and how its images are read.

    Attributes:
        particles: .mrcs, .mrc, .star, .cs or .txt list of stacks.
        poses: .pkl of cryoDRGN, .npz with rotations (N, 3, 3) and shifts (N, 2, fractions of the box), .star
            or .cs. None takes them from ``particles`` where that is a .star or .cs.
        ctf: .pkl of cryoDRGN, .npz with ctf_params (N, 9), .star or .cs. None: images without a CTF.
        labels: .npz with the known ``state`` (N,) or ``hinge_rad`` (N,) of simulated particles.
        ind: .pkl, .npy, .npz or .txt of indices, from 0: the particles to take, in this order.
        datadir: folder of the stacks that a .star or .cs names; None for the folder of that file.
        invert: multiply the images by -1, as ``cryodrgn train_vae`` does unless told ``--uninvert-data``.
        window: multiply the images by a soft circular window in real space.
        window_r: radius at which the window starts to fall, as a fraction of half the box.
        n_particles: take only the first so many (of those selected by ``ind``).
        pixel_size_angstrom: of the images, where no file says it.
        split: take only one side of a split into training and held-out particles, of those left by all else.
    """

    particles: str
    poses: str | None = None
    ctf: str | None = None
    labels: str | None = None
    ind: str | None = None
    datadir: str | None = None
    invert: bool = False
    window: bool = True
    window_r: float = 0.85
    n_particles: int | None = None
    pixel_size_angstrom: float | None = None
    split: Part | None = None

    def particle_files(self) -> "ParticleFiles":
        """Return the set itself: data slots that make their files first return what they made."""
        return self

    def checked(self) -> "ParticleFiles":
        """Return a copy with absolute paths, all of which exist, and values within their ranges.

        Raises:
            InputError: a missing file, an unknown extension, no poses, or a value out of range.
        """
        paths = {"particles": PARTICLE_SUFFIXES, "poses": ARRAY_SUFFIXES, "ctf": ARRAY_SUFFIXES}
        paths |= {"labels": (".npz",), "ind": INDEX_SUFFIXES}
        found: dict[str, Any] = {}
        for key, suffixes in paths.items():
            if (path := getattr(self, key)) is not None:
                found[key] = str(check_file(_absolute(path), suffixes, f"data.{key}"))
        if self.datadir is not None:
            found["datadir"] = _absolute(self.datadir)
            if not Path(found["datadir"]).is_dir():
                raise InputError(f"data.datadir: no folder {found['datadir']}; check the path")
        if self.poses is None:
            if Path(self.particles).suffix not in (".star", ".cs"):
                raise InputError("data.poses is not set: poses are required; give a poses.pkl, .star or .cs")
            found["poses"] = found["particles"]
        if not 0 < self.window_r <= 0.99:
            raise InputError(
                f"data.window_r={self.window_r}: expected a fraction of half the box, above 0 and up to 0.99"
            )
        if self.pixel_size_angstrom is not None and not 0 < self.pixel_size_angstrom < np.inf:
            raise InputError(f"data.pixel_size_angstrom={self.pixel_size_angstrom}: expected A/px above 0")
        return dataclasses.replace(self, **found)


def _absolute(path: str) -> str:
    # Not resolve(): a link to a stack keeps the name, and the folder, that the user gave it.
    return os.path.abspath(Path(path).expanduser())  # noqa: PTH100


@dataclass(frozen=True, eq=False)
class Selection:
    """Which rows of the particle file are taken.

    Attributes:
        rows: (N,) rows in the file, from 0, in the order in which they are taken.
        n_file: rows in the file.
        n_filtered: rows after ``ind`` and before ``n_particles``.
        n_unsplit: rows after ``n_particles`` and before ``split``.
        positions: (N,) of the particles taken, among those before ``split``.
    """

    rows: NDArray[np.int64]
    n_file: int
    n_filtered: int
    n_unsplit: int
    positions: NDArray[np.int64]

    @property
    def is_whole(self) -> bool:
        """Whether every row of the file is taken, in its order."""
        return len(self.rows) == self.n_file and bool((self.rows == np.arange(self.n_file)).all())

    def take(self, table: np.ndarray, path: Path, what: str) -> tuple[np.ndarray, NDArray[np.int64]]:
        """Take the selected rows of a table that has a row for each image in the file, or each selected one.

        cryoDRGN indexes poses only where there are more of them than images taken, and CTF always. Here both
        are indexed where they have a row for each image in the file, and not where they have one for each
        image taken.

        Returns:
            The rows taken, (N, ...), and their numbers in the table, (N,).

        Raises:
            InputError: another number of rows.
        """
        if len(table) == self.n_file:
            return table[self.rows], self.rows
        if len(table) in (self.n_filtered, self.n_unsplit):
            return table[self.positions], self.positions
        kept = "" if self.n_unsplit == self.n_file else f" (or {self.n_unsplit}, those taken)"
        raise InputError(
            f"{path}: {what} for {len(table)} particles, expected {self.n_file}{kept}, as many as there are "
            "images; use the file that belongs to this stack"
        )


def read_selection(files: ParticleFiles, n_file: int) -> Selection:
    """Read ``ind``, ``n_particles`` and ``split``.

    Raises:
        InputError: an index that is not made of distinct integers from 0 to N - 1, or more particles asked
            for than exist.
    """
    rows = np.arange(n_file) if files.ind is None else _read_index(Path(files.ind), n_file)
    n_filtered = len(rows)
    if files.n_particles is not None:
        if not 1 <= files.n_particles <= n_filtered:
            raise InputError(
                f"data.n_particles={files.n_particles}: expected 1 to {n_filtered}, what "
                f"{files.ind or files.particles} holds; null takes all"
            )
        rows = rows[: files.n_particles]
    positions = np.arange(len(rows)) if files.split is None else files.split.positions(len(rows))
    return Selection(rows[positions].astype(np.int64), n_file, n_filtered, len(rows), positions)


def _read_index(path: Path, n_file: int) -> np.ndarray:
    index = _load_index(path, n_file)
    if index.dtype == bool:
        raise InputError(f"{path}: a mask of True and False, expected integers; write np.flatnonzero of it")
    if index.ndim != 1 or len(index) == 0:
        raise InputError(f"{path}: index of shape {index.shape}, expected (n,) with at least one particle")
    if index.dtype.kind not in "iuf" or (index.dtype.kind == "f" and not (index == np.floor(index)).all()):
        raise InputError(
            f"{path}: index holds {index.dtype} values that are no integers, expected particle numbers from 0"
        )
    outside = index[(index < 0) | (index >= n_file)]
    if len(outside):
        raise InputError(
            f"{path}: index {outside[0]} is out of range, expected 0 to {n_file - 1} for {n_file} particles"
        )
    index = index.astype(np.int64)
    values, counts = np.unique(index, return_counts=True)
    if (counts > 1).any():
        raise InputError(f"{path}: particle {values[counts > 1][0]} is listed more than once; keep each one once")
    return index


def _load_index(path: Path, n_file: int) -> np.ndarray:
    if path.suffix == ".npy":
        return load_npy(path, "integers written by np.save", "no index can be read from it")
    if path.suffix == ".npz":
        arrays = load_npz(path)
        if "ind" not in arrays and len(arrays) != 1:
            raise InputError(f"{path}: no array named 'ind'; write it with np.savez(..., ind=index)")
        return arrays["ind"] if "ind" in arrays else next(iter(arrays.values()))
    try:
        if path.suffix == ".txt":
            return np.array([float(word) for word in read_bytes(path, "integers").decode().split()])
        return _flat(load_arrays(path), n_file)
    except (ValueError, TypeError, OverflowError):
        raise InputError(
            f"{path}: no index can be read from it, expected integers; write it with np.savetxt or pickle"
        ) from None


def _flat(index: Any, n_file: int) -> np.ndarray:
    """Return an array as it is, and a plain list of numbers as one; lists of lists may unfold to any size."""
    if isinstance(index, range) and len(index) <= n_file:
        return np.array(index)
    if isinstance(index, list | tuple) and not all(isinstance(value, int | float | np.generic) for value in index):
        raise ValueError("a list of something else than numbers")
    if not isinstance(index, np.ndarray | list | tuple):
        raise TypeError(f"{type(index).__name__} instead of an array")
    return np.asarray(index)


def read_labels(files: ParticleFiles, selection: Selection) -> dict[str, np.ndarray] | None:
    """Read what is known about simulated particles: ``state``, (N,) int64, and ``hinge_rad``, (N,) float64.

    Returns:
        Those of the two that the file has; None where no file is given.

    Raises:
        InputError: none of the two is there, or they have the wrong length or are no numbers.
    """
    if files.labels is None:
        return None
    path = Path(files.labels)
    arrays = load_npz(path)
    labels = {}
    for name, dtype in LABELS.items():
        if name in arrays:
            values = arrays[name]
            if values.ndim != 1 or not np.can_cast(values.dtype, dtype, casting="same_kind"):
                raise InputError(
                    f"{path}: {name} of shape {values.shape} and type {values.dtype}, expected (N,) {dtype}"
                )
            taken = selection.take(values, path, name)[0].astype(dtype)
            if not np.isfinite(taken).all():
                raise InputError(
                    f"{path}: {name} has NaN or infinite values, expected numbers; leave such particles out"
                )
            labels[name] = taken
    if not labels:
        raise InputError(f"{path}: arrays {sorted(arrays)}, expected 'state' or 'hinge_rad'; see data.labels")
    return labels
