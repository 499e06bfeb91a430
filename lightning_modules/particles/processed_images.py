"""Images that the model does not describe: multiplied by their CTF, phase-flipped, or of opposite contrasts."""

from pathlib import Path

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.files.cs_tables import cs_numbers, read_cs
from lightning_modules.files.image_stacks import Inventory
from lightning_modules.files.regular_files import MAX_TABLE_BYTES, read_bytes
from lightning_modules.files.star_tables import StarTable
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.selection import Selection
from lightning_modules.particles.table_rows import rows_of

# RELION's flags of an optics group.
FLAGS = {
    "_rlnCtfDataAreCtfPremultiplied": "multiplied by their CTF",
    "_rlnCtfDataArePhaseFlipped": "phase-flipped",
}


def refuse_processed(files: ParticleFiles, images: Inventory, selection: Selection) -> None:
    """Refuse what the tables of a particle set say about its images, where that would be wrong without a word.

    The model multiplies a slice by the CTF once, and the encoder's input by its sign.

    Args:
        files: checked files.
        images: what the particle file holds.
        selection: which of its particles are taken.

    Raises:
        InputError: images that were multiplied by their CTF or its sign, with a CTF; or images of both signs.
    """
    tables = dict.fromkeys(Path(path) for path in (files.particles, files.poses, files.ctf) if path is not None)
    for path in tables:
        if path.suffix == ".star" and files.ctf is not None:
            _refuse_ctf_applied(path, files, images, selection)
        if path.suffix == ".cs":
            _refuse_both_signs(path, files, images, selection)


def _refuse_ctf_applied(path: Path, files: ParticleFiles, images: Inventory, selection: Selection) -> None:
    content = read_bytes(path, "a .star table", MAX_TABLE_BYTES)
    if not any(flag.encode() in content for flag in FLAGS):
        return
    table = StarTable(path)
    for flag, applied in FLAGS.items():
        if table.has(flag):
            values, _ = rows_of(path, files, images, selection).take(table.numbers(flag)[:, 0], path, flag)
            if n_applied := np.count_nonzero(values):
                raise InputError(
                    f"{path}: {flag} says that {n_applied} of the {len(values)} images were {applied}, expected images "
                    "as recorded: the model applies the CTF itself; extract them again without it"
                )


def _refuse_both_signs(path: Path, files: ParticleFiles, images: Inventory, selection: Selection) -> None:
    table = read_cs(path)
    if "blob/sign" not in (table.dtype.names or ()):
        return
    signs = cs_numbers(path, table, "blob/sign")
    values, _ = rows_of(path, files, images, selection).take(signs, path, "blob/sign")
    n_negative, n_positive = np.count_nonzero(values < 0), np.count_nonzero(values > 0)
    if n_negative and n_positive:
        raise InputError(
            f"{path}: blob/sign is negative for {n_negative} and positive for {n_positive} of the images, expected one "
            "contrast, light on dark or dark on light, for all; take those of one sign with data.ind"
        )
