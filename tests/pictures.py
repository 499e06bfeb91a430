"""Reading figures back, and volumes' pictures that cost nothing."""

from pathlib import Path

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.image import imread


def pixels(path: Path) -> np.ndarray:
    """RGB (H, W, 3) in [0, 1] of a PNG that is not blank, and has a PDF beside it."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    image = imread(path)[..., :3]
    assert image.std() > 0.02
    return image


def size_px(width_in: float, height_in: float) -> tuple[int, int]:
    """Height and width of a figure at 150 dpi."""
    return round(150 * height_in), round(150 * width_in)


def where(image: np.ndarray, colour: str) -> np.ndarray:
    """(H, W) bool: which pixels have a colour."""
    return np.abs(image - to_rgb(colour)).max(axis=-1) < 0.03


def count(image: np.ndarray, colour: str) -> int:
    """How many pixels have a colour."""
    return int(where(image, colour).sum())


def disc(colour: str, size_px: int = 64) -> np.ndarray:
    """A volume's picture as surfaces.render gives it: (H, W, 4) uint8, here a disc of one colour on nothing."""
    y, x = np.mgrid[:size_px, :size_px] - size_px / 2
    picture = np.zeros((size_px, size_px, 4), dtype=np.uint8)
    picture[x**2 + y**2 < (0.3 * size_px) ** 2] = (*(round(255 * part) for part in to_rgb(colour)), 255)
    return picture
