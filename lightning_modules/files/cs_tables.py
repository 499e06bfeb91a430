"""Poses and CTF from cryoSPARC's .cs, as cryoDRGN's parse commands read them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import load_npy

Array = NDArray[np.floating]

CS_CTF = (
    "ctf/df1_A",
    "ctf/df2_A",
    "ctf/df_angle_rad",
    "ctf/accel_kv",
    "ctf/cs_mm",
    "ctf/amp_contrast",
    "ctf/phase_shift_rad",
)


def read_cs(path: Path, columns: Sequence[str] = ()) -> np.ndarray:
    """Read cryoSPARC's table, a structured array (N,).

    Raises:
        InputError: no such table, Python objects in it, or columns are missing.
    """
    table = load_npy(path, "one exported by cryoSPARC", "no readable .cs table")
    if table.dtype.names is None or table.ndim != 1 or len(table) == 0:
        raise InputError(f"{path}: expected a .cs table with named columns and at least one row; export it again")
    if missing := [column for column in columns if column not in table.dtype.names]:
        raise InputError(f"{path}: no column {', '.join(missing)}; export the .cs with it or use another file")
    return table


def cs_box(path: Path, table: np.ndarray) -> int | None:
    """Box of the images that a .cs describes, in px; None where it does not say.

    Raises:
        InputError: a box that no image has.
    """
    if "blob/shape" not in (table.dtype.names or ()):
        return None
    return plausible_box(cs_numbers(path, table, "blob/shape", 2)[0][0], path)


def plausible_box(value: float, path: Path) -> int:
    """Return the box that a table says, in px.

    Raises:
        InputError: a box that no image has.
    """
    if not 1 <= value < 1 << 16:
        raise InputError(f"{path}: a box of {value:g} px, expected that of its images; export it again")
    return int(value)


def cs_numbers(path: Path, table: np.ndarray, name: str, width: int | None = None) -> np.ndarray:
    """Return a column of numbers, (N,) or (N, width)."""
    values: np.ndarray = table[name]
    if values.dtype.kind not in "fiu" or values.shape != (len(table), *(() if width is None else (width,))):
        found = f"{values.dtype} of shape {values.shape}"
        raise InputError(f"{path}: column {name} is {found}, expected {width or 1} number(s) a row; export it again")
    return values


def cs_poses(path: Path, box_px: int) -> tuple[Array, Array]:
    """Poses as ``cryodrgn parse_pose_csparc`` makes them: of a refinement, else of class 0 ab initio.

    Args:
        path: the .cs.
        box_px: side of its images, used where it does not say.

    Returns:
        (N, 3, 3) rotations and (N, 2) shifts as fractions of the box.

    Raises:
        InputError: no poses in the table.
    """
    import torch
    from cryodrgn.lie_tools import expmap

    table = read_cs(path)
    names = table.dtype.names or ()
    group = "alignments3D" if "alignments3D/pose" in names else "alignments_class_0"
    if f"{group}/pose" not in names or f"{group}/shift" not in names:
        raise InputError(f"{path}: no column alignments3D/pose and /shift; use the .cs of a refinement's particles")
    vectors = cs_numbers(path, table, f"{group}/pose", 3)
    rotation_vectors = torch.from_numpy(vectors.astype(vectors.dtype.newbyteorder("=")))
    rotations = expmap(rotation_vectors)
    # expmap divides by the angle: no rotation at all comes out as NaN.
    unrotated = rotation_vectors.norm(dim=-1) == 0
    rotations[unrotated] = torch.eye(3, dtype=rotations.dtype)
    shifts = cs_numbers(path, table, f"{group}/shift", 2) / np.float32(cs_box(path, table) or box_px)
    return rotations.transpose(-1, -2).numpy(), shifts


def cs_ctf(path: Path, box_px: int, pixel_size_angstrom: float | None) -> Array:
    """CTF as ``cryodrgn parse_ctf_csparc`` makes it, (N, 9).

    Args:
        path: the .cs.
        box_px: side of its images, used where it does not say.
        pixel_size_angstrom: of its images, used where it does not say.

    Raises:
        InputError: columns are missing, or the pixel size is unknown.
    """
    table = read_cs(path, CS_CTF)
    names = table.dtype.names or ()
    ctf = np.zeros((len(table), 9))
    ctf[:, 0] = cs_box(path, table) or box_px
    if "blob/psize_A" in names:
        ctf[:, 1] = cs_numbers(path, table, "blob/psize_A")
    elif pixel_size_angstrom is not None:
        ctf[:, 1] = pixel_size_angstrom
    else:
        raise InputError(f"{path}: no column blob/psize_A; set data.pixel_size_angstrom to that of its images")
    for column, name in enumerate(CS_CTF, start=2):
        ctf[:, column] = cs_numbers(path, table, name)
        if name.endswith("_rad"):
            ctf[:, column] *= 180 / np.pi
    return ctf.astype(np.float32)
