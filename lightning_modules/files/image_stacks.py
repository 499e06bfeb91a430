"""Image stacks on disk: what is checked before an image is read, and cryoDRGN's reader for them."""

import errno
import logging
import os
import stat
import struct
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryodrgn.dataset import ImageDataset
from cryodrgn.mrcfile import MRCHeader
from cryodrgn.source import ImageSource
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import is_regular, read_bytes, regular_file
from lightning_modules.files.star_and_cs import cs_images, star_images

logger = logging.getLogger(__name__)

HEADER_BYTES = 1024
# Complex (3, 4) and colour (16) modes are no particle images.
REAL_MODES = (0, 1, 2, 6, 12, 17)
STACK_SUFFIXES = (".mrcs", ".mrc")
PARTICLE_SUFFIXES = (*STACK_SUFFIXES, ".star", ".cs", ".txt")


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


@dataclass(frozen=True)
class Inventory:
    """The images that a particle file stands for, before any of them is read.

    Attributes:
        n_images: number of particles N in the file, before any selection.
        box_px: side D in px, the same for all.
        pixel_size_angstrom: from the first stack's header; None where it does not say.
        stacks: the .mrc(s) files that hold the images.
    """

    n_images: int
    box_px: int
    pixel_size_angstrom: float | None
    stacks: tuple[str, ...]


def check_file(path: str | Path, suffixes: tuple[str, ...], key: str) -> Path:
    """Return the path of a readable file with one of the suffixes.

    Args:
        path: file that the user named.
        suffixes: those that the key takes.
        key: configuration key, for the message.

    Raises:
        InputError: no such file, a folder, another extension, or not readable.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        locale = sys.getfilesystemencoding()
        cure = "rename it" if locale == "utf-8" else f"set PYTHONUTF8=1 (file names are read as {locale} here)"
        raise InputError(f"{key}: {str(path)!a}: its name is not in UTF-8, expected one that is; {cure}") from None
    if path.suffix not in suffixes:
        raise InputError(f"{key}: {path} ends in {path.suffix or 'nothing'!r}, expected one of {', '.join(suffixes)}")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(
                f"{key}: {path} cannot be read ({error.strerror}); expected a {path.suffix} file"
            ) from None
        raise InputError(f"{key}: no file {path}; check the path (relative ones start at {Path.cwd()})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{key}: {path} is a folder, expected a {path.suffix} file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{key}: {path} is a pipe or a device, expected a {path.suffix} file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{key}: {path} may not be read by you; mend its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{key}: {path} is empty, expected a {path.suffix} file; copy it again")
    return path


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


def find_stack(name: str, datadir: str | Path) -> str | None:
    """Find a stack that a .star or .cs names, where cryoDRGN's ``_MRCDataFrameSource`` looks for it."""
    for candidate in (Path(name), Path(datadir, name), Path(datadir, Path(name).name)):
        if is_regular(candidate):
            return str(candidate)
    return None


def inspect(particles: Path, datadir: str | None) -> Inventory:
    """List what a particle file stands for. Reads tables and headers, no images.

    Args:
        particles: .mrcs, .mrc, .star, .cs or .txt.
        datadir: folder of the stacks that a .star or .cs names; None for the folder of that file.

    Raises:
        InputError: a stack is missing or damaged, boxes differ, or a row names an image that its stack does
            not hold.
    """
    if particles.suffix in STACK_SUFFIXES:
        header = read_header(particles)
        return Inventory(header.n_images, header.box_px, header.pixel_size_angstrom, (str(particles),))
    if particles.suffix == ".txt":
        return _inspect_list(particles)
    star = particles.suffix == ".star"
    names, numbers = star_images(particles) if star else cs_images(particles)
    folder = datadir or particles.parent
    unique, stack_of_row = np.unique(names, return_inverse=True)
    stacks = []
    for name in unique:
        stack = find_stack(str(name), folder)
        if stack is None:
            raise InputError(
                f"{particles}: its stack {name} is not in {folder}; set data.datadir to the folder that holds it"
            )
        stacks.append(stack)
    headers = _headers_of_one_box(particles, stacks)
    held = np.array([header.n_images for header in headers])[stack_of_row]
    wrong = np.flatnonzero((numbers < 0) | (numbers >= held))
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{particles}: row {row} names image {numbers[row] + 1} of {names[row]}, which holds "
            f"{held[row]}; the table belongs to another stack"
        )
    return Inventory(len(names), headers[0].box_px, headers[0].pixel_size_angstrom, tuple(stacks))


