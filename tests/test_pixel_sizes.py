"""Tables and stacks of different pixel sizes: scaled where both say theirs, refused where they contradict."""

import logging
from pathlib import Path

import numpy as np
import pytest
from cryodrgn.mrcfile import write_mrc

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from tests import particle_sets
from tests.particle_sets import D, N, dump, images, particle_set, rotations, shifts
from tests.test_particles import cs, star, star_30


def downsampled(path: Path, pixel_size_angstrom: float) -> str:
    write_mrc(str(path), images(), is_vol=False, Apix=pixel_size_angstrom)
    return str(path)


def table_of_original_images(path: Path) -> str:
    """RELION 3.0's, which says a pixel size and no box."""
    names = [f"{i + 1}@Extract/orig.mrcs" for i in range(N)]
    magnified = {"_rlnMagnification": 38168.0, "_rlnDetectorPixelSize": 5.0}
    return star(path, {**star_30(), **magnified, "_rlnImageName": names})


def test_the_published_table_of_the_original_box_is_refused(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "failing" / "star"
    table, pixels = str(folder / "orig30.star"), str(folder / "particles.16.mrcs")
    message = r"orig30\.star: describes images of 1\.31 A/px .*16\.mrcs has 16 px at 26\.2 A/px: .*-D 320 as it seems"
    with pytest.raises(InputError, match=message):
        load_particles(ParticleFiles(pixels, poses=table))
    poses = dump(tmp_path / "poses.pkl", (rotations(24), shifts(24)))
    with pytest.raises(InputError, match=message):
        load_particles(ParticleFiles(pixels, poses=poses, ctf=table))


def test_a_cs_without_its_box_is_refused_likewise(tmp_path: Path) -> None:
    pixels = downsampled(tmp_path / "x.mrcs", 6.0)
    table = cs(tmp_path / "p.cs", **{"blob/shape": None})  # 3 A/px
    message = r"p\.cs: describes images of 3 A/px .*x\.mrcs has 16 px at 6 A/px: .*parse_pose_csparc.*-D 32 as"
    with pytest.raises(InputError, match=message):
        load_particles(particle_set(tmp_path, particles=pixels, poses=table))


@pytest.mark.parametrize("header_angstrom", [1.31, 1.32, 1.0, 0.0])
def test_a_header_that_agrees_or_does_not_know_is_no_contradiction(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header_angstrom: float
) -> None:
    pixels = downsampled(tmp_path / "x.mrcs", header_angstrom)
    table = table_of_original_images(tmp_path / "x.star")
    with caplog.at_level(logging.WARNING, logger="lightning_modules"):
        particles = load_particles(ParticleFiles(pixels, poses=table, ctf=table))
    assert "x.star does not say its box: taken as 16 px" in caplog.text and "cropped" not in caplog.text
    assert particles.pixel_size_angstrom == pytest.approx(1.31, abs=1e-3)
    np.testing.assert_allclose(particles.shifts_px[:, 0], np.linspace(-2, 2, N) / D * (D + 1), rtol=1e-6)


@pytest.mark.parametrize(("header_angstrom", "warned"), [(26.2, False), (1.31, True)])
def test_a_ctf_of_another_extent_than_the_headers_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, header_angstrom: float, warned: bool
) -> None:
    pixels = downsampled(tmp_path / "x.mrcs", header_angstrom)
    ctf = dump(tmp_path / "c.pkl", particle_sets.ctf(box_px=320, pixel_size_angstrom=1.31))
    with caplog.at_level(logging.WARNING, logger="lightning_modules"):
        load_particles(particle_set(tmp_path, particles=pixels, ctf=ctf))
    assert ("26.2 A/px for images of 16 px, and the header of" in caplog.text) == warned
