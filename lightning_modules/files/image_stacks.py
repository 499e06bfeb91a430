"""Which images a particle file stands for: checked before any of them is read."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.mrc_headers import StackHeader, read_header
from lightning_modules.files.regular_files import MAX_TABLE_BYTES, is_regular, read_bytes
from lightning_modules.files.stack_names import find_stacks, named_images

STACK_SUFFIXES = (".mrcs", ".mrc")
PARTICLE_SUFFIXES = (*STACK_SUFFIXES, ".star", ".cs", ".txt")


@dataclass(frozen=True, eq=False)
class Inventory:
    """The images that a particle file stands for, before any of them is read.

    Attributes:
        n_images: number of particles N in the file, before any selection.
        box_px: side D in px, the same for all.
        pixel_size_angstrom: from the first stack's header; None where it does not say.
        stacks: the .mrc(s) files that hold the images.
        headers: of each of them.
        stack_of_row: (N,) int64, position in ``stacks`` of each particle's stack.
        numbers: (N,) int64, number of each particle's image in its stack, from 0.
        uids: (N,) numbers that cryoSPARC gave the particles; None where there are none.
    """

    n_images: int
    box_px: int
    pixel_size_angstrom: float | None
    stacks: tuple[str, ...]
    headers: tuple[StackHeader, ...]
    stack_of_row: NDArray[np.int64]
    numbers: NDArray[np.int64]
    uids: NDArray[np.unsignedinteger] | None = None


def inspect(particles: Path, datadir: str | None) -> Inventory:
    """List what a particle file stands for. Reads tables and headers, no images.

    Args:
        particles: .mrcs, .mrc, .star, .cs or .txt.
        datadir: folder of the stacks that a .star or .cs names; None for the folder of that file. See ``find_stacks``.

    Raises:
        InputError: a stack is missing or damaged, boxes differ, or a row names an image that its stack does
            not hold.
    """
    if particles.suffix in STACK_SUFFIXES:
        return _whole_stacks(particles, [str(particles)])
    if particles.suffix == ".txt":
        return _whole_stacks(particles, _listed_stacks(particles))
    named = named_images(particles)
    unique, stack_of_row = np.unique(named.stacks, return_inverse=True)
    stacks = []
    for name, stack in zip(unique, find_stacks(unique.tolist(), particles, datadir), strict=True):
        if stack is None:
            raise InputError(
                f"{particles}: its stack {name} is not in {datadir or particles.parent}; set data.datadir to the "
                "folder that holds it"
            )
        stacks.append(stack)
    headers = _headers_of_one_box(particles, stacks)
    held = np.array([header.n_images for header in headers])[stack_of_row]
    wrong = np.flatnonzero((named.numbers < 0) | (named.numbers >= held))
    if len(wrong):
        row = wrong[0]
        raise InputError(
            f"{particles}: row {row} names image {named.numbers[row] + 1} of {named.stacks[row]}, which holds "
            f"{held[row]}; the table belongs to another stack"
        )
    return _inventory(headers, stacks, stack_of_row, named.numbers, named.uids)


def _inventory(
    headers: list[StackHeader],
    stacks: list[str],
    stack_of_row: NDArray[np.int64],
    numbers: NDArray[np.int64],
    uids: NDArray[np.unsignedinteger] | None = None,
) -> Inventory:
    first, found = headers[0], (tuple(stacks), tuple(headers))
    return Inventory(len(numbers), first.box_px, first.pixel_size_angstrom, *found, stack_of_row, numbers, uids)


def _whole_stacks(particles: Path, stacks: list[str]) -> Inventory:
    """Take all images of some stacks, in their order."""
    headers = _headers_of_one_box(particles, stacks)
    held = [header.n_images for header in headers]
    numbers = np.concatenate([np.arange(n) for n in held])
    return _inventory(headers, stacks, np.repeat(np.arange(len(stacks)), held), numbers)


def _listed_stacks(particles: Path) -> list[str]:
    """Return the stacks of a .txt: one path a line, relative to the list's own folder."""
    stacks = []
    try:
        lines = read_bytes(particles, "a list of stacks", MAX_TABLE_BYTES).decode().splitlines()
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
    return stacks


def _headers_of_one_box(particles: Path, stacks: list[str]) -> list[StackHeader]:
    headers = [read_header(stack) for stack in stacks]
    for stack, header in zip(stacks, headers, strict=True):
        if header.box_px != headers[0].box_px:
            raise InputError(
                f"{particles}: images of {header.box_px} px in {stack} and of {headers[0].box_px} px in "
                f"{stacks[0]}, expected one box; downsample them to the same one"
            )
    return headers
