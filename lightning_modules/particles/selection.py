"""Which particles of a file are taken, and what is known about them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import MAX_TABLE_BYTES, read_bytes
from lightning_modules.files.safe_numpy import load_npy, load_npz
from lightning_modules.files.safe_pickle import load_arrays
from lightning_modules.particles.particle_files import ParticleFiles

# Stretches of numbers in one message.
LISTED = 50
LABELS = {"state": "int64", "hinge_rad": "float64"}


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
            return np.array([float(word) for word in read_bytes(path, "integers", MAX_TABLE_BYTES).decode().split()])
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


def listed(what: str, numbers: NDArray[np.int64]) -> str:
    """Return numbers for a message, "rows 2, 5-9" for instance; of very many the first, and how many there are.

    Args:
        what: "row", of one number.
        numbers: at least one.
    """
    ordered = np.unique(numbers)
    runs = np.split(ordered, np.flatnonzero(np.diff(ordered) > 1) + 1)
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:LISTED]]
    if len(runs) > LISTED:
        parts.append(f"... ({len(ordered)} in all)")
    return f"{what}{'s' if len(ordered) > 1 else ''} {', '.join(parts)}"


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
