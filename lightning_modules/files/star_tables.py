"""Poses and CTF from RELION's .star, as cryoDRGN's parse commands read them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryodrgn.utils import R_from_relion
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import UNPACKED_BYTES, UNPACKED_TIMES
from lightning_modules.files.star_blocks import Block, read_blocks

logger = logging.getLogger(__name__)

Array = NDArray[np.floating]

STAR_ANGLES = ("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi")
STAR_CTF = (
    "_rlnDefocusU",
    "_rlnDefocusV",
    "_rlnDefocusAngle",
    "_rlnVoltage",
    "_rlnSphericalAberration",
    "_rlnAmplitudeContrast",
)
OPTICS_GROUP = "_rlnOpticsGroup"
PARTICLES = ("data_particles", "data_images", "data_")


class StarTable:
    """A .star of RELION 3.0 (one table) or 3.1 (with an optics table), column by column.

    Attributes:
        path: the file.
        n_rows: number of particles.
    """

    def __init__(self, path: Path) -> None:
        """Read the tables.

        Raises:
            InputError: the file is no .star, has no particles, or it is unclear which optics group they belong to.
        """
        blocks = read_blocks(path)
        self.path = path
        self._optics = blocks.pop("data_optics", None)
        if not blocks:
            raise InputError(f"{path}: no readable .star table (none but data_optics); export it again")
        self._particles = blocks[max(blocks, key=lambda name: _likeness(name, blocks[name]))]
        self.n_rows = len(self._particles.rows)
        self._optics_row = self._rows_of_optics()

    def has(self, *columns: str) -> bool:
        """Whether all the columns are there, in the particles' or in the optics table."""
        return not self._missing(columns)

    def numbers(self, *columns: str) -> Array:
        """Return columns as (N, n_columns) float64, an optics group's values repeated for its particles.

        Raises:
            InputError: a column is missing or holds something else than numbers.
        """
        self.require(columns)
        return np.stack([self._numbers(column) for column in columns], axis=1)

    def texts(self, column: str) -> NDArray[np.str_]:
        """Return a column of the particles as (N,) strings.

        Raises:
            InputError: the column is missing, or one word of it is so long that all would not fit into memory.
        """
        if column not in self._particles.columns:
            raise InputError(f"{self.path}: no column {column}; export the .star with it or use another file")
        words = self._words(self._particles, column)
        longest = max(map(len, words))
        # numpy gives every word as much room as the longest one.
        if 4 * longest * len(words) > max(UNPACKED_BYTES, UNPACKED_TIMES * self.path.stat().st_size):
            raise InputError(
                f"{self.path}: {column} has a word of {longest:,} characters; no readable .star table, export it again"
            )
        return np.array(words)

    def require(self, columns: Sequence[str]) -> None:
        """Raise an InputError that names the columns that are missing."""
        if missing := self._missing(columns):
            raise InputError(
                f"{self.path}: no column {', '.join(missing)}; export the .star with it or use another file"
            )

    def pixel_size_angstrom(self) -> Array | None:
        """Pixel size of each image in A, (N,); None where the file does not say."""
        if self.has("_rlnImagePixelSize"):
            return self._positive("_rlnImagePixelSize")[:, 0].astype(np.float32)
        if self.has("_rlnDetectorPixelSize", "_rlnMagnification"):
            detector_um, magnification = self._positive("_rlnDetectorPixelSize", "_rlnMagnification").T
            return detector_um * 1e4 / magnification
        return None

    def box_px(self) -> Array | None:
        """Box of each image in px, (N,); None where the file does not say."""
        return self._positive("_rlnImageSize")[:, 0] if self.has("_rlnImageSize") else None

    def _positive(self, *columns: str) -> Array:
        """Return columns that are divided by."""
        values = self.numbers(*columns)
        wrong = ~((values > 0) & (values < np.inf)).all(axis=1)
        if wrong.any():
            row = int(np.argmax(wrong))
            found = ", ".join(f"{value:g}" for value in values[row])
            raise InputError(f"{self.path}: {', '.join(columns)} is {found} in row {row}, expected numbers above 0")
        return values

    def _missing(self, columns: Sequence[str]) -> list[str]:
        known = {*self._particles.columns, *(self._optics.columns if self._optics else ())}
        return [column for column in columns if column not in known]

    def _numbers(self, column: str) -> Array:
        """Return a column as (N,) float64, of the optics table where it is there, as cryoDRGN does."""
        table = self._optics if self._optics and column in self._optics.columns else self._particles
        try:
            values = np.array(self._words(table, column), np.float64)
        except ValueError:
            raise InputError(f"{self.path}: {column} holds text, expected numbers; export it again") from None
        return values if table is self._particles else values[self._optics_row]

    def _words(self, table: Block, column: str) -> list[str]:
        place = table.columns.index(column)
        return [row[place] for row in table.rows]

    def _rows_of_optics(self) -> NDArray[np.int64]:
        """Return the row of the optics table that belongs to each particle, (N,)."""
        optics = self._optics
        if optics is None:
            return np.zeros(self.n_rows, np.int64)
        if OPTICS_GROUP not in optics.columns or OPTICS_GROUP not in self._particles.columns:
            if len(optics.rows) == 1:
                return np.zeros(self.n_rows, np.int64)
            raise InputError(
                f"{self.path}: {len(optics.rows)} optics groups and a table without {OPTICS_GROUP}, expected the group "
                "of each particle; export it again"
            )
        groups = [_number_or_word(word) for word in self._words(optics, OPTICS_GROUP)]
        if len(set(groups)) < len(groups):
            raise InputError(f"{self.path}: an optics group is described twice, expected each once; export it again")
        row_of = {group: row for row, group in enumerate(groups)}
        words = self._words(self._particles, OPTICS_GROUP)
        rows = {word: row_of.get(_number_or_word(word), -1) for word in set(words)}
        if missing := [word for word, row in rows.items() if row < 0]:
            raise InputError(f"{self.path}: optics group {missing[0]} is not in the optics table; export it again")
        return np.array([rows[word] for word in words])


