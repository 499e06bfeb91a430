"""Images, reconstructions and residuals in one picture."""

from pathlib import Path

import numpy as np
import pytest

from experiments.figures.images import reconstructions
from tests.pictures import pixels


@pytest.fixture
def made() -> np.ndarray:
    y, x = np.mgrid[:32, :32]
    return np.stack([np.exp(-((x - 10 - 3 * i) ** 2 + (y - 16) ** 2) / 18) for i in range(4)])


def bands(image: np.ndarray) -> list[np.ndarray]:
    """The inner half of each of the three rows of pictures, without what stands around them."""
    height, width = image.shape[:2]
    rows = np.array_split(image[int(0.1 * height) :, int(0.06 * width) : int(0.85 * width)], 3)
    return [row[len(row) // 4 : -len(row) // 4] for row in rows]


def test_a_perfect_reconstruction_leaves_an_even_residual(made: np.ndarray, tmp_path: Path):
    image, reconstruction, residual = bands(pixels(reconstructions(made, made, tmp_path / "a.png", "baseline")))
    assert image.max() == reconstruction.max() == 1
    grey = np.abs(residual - 0.5).max(axis=-1) < 0.02
    assert grey.mean() > 0.85


def test_a_reconstruction_of_nothing_leaves_the_image(made: np.ndarray, tmp_path: Path):
    image, _, residual = bands(pixels(reconstructions(made, 0 * made, tmp_path / "a.png")))
    bright = [(row > 0.9).all(axis=-1).sum() for row in (image, residual)]
    assert bright[1] == pytest.approx(bright[0], rel=0.05)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_any_number_of_particles(n: int, tmp_path: Path):
    noise = np.random.default_rng(0).standard_normal((n, 16, 16))
    pixels(reconstructions(noise, 0.1 * noise, tmp_path / "a.png", "a run with a long name, seed 0"))


def test_unlike_shapes_are_named(made: np.ndarray, tmp_path: Path):
    with pytest.raises(ValueError, match=r"\(4, 32, 32\) and \(3, 32, 32\)"):
        reconstructions(made, made[:3], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
