"""Poses and CTF of a particle set, scaled as cryoDRGN scales them, and checked row by row."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.cs_tables import cs_box, cs_ctf, cs_numbers, cs_poses, plausible_box, read_cs
from lightning_modules.files.image_stacks import Inventory
from lightning_modules.files.mrc_headers import read_header
from lightning_modules.files.safe_numpy import load_npz
from lightning_modules.files.safe_pickle import load_arrays
from lightning_modules.files.stack_names import find_stacks
from lightning_modules.files.star_tables import STAR_ANGLES, StarTable, star_ctf, star_poses
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.selection import Selection, listed
from lightning_modules.particles.table_rows import Rows, rows_of

logger = logging.getLogger(__name__)

ROTATION_TOLERANCE = 1e-3
# Between table and header: both are rounded, and the least downsampling changes more.
PIXEL_SIZE_TOLERANCE = 0.02


def read_poses(files: ParticleFiles, images: Inventory, selection: Selection) -> tuple[np.ndarray, np.ndarray]:
    """Read rotations and shifts, scaled as ``cryodrgn.pose.PoseTracker.load`` does.

    Args:
        files: checked files.
        images: what the stack holds.
        selection: rows to take.

    Returns:
        (N, 3, 3) rotations and (N, 2) shifts in px of the lattice (side D + 1), float32. Where there are no
        shifts, they are 0.

    Raises:
        InputError: wrong shape or number of rows, NaN, no rotations, or shifts that are no fractions of the
            box.
    """
    path = Path(files.poses or files.particles)
    rotations, shifts = _load_poses(path, files, images)
    rotations = _numbers(rotations, path, "rotations")
    if rotations.shape[1:] != (3, 3):
        raise InputError(f"{path}: rotations of shape {rotations.shape}, expected (N, 3, 3); make it with cryoDRGN")
    paired = _paired(path, files, images, selection)
    rotations, rows = paired.take(rotations, path, "rotations")
    _check_rotations(rotations, rows, path)
    rotations = rotations.astype(np.float32)
    if shifts is None:
        logger.warning("%s: no shifts, all are taken as 0", path)
        return rotations, np.zeros((len(rotations), 2), np.float32)
    return rotations, _shifts_px(_numbers(shifts, path, "shifts"), images.box_px, paired, path)


def read_ctf(files: ParticleFiles, images: Inventory, selection: Selection) -> np.ndarray | None:
    """Read the CTF, scaled to the box of the images as ``cryodrgn.ctf.load_ctf_for_training`` does.

    Args:
        files: checked files.
        images: what the stack holds.
        selection: rows to take.

    Returns:
        (N, 8) float32: pixel size (A), defocus U and V (A), astigmatism angle (deg), voltage (kV), spherical
        aberration (mm), amplitude contrast, phase shift (deg). None where no CTF is asked for.

    Raises:
        InputError: not 9 columns, wrong number of rows, NaN, or values that no microscope has.
    """
    if files.ctf is None:
        return None
    path = Path(files.ctf)
    table = _numbers(_load_ctf(path, files, images), path, "CTF")
    if table.ndim != 2 or table.shape[1] != 9:
        raise InputError(
            f"{path}: CTF of shape {table.shape}, expected 9 columns (box, pixel size, defocus U, V and "
            "angle, voltage, Cs, amplitude contrast, phase shift); make it with `cryodrgn parse_ctf_star`"
        )
    ctf, rows = _paired(path, files, images, selection).take(table, path, "CTF")
    # cryoDRGN takes the pixel size from row 0 of the file, whichever rows are selected.
    for values, numbers in ((table[:1], np.arange(1)), (ctf, rows)):
        _refuse(~np.isfinite(values).all(axis=1), numbers, path, "NaN or infinite CTF", "numbers")
        for column, name in ((0, "box"), (1, "pixel size"), (5, "voltage")):
            _refuse(values[:, column] <= 0, numbers, path, f"{name} not above 0", "px, A and kV above 0")
        _refuse(np.abs(values[:, 7]) > 1, numbers, path, "amplitude contrast above 1", "a fraction")
    return _rescale(table[0], ctf.copy(), rows, images, path)


def _paired(path: Path, files: ParticleFiles, images: Inventory, selection: Selection) -> Rows:
    """Return what takes the particles' rows: those of cryoDRGN's own files are in the order of the images."""
    return rows_of(path, files, images, selection) if path.suffix in (".star", ".cs") else selection


def _rescale(first: np.ndarray, ctf: np.ndarray, rows: NDArray[np.int64], images: Inventory, path: Path) -> np.ndarray:
    box_px = images.box_px
    pixel_size_angstrom = first[0] * first[1] / box_px
    if _contradicts(pixel_size_angstrom, images):
        logger.warning(
            "%s: %.4g A/px for images of %d px, and the header of %s says %.4g A/px, which is not used: were they "
            "cropped, or is the header wrong?",
            path, pixel_size_angstrom, box_px, images.stacks[0], images.pixel_size_angstrom,
        )  # fmt: skip
    if first[0] != box_px:
        logger.info(
            "%s: made for a box of %d px at %.4g A/px, the images have %d px: pixel size rescaled to %.4g "
            "A/px",
            path, first[0], first[1], box_px, pixel_size_angstrom,
        )  # fmt: skip
    if not np.allclose(ctf[:, 0] * ctf[:, 1], first[0] * first[1], rtol=1e-3):
        logger.warning("%s: several pixel sizes; that of row 0 is used for all, as in cryoDRGN", path)
    ctf[:, 1] = pixel_size_angstrom
    with np.errstate(over="ignore"):
        scaled = ctf[:, 1:].astype(np.float32)
    _refuse(
        np.logical_not(np.isfinite(scaled).all(axis=1)), rows, path, "CTF too large for a float32", "A, deg, kV and mm"
    )
    return scaled


def _load_poses(path: Path, files: ParticleFiles, images: Inventory) -> tuple[Any, Any]:
    if path.suffix == ".star":
        table = StarTable(path)
        if files.particles == files.poses and not table.has(*STAR_ANGLES):
            raise InputError(
                f"data.poses is not set, and {path} has no {', '.join(STAR_ANGLES)}: poses are required; "
                "give a poses.pkl, or the .star or .cs of a refinement"
            )
        return star_poses(table, _star_box(table, files, images), files.pixel_size_angstrom)
    if path.suffix == ".cs":
        return cs_poses(path, _cs_box(path, images), files.pixel_size_angstrom)
    if path.suffix == ".npz":
        arrays = load_npz(path)
        if "rotations" not in arrays:
            raise InputError(f"{path}: arrays {sorted(arrays)}, expected 'rotations' and 'shifts'")
        return arrays["rotations"], arrays.get("shifts")
    poses = load_arrays(path)
    if isinstance(poses, tuple) and 1 <= len(poses) <= 2:
        return poses[0], poses[1] if len(poses) == 2 else None
    return poses, None


def _load_ctf(path: Path, files: ParticleFiles, images: Inventory) -> Any:
    if path.suffix == ".star":
        table = StarTable(path)
        return star_ctf(table, _star_box(table, files, images), files.pixel_size_angstrom)
    if path.suffix == ".cs":
        return cs_ctf(path, _cs_box(path, images), files.pixel_size_angstrom)
    if path.suffix == ".npz":
        arrays = load_npz(path)
        if "ctf_params" not in arrays:
            raise InputError(f"{path}: arrays {sorted(arrays)}, expected 'ctf_params'")
        return arrays["ctf_params"]
    return load_arrays(path)


def _star_box(table: StarTable, files: ParticleFiles, images: Inventory) -> int:
    """Box of the images that a .star describes: they may be the ones before downsampling."""
    own = table.box_px()
    if own is not None:
        return plausible_box(own[0], table.path)
    if table.has("_rlnImageName"):
        name = str(table.texts("_rlnImageName")[0]).partition("@")[2]
        (stack,) = find_stacks([name], table.path, files.datadir)
        # A file of the same name elsewhere may be the downsampled stack.
        if stack and (stack.endswith(os.path.normpath(name)) or stack not in images.stacks):
            return read_header(stack).box_px
    return _assumed_box(table.path, table.pixel_size_angstrom(), images)


def _cs_box(path: Path, images: Inventory) -> int:
    table = read_cs(path)
    said = cs_numbers(path, table, "blob/psize_A") if "blob/psize_A" in (table.dtype.names or ()) else None
    return cs_box(path, table) or _assumed_box(path, said, images)


def _assumed_box(path: Path, said_angstrom: NDArray[np.floating] | None, images: Inventory) -> int:
    """Take the images' box for that of a table which does not say it, unless their pixel sizes contradict each other.

    Args:
        path: the table.
        said_angstrom: (N,) pixel size of each image that it describes; None where it does not say.
        images: what the particle file holds.

    Raises:
        InputError: they contradict each other: the images were downsampled, and shifts would be far too large.
    """
    if said_angstrom is not None and _contradicts(said_angstrom[0], images):
        extent_angstrom = images.box_px * (images.pixel_size_angstrom or 0)
        command = (
            "parse_pose_csparc` and `cryodrgn parse_ctf_csparc"
            if path.suffix == ".cs"
            else ("parse_pose_star` and `cryodrgn parse_ctf_star")
        )
        raise InputError(
            f"{path}: describes images of {said_angstrom[0]:.4g} A/px without saying their box, and "
            f"{images.stacks[0]} has {images.box_px} px at {images.pixel_size_angstrom:.4g} A/px: downsampled? Make "
            f"poses.pkl and ctf.pkl with `cryodrgn {command}` and the original box, "
            f"-D {extent_angstrom / said_angstrom[0]:.0f} as it seems"
        )
    logger.warning(
        "%s does not say its box: taken as %d px, that of the images; if they were downsampled, make "
        "poses.pkl and ctf.pkl with `cryodrgn parse_...` and its option -D",
        path, images.box_px,
    )  # fmt: skip
    return images.box_px


def _contradicts(pixel_size_angstrom: float, images: Inventory) -> bool:
    """Tell whether a pixel size is another one than the header's. 1 A/px is what programs write that do not know it."""
    said = images.pixel_size_angstrom
    return said not in (None, 1.0) and abs(pixel_size_angstrom / said - 1) > PIXEL_SIZE_TOLERANCE


