"""Poses and CTF from RELION's .star, as cryoDRGN's parse commands read them."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from cryodrgn.starfile import Starfile
from cryodrgn.utils import R_from_relion
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes
from lightning_modules.files.safe_numpy import UNPACKED_BYTES, UNPACKED_TIMES

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


class StarTable:
    """A .star of RELION 3.0 (one table) or 3.1 (with an optics table), column by column.

    Attributes:
        path: the file.
        n_rows: number of particles.
    """

    def __init__(self, path: Path) -> None:
        """Read the tables with ``cryodrgn.starfile``.

        Raises:
            InputError: the file is no .star, or a row has not as many values as there are columns.
        """
        self.path = path
        _refuse_long_words(path)
        try:
            self._star = Starfile(str(path))
        except Exception as error:  # it takes the file's word for everything
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(f"{path}: no readable .star table ({reason}); export it again") from None
        self.n_rows = len(self._star)
        if self._star.data_optics is not None and self._star.data_optics.index.has_duplicates:
            raise InputError(f"{path}: an optics group is described twice, expected each once; export it again")

    def has(self, *columns: str) -> bool:
        """Whether all the columns are there, in the particles' or in the optics table."""
        return not self._missing(columns)

    def numbers(self, *columns: str) -> Array:
        """Return columns as (N, n_columns) float64, an optics group's values repeated for its particles.

        Raises:
            InputError: a column is missing or holds something else than numbers.
        """
        self.require(columns)
        try:
            return np.stack([self._star.get_optics_values(column, dtype=np.float64) for column in columns], axis=1)
        except ValueError:
            raise InputError(f"{self.path}: {' or '.join(columns)} holds text, expected numbers") from None
        except (KeyError, TypeError, IndexError) as error:
            raise InputError(f"{self.path}: optics group {error} is not in the optics table") from None

    def texts(self, column: str) -> NDArray[np.str_]:
        """Return a column as (N,) strings.

        Raises:
            InputError: the column is missing.
        """
        self.require((column,))
        return self._star.df[column].to_numpy().astype(str)

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
        optics = self._star.data_optics
        known = set(self._star.df.columns) | (set() if optics is None else set(optics.columns))
        return [column for column in columns if column not in known]


def _refuse_long_words(path: Path) -> None:
    """Refuse what would not fit into memory: every value of the table takes as much as the longest one."""
    content = read_bytes(path, "a .star table")
    try:
        words = content.decode().split()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is no UTF-8 text; no readable .star table, export it again"
        ) from None
    longest = max(map(len, words), default=0)
    if 4 * longest * len(words) > max(UNPACKED_BYTES, UNPACKED_TIMES * len(content)):
        raise InputError(f"{path}: a word of {longest:,} characters; no readable .star table, export it again")


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
