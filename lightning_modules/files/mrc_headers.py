"""Headers of .mrc and .mrcs files, checked against the files."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from cryodrgn.mrcfile import MRCHeader

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import regular_file

HEADER_BYTES = 1024
# Complex (3, 4) and colour (16) modes are no particle images.
REAL_MODES = (0, 1, 2, 6, 12, 17)


@dataclass(frozen=True)
class StackHeader:
    """What the header of one .mrc(s) file says, checked against the file.

    Attributes:
        n_images: number of images.
        box_px: side D in px, even.
        pixel_size_angstrom: None where the header does not say.
    """

    n_images: int
    box_px: int
    pixel_size_angstrom: float | None


def read_header(path: str | Path) -> StackHeader:
    """Read the header of an .mrc(s) file, and check it against the file's size.

    Raises:
        InputError: truncated, foreign byte order, no real-valued images, not square, or an odd box.
    """
    with regular_file(path, "an image stack").open("rb") as file:
        start = file.read(HEADER_BYTES)
        size = os.fstat(file.fileno()).st_size
    if len(start) < HEADER_BYTES:
        raise InputError(
            f"{path}: {len(start)} bytes, too short for an MRC header ({HEADER_BYTES} bytes); copy it again"
        )
    _refuse_foreign_bytes(path, start)
    try:
        # As MRCHeader.parse; but that reads an extended header of any size, and all of the file if it is negative.
        header = MRCHeader(struct.unpack(f"={MRCHeader.FSTR}", start))
    except (ValueError, struct.error):
        mode = struct.unpack_from("=i", start, 12)[0]
        raise InputError(f"{path}: MRC mode {mode}, expected one of {REAL_MODES}; is it an image stack?") from None
    fields = header.fields
    nx, ny, nz, mode = (int(fields[name]) for name in ("nx", "ny", "nz", "mode"))
    if min(nx, ny, nz) < 1 or mode not in REAL_MODES or fields["next"] < 0:
        raise InputError(
            f"{path}: header says {nz} images of {ny} x {nx} px in MRC mode {mode}, expected at least one "
            f"image in one of the modes {REAL_MODES}; is it an image stack?"
        )
    if nx != ny:
        raise InputError(f"{path}: images of {ny} x {nx} px, expected square ones; crop or pad them")
    if nx % 2:
        raise InputError(
            f"{path}: odd box of {nx} px, expected an even one; run `cryodrgn downsample {path} -D {nx - 1}`"
        )
    held = (size - HEADER_BYTES - fields["next"]) // (nx * ny * np.dtype(header.dtype).itemsize)
    if held < nz:
        raise InputError(
            f"{path}: truncated, the header says {nz} images and the file holds {max(held, 0)}; copy it again"
        )
    pixel_size = float(header.apix)
    return StackHeader(nz, nx, pixel_size if np.isfinite(pixel_size) and pixel_size > 0 else None)


def _refuse_foreign_bytes(path: str | Path, start: bytes) -> None:
    """Refuse the other byte order: cryoDRGN seeks the stamp one byte too late and misreads such files."""
    swapped = ">" if struct.pack("=i", 1) == struct.pack("<i", 1) else "<"
    native_mode, foreign_mode = (struct.unpack_from(f"{order}i", start, 12)[0] for order in ("=", swapped))
    native_nx, foreign_nx = (struct.unpack_from(f"{order}i", start, 0)[0] for order in ("=", swapped))
    # Stamps are often missing or wrong; but a side below 65536 px is none, or a larger one, when swapped.
    if foreign_mode in REAL_MODES and 0 < foreign_nx < 1 << 16 and not 0 < native_nx < 1 << 16:
        raise InputError(
            f"{path}: written with the other byte order (MRC mode {native_mode} when read here); rewrite it, "
            f"for instance with `relion_image_handler --i {Path(path).name} --o native.mrcs`"
        )
