"""Volumes in a run's folder become pictures at one threshold and one scale."""

from pathlib import Path

import numpy as np
import pytest

from experiments.figures.volume_pictures import pictures_of
from experiments.volumes.files import write_mrc


def ball(radius_px: float, box_px: int = 24) -> np.ndarray:
    z, y, x = np.mgrid[:box_px, :box_px, :box_px] - box_px // 2
    return (1 / (1 + np.exp(np.sqrt(x**2 + y**2 + z**2) - radius_px))).astype(np.float32)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    for name, radius_px in (("original_1", 4), ("original_2", 6), ("altered_1", 5), ("altered_2", 8), ("altered_4", 3)):
        write_mrc(tmp_path / "volumes" / f"{name}.mrc", ball(radius_px), 3.0)
    return tmp_path


def test_pictures_come_in_the_particles_order_up_to_the_first_gap(run_folder: Path):
    originals, altered, none = pictures_of(run_folder, "original", "altered", "first", size_px=64)
    assert (len(originals), len(altered), len(none)) == (2, 2, 0)
    assert all(picture.shape == (64, 64, 4) and picture.dtype == np.uint8 for picture in originals + altered)


def test_pictures_have_one_scale(run_folder: Path):
    (small, large), (middle, largest) = pictures_of(run_folder, "original", "altered", size_px=64)
    radii = [np.sqrt((picture[..., 3] > 127).sum() / np.pi) for picture in (small, middle, large, largest)]
    np.testing.assert_allclose(np.array(radii) / radii[-1], np.array([4, 5, 6, 8]) / 8, atol=0.06)


def test_only_as_many_as_are_asked_for(run_folder: Path):
    assert [len(some) for some in pictures_of(run_folder, "original", "altered", most=1, size_px=32)] == [1, 1]