def _likeness(name: str, block: Block) -> tuple[bool, bool, bool, int]:
    """Rank a table by what speaks for its being the particles'. Another one may be larger."""
    columns = set(block.columns)
    described = bool(columns & {*STAR_ANGLES, *STAR_CTF})
    return "_rlnImageName" in columns, described, name in PARTICLES, len(block.rows)


def _number_or_word(word: str) -> float | str:
    try:
        return float(word)
    except ValueError:
        return word


def star_poses(table: StarTable, box_px: int, pixel_size_angstrom: float | None) -> tuple[Array, Array]:
    """Poses as ``cryodrgn parse_pose_star`` makes them.

    Args:
        table: the .star.
        box_px: side of its images, used where it does not say.
        pixel_size_angstrom: of its images, used where it does not say.

    Returns:
        (N, 3, 3) rotations and (N, 2) shifts as fractions of the box.

    Raises:
        InputError: columns are missing, or the pixel size is needed and unknown.
    """
    rotations = R_from_relion(table.numbers(*STAR_ANGLES))
    if table.has("_rlnOriginX", "_rlnOriginY"):
        shifts_px = table.numbers("_rlnOriginX", "_rlnOriginY")
    elif table.has("_rlnOriginXAngst", "_rlnOriginYAngst"):
        shifts_angstrom = table.numbers("_rlnOriginXAngst", "_rlnOriginYAngst")
        shifts_px = shifts_angstrom / star_pixel_size(table, pixel_size_angstrom).reshape(-1, 1)
    else:
        logger.warning("%s: neither _rlnOriginX/Y nor _rlnOriginX/YAngst: all shifts are 0", table.path)
        shifts_px = np.zeros((table.n_rows, 2))
    boxes = table.box_px()
    return rotations, shifts_px / (np.float64(box_px) if boxes is None else boxes.reshape(-1, 1))


def star_ctf(table: StarTable, box_px: int, pixel_size_angstrom: float | None) -> Array:
    """CTF as ``cryodrgn parse_ctf_star`` makes it, (N, 9); arguments and errors as :func:`star_poses`.

    A missing ``_rlnPhaseShift`` is 0 (no phase plate); the command would write NaN.
    """
    boxes = table.box_px()
    ctf = np.zeros((table.n_rows, 9))
    ctf[:, 0] = box_px if boxes is None else boxes
    ctf[:, 2:8] = table.numbers(*STAR_CTF)
    ctf[:, 1] = star_pixel_size(table, pixel_size_angstrom)
    if table.has("_rlnPhaseShift"):
        ctf[:, 8] = table.numbers("_rlnPhaseShift")[:, 0]
    else:
        logger.info("%s: no _rlnPhaseShift, taken as 0 (no phase plate)", table.path)
    return ctf.astype(np.float32)


def star_pixel_size(table: StarTable, given_angstrom: float | None) -> Array:
    """Pixel size of each image in A, (N,) or (1,): the file's own, else the given one.

    Raises:
        InputError: neither is known.
    """
    own = table.pixel_size_angstrom()
    if own is not None:
        if given_angstrom is not None and not np.allclose(own, given_angstrom, rtol=1e-3):
            logger.warning(
                "%s says %.4g A/px: data.pixel_size_angstrom=%.4g is not used",
                table.path,
                own[0],
                given_angstrom,
            )
        return own
    if given_angstrom is None:
        raise InputError(
            f"{table.path}: no pixel size (_rlnImagePixelSize, or _rlnDetectorPixelSize and "
            "_rlnMagnification); set data.pixel_size_angstrom to that of its images"
        )
    return np.array([given_angstrom])
