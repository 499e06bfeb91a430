"""Which row of a .star or .cs belongs to which particle: tables are often in another order than the images."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.cs_tables import cs_box, read_cs
from lightning_modules.files.image_stacks import Inventory
from lightning_modules.files.stack_names import find_stacks, named_images, names_images, uids_of
from lightning_modules.files.star_tables import StarTable
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.selection import Selection, listed

logger = logging.getLogger(__name__)


class Rows(Protocol):
    """What takes the rows of the particles from a table."""

    def take(self, table: np.ndarray, path: Path, what: str) -> tuple[np.ndarray, NDArray[np.int64]]:
        """Return the rows taken, (N, ...), and their numbers in the table, (N,)."""


@dataclass(frozen=True, eq=False)
class MatchedRows:
    """Rows that were found by what they name.

    Attributes:
        rows: (N,) row of each particle taken.
    """

    rows: NDArray[np.int64]

    def take(self, table: np.ndarray, path: Path, what: str) -> tuple[np.ndarray, NDArray[np.int64]]:
        """Return the rows taken, (N, ...), and their numbers in the table, (N,)."""
        return table[self.rows], self.rows


def rows_of(path: Path, files: ParticleFiles, images: Inventory, selection: Selection) -> Rows:
    """Match the rows of a .star or .cs with the particles: by cryoSPARC's uid, else by stack and number of the image.

    Rows are paired as they stand, with a warning, only where the table says nothing that could be matched: it names
    other stacks, those before downsampling for instance, or none.

    Args:
        path: the table.
        files: checked files.
        images: what the particle file holds.
        selection: which of its particles are taken.

    Raises:
        InputError: a particle has no row, or several, or it is unclear which one.
    """
    if Path(path).samefile(files.particles):
        return selection
    uids = None if images.uids is None else uids_of(path)
    if images.uids is not None and uids is not None and np.isin(images.uids, uids).any():
        return _matched(images.uids, uids, selection, path, files)
    ours, theirs = _keys(path, files, images)
    if (theirs < 0).all():
        if uids is not None:
            raise InputError(
                f"{path}: no particle's uid is in {files.particles}, and it names other stacks; use the .cs of these "
                "particles"
            )
        logger.warning("%s: names none of the stacks of %s: row i is taken for particle i", path, files.particles)
        return selection
    if np.array_equal(ours, theirs):
        return selection
    described_px, is_table = _described_box(path), Path(files.particles).suffix in (".star", ".cs")
    if described_px not in (None, images.box_px) and not is_table:
        # A downsampled stack beside the table of the original one is in the order of its rows or of its images.
        raise InputError(
            f"{path}: describes images of {described_px} px in another order than {files.particles}, which has "
            f"images of {images.box_px} px: its rows can be taken by their order or by their numbers; name a .star of "
            "the downsampled images as data.particles"
        )
    return _matched(ours, theirs, selection, path, files)


def _keys(path: Path, files: ParticleFiles, images: Inventory) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return a number for each image of the particle file, (N,), and the same for each row, -1 where it is no such."""
    stacks = {os.path.realpath(stack): position for position, stack in reversed(list(enumerate(images.stacks)))}
    same_stack = np.array([stacks[os.path.realpath(stack)] for stack in images.stacks])
    ours = _joined(same_stack[images.stack_of_row], images.numbers)
    if not names_images(path):
        return ours, np.full(1, -1)
    named = named_images(path)
    unique, stack_of_row = np.unique(named.stacks, return_inverse=True)
    found = find_stacks(unique.tolist(), path, files.datadir, Path(files.particles))
    positions = np.array([-1 if stack is None else stacks.get(os.path.realpath(stack), -1) for stack in found])
    return ours, _joined(positions[stack_of_row], named.numbers)


def _joined(stacks: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    known = (stacks >= 0) & (numbers >= 0) & (numbers < 1 << 32)
    return np.where(known, (stacks << 32) + numbers, -1)


def _described_box(path: Path) -> int | None:
    if path.suffix == ".cs":
        return cs_box(path, read_cs(path))
    boxes = StarTable(path).box_px()
    return None if boxes is None else int(boxes[0])


def _matched(ours: np.ndarray, theirs: np.ndarray, selection: Selection, path: Path, files: ParticleFiles) -> Rows:
    """Find the row of each particle taken, by numbers of all particles, (N,), and of all rows."""
    wanted, order = ours[selection.rows], np.argsort(theirs)
    first, last = (np.searchsorted(theirs, wanted, side, sorter=order) for side in ("left", "right"))
    for wrong, found in ((first == last, "no row"), (last - first > 1, "several rows")):
        if wrong.any():
            raise InputError(
                f"{path}: {found} for {listed('image', selection.rows[wrong])} (counted from 0) of {files.particles} "
                f"({wrong.sum()} of {len(wrong)} particles), expected one; use the table of these particles, or leave "
                "them out with data.ind"
            )
    logger.info("%s: its rows are matched with the particles of %s", path, files.particles)
    return MatchedRows(order[first])