def _check_rotations(rotations: np.ndarray, rows: NDArray[np.int64], path: Path) -> None:
    _refuse(~np.isfinite(rotations).all(axis=(1, 2)), rows, path, "NaN or infinite rotation", "numbers")
    matrices = rotations.astype(np.float64)
    skew = np.abs(matrices @ matrices.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    handed = np.abs(np.linalg.det(matrices) - 1)
    wrong = np.maximum(skew, handed) > ROTATION_TOLERANCE
    _refuse(wrong, rows, path, "matrix that is no rotation", "R R^T = 1 and determinant 1")


def _shifts_px(shifts: np.ndarray, box_px: int, paired: Rows, path: Path) -> np.ndarray:
    if shifts.ndim != 2 or shifts.shape[1] != 2:
        raise InputError(f"{path}: shifts of shape {shifts.shape}, expected (N, 2); make it with cryoDRGN")
    shifts, rows = paired.take(shifts, path, "shifts")
    _refuse(~np.isfinite(shifts).all(axis=1), rows, path, "NaN or infinite shift", "numbers")
    pixels = (np.abs(shifts) > 1).any(axis=1)
    _refuse(pixels, rows, path, "shift above 1, as if in pixels", "fractions of the box (pixels / box)")
    return (shifts * (box_px + 1)).astype(np.float32)


def _numbers(table: Any, path: Path, what: str) -> np.ndarray:
    if not isinstance(table, np.ndarray) or table.dtype.kind not in "fiu" or table.ndim == 0:
        found = f"{table.dtype} array" if isinstance(table, np.ndarray) else type(table).__name__
        raise InputError(f"{path}: {what}: found {found}, expected an array of numbers; make it with cryoDRGN")
    return table if table.dtype.kind == "f" else table.astype(np.float64)


def _refuse(wrong: np.ndarray, rows: NDArray[np.int64], path: Path, found: str, expected: str) -> None:
    """Raise an InputError that names the wrong rows, counted from 0 as in the user's file."""
    if wrong.any():
        raise InputError(
            f"{path}: {found} in {listed('row', rows[wrong])} ({wrong.sum()} of {len(wrong)} rows), expected "
            f"{expected}; correct these rows or leave them out with data.ind"
        )
