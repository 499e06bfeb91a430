"""Poses and CTF from cryoSPARC's .cs, as cryoDRGN's parse commands read them."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from cryodrgn.lie_tools import expmap
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import load_npy

logger = logging.getLogger(__name__)

Array = NDArray[np.floating]

CLASS_POSE = re.compile(r"alignments_class_(\d{1,4})/pose$")

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
    return _checked(path, name, table[name], width)


def _checked(path: Path, name: str, values: np.ndarray, width: int | None) -> np.ndarray:
    if values.dtype.kind not in "fiu" or values.shape != (len(values), *(() if width is None else (width,))):
        found = f"{values.dtype} of shape {values.shape}"
        raise InputError(f"{path}: column {name} is {found}, expected {width or 1} number(s) a row; export it again")
    return values


def cs_poses(path: Path, box_px: int, pixel_size_angstrom: float | None) -> tuple[Array, Array]:
    """Poses as ``cryodrgn parse_pose_csparc`` makes them, at any pixel size, of any number of classes.

    cryoSPARC's shifts are in px of the images that were aligned, which are often smaller than those of the table.

    Args:
        path: the .cs.
        box_px: side of its images, used where it does not say.
        pixel_size_angstrom: of its images, used where it does not say.

    Returns:
        (N, 3, 3) rotations and (N, 2) shifts as fractions of the box.

    Raises:
        InputError: no poses in the table, several classes without posteriors, or the pixel size is unknown.
            What is no number in single rows comes out as NaN.
    """
    table = read_cs(path)
    found = _likeliest(path, _classes(path, table))
    rotation_vectors = torch.from_numpy(found.poses.astype(found.poses.dtype.newbyteorder("=")))
    rotations = expmap(rotation_vectors)
    # expmap divides by the angle: no rotation at all comes out as NaN.
    unrotated = rotation_vectors.norm(dim=-1) == 0
    rotations[unrotated] = torch.eye(3, dtype=rotations.dtype)
    shifts = found.shifts / np.float32(cs_box(path, table) or box_px)
    if found.pixel_sizes is not None:
        aligned_angstrom, images_angstrom = found.pixel_sizes, _pixel_sizes(path, table, pixel_size_angstrom)
        known = (aligned_angstrom > 0) & (images_angstrom > 0)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = np.where(known, aligned_angstrom / images_angstrom, np.nan)
        shifts = shifts * ratios.astype(shifts.dtype)[:, None]
    return rotations.transpose(-1, -2).numpy(), shifts


class _Alignment(NamedTuple):
    """The poses of one class.

    Attributes:
        poses: (N, 3) rotation vectors.
        shifts: (N, 2) in px of the images that were aligned.
        pixel_sizes: (N,) in A of the images that were aligned; None where the table does not say.
        posteriors: (N,) probability of the class; None where the table does not say.
    """

    poses: np.ndarray
    shifts: np.ndarray
    pixel_sizes: np.ndarray | None
    posteriors: np.ndarray | None


def _classes(path: Path, table: np.ndarray) -> list[_Alignment]:
    """Return the alignment of a refinement, else those of all classes: of one column group each, or of one for all."""
    names = table.dtype.names or ()
    if "alignments3D/pose" in names:
        return [_alignment(path, table, "alignments3D")]
    if "alignments3D_multi/pose" in names:
        shape = table["alignments3D_multi/pose"].shape
        if len(shape) != 3:
            raise InputError(f"{path}: alignments3D_multi/pose of shape {shape}, expected (N, K, 3); export it again")
        return [_alignment(path, table, "alignments3D_multi", k) for k in range(shape[1])]
    groups = sorted((int(match[1]), match[0]) for name in names if (match := CLASS_POSE.match(name)))
    return [_alignment(path, table, name.removesuffix("/pose")) for _, name in groups]


def _alignment(path: Path, table: np.ndarray, group: str, k: int | None = None) -> _Alignment:
    if f"{group}/shift" not in (table.dtype.names or ()):
        raise InputError(f"{path}: no column {group}/shift; use the .cs of a refinement's particles")

    def column(name: str, width: int | None = None) -> np.ndarray | None:
        if (full := f"{group}/{name}") not in (table.dtype.names or ()):
            return None
        # Of several classes, a column may also have one value for all of them.
        values = table[full]
        return _checked(path, full, values if k is None or values.ndim == 1 else values[:, k], width)

    poses, shifts = column("pose", 3), column("shift", 2)
    assert poses is not None and shifts is not None
    return _Alignment(poses, shifts, column("psize_A"), column("class_posterior"))


def _likeliest(path: Path, classes: list[_Alignment]) -> _Alignment:
    """Return each particle's alignment to the class of its highest posterior probability."""
    if not classes:
        raise InputError(f"{path}: no column alignments3D/pose and /shift; use the .cs of a refinement's particles")
    if len(classes) == 1:
        return classes[0]
    posteriors = [each.posteriors for each in classes if each.posteriors is not None]
    if len(posteriors) < len(classes):
        raise InputError(
            f"{path}: alignments to {len(classes)} classes and not a class_posterior for each, expected those of one "
            "class, or the probability of each; use the .cs of one class's particles"
        )
    best, rows = np.argmax(posteriors, axis=0), np.arange(len(posteriors[0]))
    unknown = np.logical_not(np.isfinite(posteriors).all(axis=0))
    counts = np.bincount(best, minlength=len(classes))
    logger.info("%s: poses of the likeliest of %d classes; particles of each: %s", path, len(classes), counts.tolist())

    def chosen(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(values)[best, rows]

    pixel_sizes = [each.pixel_sizes for each in classes if each.pixel_sizes is not None]
    return _Alignment(
        np.where(unknown[:, None], np.float32(np.nan), chosen([each.poses for each in classes])),
        chosen([each.shifts for each in classes]),
        chosen(pixel_sizes) if len(pixel_sizes) == len(classes) else None,
        None,
    )


def _pixel_sizes(path: Path, table: np.ndarray, given_angstrom: float | None) -> Array:
    """Pixel size of each image in A, (N,): the file's own, else the given one.

    Raises:
        InputError: neither is known.
    """
    if "blob/psize_A" in (table.dtype.names or ()):
        return cs_numbers(path, table, "blob/psize_A")
    if given_angstrom is None:
        raise InputError(f"{path}: no column blob/psize_A; set data.pixel_size_angstrom to that of its images")
    return np.full(len(table), given_angstrom)


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
    ctf = np.zeros((len(table), 9))
    ctf[:, 0] = cs_box(path, table) or box_px
    ctf[:, 1] = _pixel_sizes(path, table, pixel_size_angstrom)
    for column, name in enumerate(CS_CTF, start=2):
        ctf[:, column] = cs_numbers(path, table, name)
        if name.endswith("_rad"):
            ctf[:, column] *= 180 / np.pi
    return ctf.astype(np.float32)
