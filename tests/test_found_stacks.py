"""The stacks of a table: where the user says, else beside the table; never another file of the working folder."""

from pathlib import Path

import numpy as np
import pytest

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from tests.particle_sets import N, dump, images, particle_set, stack
from tests.test_particles import cs, star, star_30
from tests.test_star_blocks import OPTICS


def other(folder: Path, name: str, seed: int) -> np.ndarray:
    """Write other images of that name into a folder, and return them."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    stack(folder / name, images(seed=seed))
    return images(seed=seed)


def table_of(folder: Path, name: str) -> str:
    folder.mkdir(exist_ok=True)
    return star(folder / "x.star", {**star_30(), "_rlnImageName": [f"{i + 1}@{name}" for i in range(N)]})


def read(path: str, datadir: Path | None = None) -> np.ndarray:
    files = ParticleFiles(path, datadir=None if datadir is None else str(datadir))
    return load_particles(files).raw(np.arange(N)).numpy()


@pytest.mark.parametrize("inside", ["J1/particles.mrcs", "particles.mrcs"])
def test_the_users_folder_comes_before_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    table = table_of(tmp_path / "table", "J1/particles.mrcs")
    other(tmp_path / "working", "J1/particles.mrcs", 1)
    other(tmp_path / "table", "J1/particles.mrcs", 2)
    expected = other(tmp_path / "data", inside, 3)
    monkeypatch.chdir(tmp_path / "working")
    np.testing.assert_array_equal(read(table, tmp_path / "data"), expected)


def test_the_users_folder_comes_before_an_absolute_path_of_the_table(tmp_path: Path) -> None:
    original = tmp_path / "original" / "particles.mrcs"
    table = table_of(tmp_path / "table", str(original))
    expected_original = other(tmp_path, "original/particles.mrcs", 1)
    np.testing.assert_array_equal(read(table), expected_original)
    expected = other(tmp_path, "data/particles.mrcs", 2)
    np.testing.assert_array_equal(read(table, tmp_path / "data"), expected)
    (tmp_path / "empty").mkdir()
    np.testing.assert_array_equal(read(table, tmp_path / "empty"), expected_original)


def test_without_it_the_tables_folder_comes_first_and_the_working_folder_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(tmp_path / "table", "J1/particles.mrcs")
    in_working_folder = other(tmp_path / "working", "J1/particles.mrcs", 1)
    monkeypatch.chdir(tmp_path / "working")
    np.testing.assert_array_equal(read(table), in_working_folder)
    expected = other(tmp_path / "table", "J1/particles.mrcs", 2)
    np.testing.assert_array_equal(read(table), expected)


def test_a_stack_that_is_not_in_the_users_folder_is_not_taken_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(tmp_path / "table", "J1/particles.mrcs")
    other(tmp_path / "working", "J1/particles.mrcs", 1)
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "working")
    with pytest.raises(InputError, match=r"x\.star: its stack J1/particles\.mrcs is not in .*/data; set data\.datadir"):
        read(table, tmp_path / "data")


def test_two_stacks_of_one_name_are_not_one_file(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    names = [f"{i + 1}@J{1 + i % 2}/particles.mrcs" for i in range(N)]
    table = star(tmp_path / "x.star", {**star_30(), "_rlnImageName": names})
    with pytest.raises(InputError, match=r"its stacks J1/particles\.mrcs and J2/particles\.mrcs would both be "):
        read(table)


@pytest.mark.parametrize(
    ("flag", "applied"),
    [("CtfPremultiplied", "multiplied by their CTF"), ("PhaseFlipped", "phase-flipped")],
)
def test_images_whose_ctf_was_applied_are_refused(tmp_path: Path, flag: str, applied: str) -> None:
    flag = f"_rlnCtfDataAre{flag}"
    columns = {key: values for key, values in star_30().items() if key not in OPTICS}
    optics = {**{key: values * 2 for key, values in OPTICS.items()}, "_rlnOpticsGroup": [1, 2]}
    columns["_rlnOpticsGroup"] = [1, 2] * (N // 2)
    table = star(tmp_path / "x.star", columns, {**optics, flag: [0, 1]})
    pixels = stack(tmp_path / "particles.mrcs")
    message = rf"x\.star: {flag} says that 6 of the 12 images were {applied}"
    for files in (
        ParticleFiles(table, ctf=table),
        ParticleFiles(pixels, poses=table, ctf=particle_set(tmp_path).ctf),
        particle_set(tmp_path, particles=table),
    ):
        with pytest.raises(InputError, match=message):
            load_particles(files)
    load_particles(ParticleFiles(table))  # no CTF: nothing is applied
    load_particles(ParticleFiles(table, ctf=table, ind=dump(tmp_path / "i.pkl", np.arange(0, N, 2))))
    plain = star(tmp_path / "plain.star", columns, {**optics, flag: [0, 0]})
    load_particles(ParticleFiles(plain, ctf=plain))


def test_images_of_opposite_contrasts_are_refused(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    signs = np.where(np.arange(N) < 5, -1, 1).astype(np.float32)
    table = cs(tmp_path / "x.cs", **{"blob/sign": signs})
    message = r"x\.cs: blob/sign is negative for 5 and positive for 7 of the images"
    for files in (ParticleFiles(table), particle_set(tmp_path, ctf=table)):
        with pytest.raises(InputError, match=message):
            load_particles(files)
    load_particles(ParticleFiles(table, ind=dump(tmp_path / "i.pkl", np.arange(5))))
    load_particles(ParticleFiles(cs(tmp_path / "y.cs", **{"blob/sign": -np.ones(N, np.float32)})))
