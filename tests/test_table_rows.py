"""Each particle has the pose and the CTF of its own row, whatever the order of the table."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import Particles, load_particles
from tests.particle_sets import D, N, dump, images, stack
from tests.test_particles import cs, star, star_30

ORDER = np.random.default_rng(11).permutation(N)
UIDS = np.random.default_rng(12).integers(1 << 63, 1 << 64, size=N, dtype=np.uint64)


def shuffled_star(path: Path, order: np.ndarray = ORDER, **changes: Any) -> str:
    columns = {**star_30(), "_rlnImagePixelSize": 3.0, **changes}
    return star(path, {key: np.broadcast_to(values, N)[order] for key, values in columns.items()})


def sorted_by(path: str, order: np.ndarray, **changes: Any) -> str:
    """A .cs with its rows in another order, and then with other columns."""
    table = np.load(path)[order]
    for name, values in changes.items():
        table[name.replace("__", "/")] = values
    with Path(path).open("wb") as file:
        np.save(file, table)
    return path


def assert_same_particles(actual: Particles, expected: Particles, rows: np.ndarray | None = None) -> None:
    rows = np.arange(len(expected)) if rows is None else rows
    assert actual.ctf_params is not None and expected.ctf_params is not None
    assert torch.equal(actual.rotations, expected.rotations[rows])
    assert torch.equal(actual.shifts_px, expected.shifts_px[rows])
    assert torch.equal(actual.ctf_params, expected.ctf_params[rows])
    np.testing.assert_array_equal(actual.raw(np.arange(len(actual))), expected.raw(rows))


@pytest.fixture
def in_order(tmp_path: Path) -> Particles:
    stack(tmp_path / "particles.mrcs")
    path = shuffled_star(tmp_path / "in_order.star", np.arange(N))
    return load_particles(ParticleFiles(path, ctf=path))


def test_a_star_that_numbers_the_images_of_the_stack_otherwise(tmp_path: Path, in_order: Particles) -> None:
    path = shuffled_star(tmp_path / "x.star")
    found = load_particles(ParticleFiles(str(tmp_path / "particles.mrcs"), poses=path, ctf=path))
    assert_same_particles(found, in_order)
    assert_same_particles(load_particles(ParticleFiles(path, ctf=path)), in_order, ORDER)


def test_the_published_input_in_another_order(shared_data: Path) -> None:
    folder = shared_data / "failing" / "order"
    path = str(folder / "shuffled.star")
    by_stack = load_particles(ParticleFiles(str(folder / "particles.mrcs"), poses=path, ctf=path))
    defocus_of_image = {
        int(words[0].partition("@")[0]) - 1: float(words[6])
        for line in Path(path).read_text(encoding="utf-8").splitlines()
        if "@" in (words := line.split() or [""])[0]
    }
    assert by_stack.ctf_params is not None and len(by_stack) == len(defocus_of_image) == 24
    expected = [defocus_of_image[image] for image in range(24)]
    np.testing.assert_allclose(by_stack.ctf_params[:, 1], expected, rtol=1e-6)


def test_two_stars_in_different_orders(tmp_path: Path, in_order: Particles) -> None:
    path = shuffled_star(tmp_path / "x.star")
    files = ParticleFiles(str(tmp_path / "in_order.star"), poses=path, ctf=path)
    assert_same_particles(load_particles(files), in_order)


def test_a_cs_whose_indices_are_shuffled(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    path = cs(tmp_path / "x.cs")  # it has the last image first
    own = load_particles(ParticleFiles(path, ctf=path))
    by_stack = load_particles(ParticleFiles(str(tmp_path / "particles.mrcs"), poses=path, ctf=path))
    assert_same_particles(by_stack, own, np.arange(N)[::-1].copy())


@pytest.mark.parametrize("stacks_named", [">J1/particles.mrcs", ">J9/restacked.mrcs"])
def test_two_cs_with_the_same_uids_in_different_orders(tmp_path: Path, stacks_named: str) -> None:
    stack(tmp_path / "particles.mrcs")
    own = cs(tmp_path / "own.cs", uid=UIDS)
    expected = load_particles(ParticleFiles(own, ctf=own))
    other = cs(tmp_path / "other.cs", uid=UIDS, **{"blob/path": np.full(N, stacks_named.encode())})
    sorted_by(other, ORDER, blob__idx=np.arange(N))
    assert_same_particles(load_particles(ParticleFiles(own, poses=other, ctf=other)), expected)


def test_uids_that_tell_nothing_apart_are_not_used(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    own = cs(tmp_path / "own.cs", uid=np.zeros(N, np.uint64))
    other = sorted_by(cs(tmp_path / "other.cs", uid=np.zeros(N, np.uint64)), ORDER)
    expected = load_particles(ParticleFiles(own, ctf=own))
    assert_same_particles(load_particles(ParticleFiles(own, poses=other, ctf=other)), expected)


def test_images_of_several_stacks(tmp_path: Path, in_order: Particles) -> None:
    stack(tmp_path / "a.mrcs", images()[:5])
    stack(tmp_path / "b.mrcs", images()[5:])
    names = [f"{i + 1:06d}@a.mrcs" for i in range(5)] + [f"{i + 1:06d}@b.mrcs" for i in range(N - 5)]
    path = shuffled_star(tmp_path / "x.star", _rlnImageName=np.array(names))
    (tmp_path / "list.txt").write_text("a.mrcs\nb.mrcs\n", encoding="utf-8")
    assert_same_particles(load_particles(ParticleFiles(str(tmp_path / "list.txt"), poses=path, ctf=path)), in_order)


def test_a_table_of_the_selected_particles_alone(tmp_path: Path, in_order: Particles) -> None:
    index = np.array([7, 2, 9])
    path = shuffled_star(tmp_path / "x.star", np.array([2, 7, 9, 0]))
    files = ParticleFiles(str(tmp_path / "particles.mrcs"), poses=path, ctf=path, ind=dump(tmp_path / "i.pkl", index))
    assert_same_particles(load_particles(files), in_order, index)


def test_other_stacks_are_paired_row_by_row_with_a_warning(
    tmp_path: Path, in_order: Particles, caplog: pytest.LogCaptureFixture
) -> None:
    stack(tmp_path / "downsampled.mrcs")
    path = shuffled_star(tmp_path / "x.star", np.arange(N), _rlnImageName=[f"{N - i}@Extract/o.mrcs" for i in range(N)])
    with caplog.at_level(logging.WARNING, logger="lightning_modules"):
        found = load_particles(ParticleFiles(str(tmp_path / "downsampled.mrcs"), poses=path, ctf=path))
    assert_same_particles(found, in_order)
    assert "x.star: names none of the stacks of" in caplog.text and "row i is taken for particle i" in caplog.text


def test_a_symmetry_expanded_star_stays_in_its_order(tmp_path: Path, in_order: Particles) -> None:
    twice = np.repeat(np.arange(N // 2), 2)
    own = shuffled_star(tmp_path / "own.star", twice)
    other = shuffled_star(tmp_path / "other.star", twice)
    assert_same_particles(load_particles(ParticleFiles(own, poses=other, ctf=other)), in_order, twice)


def test_what_cannot_be_matched_is_refused(tmp_path: Path, in_order: Particles) -> None:
    pixels = str(tmp_path / "particles.mrcs")
    fewer = shuffled_star(tmp_path / "fewer.star", np.delete(ORDER, ORDER == 3))
    with pytest.raises(InputError, match=r"fewer\.star: no row for image 3 \(counted from 0\).*\(1 of 12 particles\)"):
        load_particles(ParticleFiles(pixels, poses=fewer))
    double = shuffled_star(tmp_path / "double.star", np.append(ORDER, ORDER[0]))
    with pytest.raises(InputError, match=rf"double\.star: several rows for image {ORDER[0]} "):
        load_particles(ParticleFiles(pixels, poses=double))
    own = cs(tmp_path / "own.cs", uid=UIDS)
    changes = {"uid": UIDS + np.uint64(1), "blob/path": np.full(N, b"J9/others.mrcs")}
    with pytest.raises(InputError, match=r"others\.cs: no particle's uid is in .*own\.cs"):
        load_particles(ParticleFiles(own, poses=cs(tmp_path / "others.cs", **changes)))


def test_a_table_of_the_original_box_in_another_order_is_refused(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    path = shuffled_star(tmp_path / "x.star", _rlnImageSize=2 * D)
    with pytest.raises(InputError, match=r"x\.star: describes images of 32 px in another order .* images of 16 px"):
        load_particles(ParticleFiles(str(tmp_path / "particles.mrcs"), poses=path))
