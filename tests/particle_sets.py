"""Small particle sets on disk, as a user would have them, for the tests that read particles."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from cryodrgn.mrcfile import write_mrc
from scipy.spatial.transform import Rotation

from lightning_modules.particles.particle_files import ParticleFiles

N, D = 12, 16


def images(n: int = N, box_px: int = D, seed: int = 0) -> np.ndarray:
    """(n, D, D) float32 images of noise around a mean of 3."""
    return (3 + np.random.default_rng(seed).normal(size=(n, box_px, box_px))).astype(np.float32)


def rotations(n: int = N) -> np.ndarray:
    """(n, 3, 3) random rotations."""
    return Rotation.from_quat(np.random.default_rng(1).normal(size=(n, 4))).as_matrix()


def shifts(n: int = N) -> np.ndarray:
    """(n, 2) shifts as fractions of the box."""
    return np.random.default_rng(2).uniform(-0.1, 0.1, size=(n, 2))


def ctf(n: int = N, box_px: int = D, pixel_size_angstrom: float = 3.0) -> np.ndarray:
    """(n, 9) CTF of an ordinary microscope, in cryoDRGN's columns."""
    table = np.tile([box_px, pixel_size_angstrom, 15000, 14500, 20, 300, 2.7, 0.07, 0], (n, 1))
    table[:, 2:4] += np.random.default_rng(3).uniform(-3000, 3000, size=(n, 1))
    return table.astype(np.float32)


def dump(path: Path, what: Any) -> str:
    """Pickle something, and return the path."""
    path.write_bytes(pickle.dumps(what))
    return str(path)


def stack(path: Path, pixels: np.ndarray | None = None) -> str:
    """Write a stack, and return the path."""
    write_mrc(str(path), images() if pixels is None else pixels, is_vol=False)
    return str(path)


def particle_set(folder: Path, **changes: Any) -> ParticleFiles:
    """Write a sound particle set, and return its files with some of them changed."""
    files: dict[str, Any] = {
        "particles": lambda: stack(folder / "particles.mrcs"),
        "poses": lambda: dump(folder / "poses.pkl", (rotations(), shifts())),
        "ctf": lambda: dump(folder / "ctf.pkl", ctf()),
    }
    sound = {key: write() for key, write in files.items() if key not in changes}
    return ParticleFiles(**(sound | changes))
