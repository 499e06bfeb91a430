"""Which image of which stack each row of a .star or .cs stands for, and where that stack is."""

import os
from collections.abc import Iterable, Iterator
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


def find_stacks(names: Iterable[str], table: Path, datadir: str | None, beside: Path | None = None) -> list[str | None]:
    """Find the stacks that a .star or .cs names.

    A folder that the user gives comes before all else: a stack is looked for in it under the path that the table names,
    then under the file's name alone. Without such a folder, that of the table is taken. cryoDRGN's
    ``_MRCDataFrameSource`` looks into the working folder first.

    Args:
        names: as the table writes them, each once.
        table: the .star or .cs.
        datadir: the folder that the user gives; only absolute names are then looked for elsewhere.
        beside: another file in whose folder they may be.

    Returns:
        The path of each; None where there is no such file.

    Raises:
        InputError: two names lead to one file, which is in neither place that they name.
    """
    found: dict[str, str] = {}
    stacks = []
    for name in names:
        stack = next((str(place) for place in _places(name, table, datadir, beside) if is_regular(place)), None)
        stacks.append(stack)
        if stack is not None and os.path.normpath(found.setdefault(stack, name)) != os.path.normpath(name):
            raise InputError(
                f"{table}: its stacks {found[stack]} and {name} would both be {stack}, expected a file for each; set "
                "data.datadir to the folder that holds them under these names"
            )
    return stacks


def _places(name: str, table: Path, datadir: str | None, beside: Path | None) -> Iterator[Path]:
    path = Path(name)
    if datadir is not None:
        yield Path(datadir, *path.parts[path.is_absolute() :])
        yield Path(datadir, path.name)
        if path.is_absolute():
            yield path
    if datadir is None or beside is not None:
        for folder in (table.parent, beside.parent if beside else table.parent):
            yield from (folder / path, folder / path.name)
        yield path  # RELION names them from its project's folder, where one works


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
