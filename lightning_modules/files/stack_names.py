"""Which image of which stack each row of a .star or .cs stands for, and where that stack is."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.cs_tables import cs_numbers, read_cs
from lightning_modules.files.regular_files import is_regular
from lightning_modules.files.star_tables import StarTable


class NamedImages(NamedTuple):
    """The images that the rows of a table stand for.

    Attributes:
        stacks: (N,) names of their stacks, as the table writes them.
        numbers: (N,) int64, their numbers in these stacks, from 0.
        uids: (N,) numbers that cryoSPARC gave the particles; None where there are none, or some appear twice.
    """

    stacks: NDArray[np.str_]
    numbers: NDArray[np.int64]
    uids: NDArray[np.unsignedinteger] | None = None


def named_images(path: Path) -> NamedImages:
    """Return the images that a .star or .cs names.

    Raises:
        InputError: no column that names them, or values in it that name none.
    """
    return _of_star(path) if path.suffix == ".star" else _of_cs(path)


def names_images(path: Path) -> bool:
    """Tell whether a .star or .cs has the columns that name its images.

    Raises:
        InputError: the table cannot be read.
    """
    if path.suffix == ".star":
        return StarTable(path).has("_rlnImageName")
    return {"blob/path", "blob/idx"} <= set(read_cs(path).dtype.names or ())


def uids_of(path: Path) -> NDArray[np.unsignedinteger] | None:
    """Return cryoSPARC's numbers of the particles of a .cs, (N,); None for a .star, and where they tell nothing apart.

    Raises:
        InputError: the table cannot be read.
    """
    table = read_cs(path) if path.suffix == ".cs" else None
    if table is None or "uid" not in (table.dtype.names or ()):
        return None
    uids: NDArray[np.unsignedinteger] = table["uid"]
    if uids.ndim != 1 or uids.dtype.kind != "u" or len(np.unique(uids)) < len(uids):
        return None
    return uids


def find_stack(name: str, datadir: str | Path) -> str | None:
    """Find a stack that a .star or .cs names, where cryoDRGN's ``_MRCDataFrameSource`` looks for it."""
    for candidate in (Path(name), Path(datadir, name), Path(datadir, Path(name).name)):
        if is_regular(candidate):
            return str(candidate)
    return None


def _of_star(path: Path) -> NamedImages:
    entries = StarTable(path).texts("_rlnImageName")
    number, at, name = np.char.partition(entries, "@").T
    # At most nine digits, all of them 0 to 9: others are digits too, and no int.
    wrong = np.flatnonzero((at != "@") | ~np.char.isdecimal(number) | (np.char.str_len(number) > 9))
    if len(wrong):
        raise InputError(
            f"{path}: _rlnImageName is {str(entries[wrong[0]])!r} in row {wrong[0]}, expected NUMBER@STACK"
        )
    return NamedImages(name, number.astype(np.int64) - 1)


def _of_cs(path: Path) -> NamedImages:
    table = read_cs(path, ("blob/path", "blob/idx"))
    numbers = cs_numbers(path, table, "blob/idx")
    if table["blob/path"].dtype.kind not in "SU" or table["blob/path"].ndim != 1 or numbers.dtype.kind not in "iu":
        raise InputError(f"{path}: blob/path and blob/idx are no names and numbers of images; export it again")
    try:
        names = table["blob/path"].astype(str)
    except UnicodeDecodeError:
        raise InputError(f"{path}: blob/path is not in ASCII, expected the names of stacks; export it again") from None
    return NamedImages(np.char.lstrip(names, ">"), numbers.astype(np.int64), uids_of(path))
