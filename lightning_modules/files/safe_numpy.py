"""Arrays from .npy and .npz files, whose headers are not believed: what a file does not hold is not allocated."""

import functools
import operator
import os
import zipfile
from pathlib import Path
from typing import IO

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import regular_file

# An archive may unpack to this much, or to so many times its size: zeros pack a thousandfold, measured values do not.
UNPACKED_BYTES, UNPACKED_TIMES = 1 << 28, 100
# Of a header: numpy's 10,000 characters are too few for a table of many columns, as cryoSPARC writes them.
HEADER_CHARACTERS = 1 << 18


def load_npy(path: Path, expected: str = "an array written by np.save", found: str = "damaged") -> np.ndarray:
    """Read the array of an .npy.

    Args:
        path: the file; its name may end in anything.
        expected: what it should be, for the message.
        found: what it is where it is not.

    Raises:
        InputError: missing, damaged, of another size than its header says, or with Python objects in it.
    """
    regular_file(path, expected)
    try:
        with path.open("rb") as file:
            return _read_array(file, os.fstat(file.fileno()).st_size)
    except Exception as error:  # numpy's header parser fails in nearly any way
        raise InputError(f"{path}: {found} ({_reason(error)}); expected {expected}, copy or make it again") from None


def load_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz.

    Raises:
        InputError: missing, damaged, with Python objects in it, or unpacking to far more than its size.
    """
    regular_file(path, "arrays written by np.savez")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.endswith(".npy")]
            unpacked_bytes, packed_bytes = sum(member.file_size for member in members), path.stat().st_size
            if unpacked_bytes > max(UNPACKED_BYTES, UNPACKED_TIMES * packed_bytes):
                raise ValueError(f"{packed_bytes:,} bytes that unpack to {unpacked_bytes:,}")
            return {member.filename.removesuffix(".npy"): _member(archive, member) for member in members}
    except Exception as error:
        raise InputError(f"{path}: damaged: {_reason(error)}; expected arrays written by np.savez") from None


def refuse_unpacking(path: Path) -> None:
    """Refuse a checkpoint that is no archive, or holds more than its size: torch packs nothing.

    Raises:
        ValueError: says which.
    """
    with zipfile.ZipFile(path) as archive:
        unpacked_bytes, packed_bytes = sum(member.file_size for member in archive.infolist()), path.stat().st_size
    if unpacked_bytes > packed_bytes:
        raise ValueError(f"{packed_bytes:,} bytes that unpack to {unpacked_bytes:,}")


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(member) as file:
        return _read_array(file, member.file_size)


def _read_array(file: IO[bytes], size: int) -> np.ndarray:
    """Read an array after checking that its header asks for the bytes that are there."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of numpy's format")
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read_header(file, max_header_size=HEADER_CHARACTERS)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are not read")
    n_values: int = functools.reduce(operator.mul, shape, 1)  # in Python's numbers, which do not overflow
    held, said = size - file.tell(), n_values * dtype.itemsize
    if min(shape, default=0) < 0 or (dtype.itemsize == 0 and n_values) or said > held:
        raise ValueError(f"the header says {shape} values of {dtype}, {said:,} bytes, and {held:,} are there")
    file.seek(0)
    return np.asarray(np.lib.format.read_array(file, allow_pickle=False, max_header_size=HEADER_CHARACTERS))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