def _inspect_list(particles: Path) -> Inventory:
    """List the stacks of a .txt: one path a line, relative to the list's own folder."""
    stacks = []
    try:
        lines = read_bytes(particles, "a list of stacks").decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{particles}: byte {error.start} is no UTF-8 text, expected the path of an .mrcs file in each line"
        ) from None
    for number, line in enumerate(lines, start=1):
        stack = particles.parent / line.strip()
        if stack.suffix not in STACK_SUFFIXES or not is_regular(stack):
            raise InputError(
                f"{particles}: line {number} is {repr(line.strip())[:200]}, expected the path of an .mrcs file, "
                f"relative to {particles.parent}; there is no such file"
            )
        stacks.append(str(stack))
    headers = _headers_of_one_box(particles, stacks)
    n_images = sum(header.n_images for header in headers)
    return Inventory(n_images, headers[0].box_px, headers[0].pixel_size_angstrom, tuple(stacks))


def _headers_of_one_box(particles: Path, stacks: list[str]) -> list[StackHeader]:
    headers = [read_header(stack) for stack in stacks]
    for stack, header in zip(stacks, headers, strict=True):
        if header.box_px != headers[0].box_px:
            raise InputError(
                f"{particles}: images of {header.box_px} px in {stack} and of {headers[0].box_px} px in "
                f"{stacks[0]}, expected one box; downsample them to the same one"
            )
    return headers


class _Float32Source:
    """A cryoDRGN image source that gives float32 whatever the stack's mode, as it does for stacks in a .star.

    Read directly, integer stacks make ``ImageDataset`` fail (torch.mean of integers), and would get a window
    of zeros and ones; half-precision ones are windowed in half precision.
    """

    dtype = np.float32

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.D: int = source.D
        self.n: int = source.n

    def images(self, indices: Any = None) -> Tensor:
        images = self._source.images(indices, as_numpy=True)
        return torch.from_numpy(images.astype(np.float32, copy=False))


class StackReader(ImageDataset):
    """cryoDRGN's ``ImageDataset``, lazy, for every real-valued MRC mode."""

    window: Tensor | None

    def __init__(self, norm_real: tuple[float, float] | None = None, **options: Any) -> None:
        """Open a stack; arguments as ``ImageDataset``.

        Args:
            norm_real: mean and std of the raw images; None estimates them from about 1,000 images.
            **options: those of ``ImageDataset``. Its ``norm`` is estimated likewise where it is None.
        """
        self._norm_real = norm_real
        super().__init__(lazy=True, **options)

    @property
    def src(self) -> _Float32Source:
        """The images as on disk, in float32."""
        return self._source

    @src.setter
    def src(self, source: ImageSource) -> None:
        if np.dtype(source.dtype) != np.float32:
            logger.info("images of type %s, read as float32", np.dtype(source.dtype))
        self._source = _Float32Source(source)

    def estimate_normalization_real(self, n: int = 1000) -> tuple[float, float]:
        """Mean and std of the raw images, from those that ``ImageDataset`` takes."""
        return self._norm_real or super().estimate_normalization_real(n)

    def hartley(self, raw: Tensor) -> Tensor:
        """Invert, window, transform, symmetrize and normalize, as ``ImageDataset`` does.

        Args:
            raw: (B, D, D) images as on disk; overwritten.

        Returns:
            (B, L*L) Hartley transforms.
        """
        if self.window is not None:
            self.window = self.window.to(raw.device)
        return self._process(raw)[1].reshape(len(raw), -1)
