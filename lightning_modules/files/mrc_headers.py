"""Headers of .mrc and .mrcs files, checked against the files, and volumes.

The format is MRC2014 (https://www.ccpem.ac.uk/mrc-format/mrc2014/), and for bytes also IMOD's
(https://bio3d.colorado.edu/imod/doc/mrc_format.txt).
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import regular_file

HEADER_BYTES = 1024
# Complex (3, 4) and colour (16) modes are no particle images. Mode 17 is cryoDRGN's own.
TYPES = {0: np.int8, 1: np.int16, 2: np.float32, 6: np.uint16, 12: np.float16, 17: np.int8}
REAL_MODES = tuple(TYPES)
# Where the fields are, in bytes.
MODE, MX, CELL, RANGE, EXTENDED, IMOD = 12, 28, 40, 76, 92, 152
IMOD_STAMP, IMOD_SIGNED = 1146047817, 1


@dataclass(frozen=True)
class MrcHeader:
    """What the header of a file says, checked against its size.

    Attributes:
        shape: (sections, rows, columns), each at least 1.
        pixel_size_angstrom: None where the header does not say.
        dtype: of the pixels.
        start: bytes of the file before the first section.
    """

    shape: tuple[int, int, int]
    pixel_size_angstrom: float | None
    dtype: np.dtype
    start: int


@dataclass(frozen=True)
class StackHeader:
    """What the header of one .mrc(s) file of images says.

    Attributes:
        n_images: number of images.
        box_px: side D in px, even.
        pixel_size_angstrom: None where the header does not say.
        dtype: of the pixels.
        start: bytes of the file before the first image.
    """

    n_images: int
    box_px: int
    pixel_size_angstrom: float | None
    dtype: np.dtype
    start: int


def read_header(path: str | Path) -> StackHeader:
    """Read the header of a stack of images.

    Raises:
        InputError: as :func:`read_mrc_header`, or the images are not square, or of an odd box.
    """
    header = read_mrc_header(path)
    nz, ny, nx = header.shape
    if nx != ny:
        raise InputError(f"{path}: images of {ny} x {nx} px, expected square ones; crop or pad them")
    if nx % 2:
        raise InputError(
            f"{path}: odd box of {nx} px, expected an even one; run `cryodrgn downsample {path} -D {nx - 1}`"
        )
    _refuse_truncated(path, header)
    return StackHeader(nz, nx, header.pixel_size_angstrom, header.dtype, header.start)


def read_volume(path: str | Path) -> NDArray[np.float32]:
    """Read all sections of a file, (sections, rows, columns).

    Raises:
        InputError: as :func:`read_mrc_header`, or the file is truncated.
    """
    try:
        header = read_mrc_header(path)
        _refuse_truncated(path, header)
    except InputError as error:
        raise InputError(f"{error}, or repeat the run that wrote this volume with overwrite=true") from None
    with open(path, "rb") as file:  # noqa: PTH123
        file.seek(header.start)
        values = np.fromfile(file, header.dtype, math.prod(header.shape))
    return values.reshape(header.shape).astype(np.float32, copy=False)


def read_mrc_header(path: str | Path) -> MrcHeader:
    """Read the header of any .mrc(s) file.

    Raises:
        InputError: too short, of the other byte order, or no real numbers.
    """
    with regular_file(path, "an image stack").open("rb") as file:
        start = file.read(HEADER_BYTES)
    if len(start) < HEADER_BYTES:
        raise InputError(
            f"{path}: {len(start)} bytes, too short for an MRC header ({HEADER_BYTES} bytes); copy it again"
        )
    _refuse_foreign_bytes(path, start)
    nx, ny, nz, mode = struct.unpack_from("=4i", start)
    (extended,) = struct.unpack_from("=i", start, EXTENDED)
    if mode not in TYPES:
        raise InputError(f"{path}: MRC mode {mode}, expected one of {REAL_MODES}; is it an image stack?")
    if min(nx, ny, nz) < 1 or extended < 0:
        raise InputError(
            f"{path}: header says {nz} images of {ny} x {nx} px in MRC mode {mode}, expected at least one "
            f"image in one of the modes {REAL_MODES}; is it an image stack?"
        )
    dtype = np.dtype(np.uint8 if mode == 0 and _unsigned(start) else TYPES[mode])
    return MrcHeader((nz, ny, nx), _pixel_size_angstrom(start), dtype, HEADER_BYTES + extended)


def _refuse_truncated(path: str | Path, header: MrcHeader) -> None:
    nz, ny, nx = header.shape
    held = (Path(path).stat().st_size - header.start) // (nx * ny * header.dtype.itemsize)
    if held < nz:
        raise InputError(
            f"{path}: truncated, the header says {nz} images and the file holds {max(held, 0)}; copy it again"
        )


def _unsigned(start: bytes) -> bool:
    """Tell whether mode 0 is unsigned bytes here: MRC2014's are signed, IMOD's are as its flag says.

    Programs older than both wrote unsigned ones. They are known by a range that signed bytes do not have.
    """
    stamp, flags = struct.unpack_from("=2i", start, IMOD)
    if stamp == IMOD_STAMP:
        return not flags & IMOD_SIGNED
    lowest, highest = struct.unpack_from("=2f", start, RANGE)
    return bool(lowest >= 0 and 127 < highest <= 255)


def _pixel_size_angstrom(start: bytes) -> float | None:
    """Return the cell's side over its number of samples; a side or number of 0 stands for unknown."""
    (samples,), (side,) = struct.unpack_from("=i", start, MX), struct.unpack_from("=f", start, CELL)
    return round(side / samples, 6) or None if samples > 0 and 0 < side < np.inf else None


def _refuse_foreign_bytes(path: str | Path, start: bytes) -> None:
    """Refuse the other byte order, which cryoDRGN misreads: it seeks the stamp one byte too late."""
    swapped = ">" if struct.pack("=i", 1) == struct.pack("<i", 1) else "<"
    native_mode, foreign_mode = (struct.unpack_from(f"{order}i", start, MODE)[0] for order in ("=", swapped))
    native_nx, foreign_nx = (struct.unpack_from(f"{order}i", start, 0)[0] for order in ("=", swapped))
    # Stamps are often missing or wrong; but a side below 65536 px is none, or a larger one, when swapped.
    if foreign_mode in REAL_MODES and 0 < foreign_nx < 1 << 16 and not 0 < native_nx < 1 << 16:
        raise InputError(
            f"{path}: written with the other byte order (MRC mode {native_mode} when read here); rewrite it, "
            f"for instance with `relion_image_handler --i {Path(path).name} --o native.mrcs`"
        )
