"""Which particles are held out."""

import numpy as np
import pytest

from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.building import heldout_particles_of, particles_of
from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from lightning_modules.particles.split import Split
from tests.particle_sets import ctf, dump, images, particle_set, rotations, shifts, stack


@pytest.mark.parametrize("n", [2, 3, 10, 999])
@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.5, 0.999])
def test_the_two_sides_of_a_split_are_all_particles_once_and_neither_is_empty(n: int, fraction: float) -> None:
    train, heldout = (Split(fraction, 3, side).positions(n) for side in (False, True))
    assert np.array_equal(np.sort(np.concatenate([train, heldout])), np.arange(n))
    assert len(train) and len(heldout)
    assert abs(len(heldout) - fraction * n) <= 1


def test_a_split_is_a_function_of_the_seed_and_is_random() -> None:
    first, again, other = (Split(0.2, seed, True).positions(1000) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert len(np.intersect1d(first, other)) < 80  # 40 are expected, with a standard deviation of 5
    assert abs(first.mean() - 500) < 5 * 1000 / np.sqrt(12 * 200)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match=f"heldout_fraction={fraction}: expected a fraction"):
        Split(fraction, 0).positions(10)


def test_one_particle_cannot_be_split() -> None:
    with pytest.raises(InputError, match="1 particle was found, expected at least 2"):
        Split(0.5, 0).positions(1)


def test_particles_of_a_split_keep_their_images_poses_ctf_and_labels(tmp_path) -> None:
    labels = tmp_path / "labels.npz"
    np.savez(labels, state=np.arange(12))
    whole = particle_set(tmp_path, labels=str(labels))
    every = load_particles(whole)
    for side in (False, True):
        split = Split(0.3, 5, side)
        some = load_particles(ParticleFiles(**{**vars(whole), "split": split}), norm=every.norm)
        at = split.positions(12)
        assert np.array_equal(some.index, at) and np.array_equal(some.labels["state"], at)
        assert some.norm == every.norm
        for name in ("images", "rotations", "shifts_px", "ctf_params"):
            assert getattr(some, name).equal(getattr(every, name)[at])
        assert some.raw(np.arange(len(at))).equal(every.raw(at))


def test_a_split_is_of_what_index_and_number_leave_and_tables_may_be_of_either_length(tmp_path) -> None:
    index = tmp_path / "ind.txt"
    rows = np.array([11, 3, 5, 7, 0, 9, 2, 1])
    np.savetxt(index, rows, fmt="%d")
    split = Split(0.5, 1, True)
    taken = rows[:6][split.positions(6)]
    for of_file in (True, False):
        among = np.arange(12) if of_file else rows[:6]
        files = ParticleFiles(
            stack(tmp_path / "p.mrcs", images()),
            poses=dump(tmp_path / "poses.pkl", (rotations()[among], shifts()[among])),
            ctf=dump(tmp_path / "ctf.pkl", ctf()[among]),
            ind=str(index), n_particles=6, split=split,
        )  # fmt: skip
        some = load_particles(files)
        assert np.allclose(some.rotations, rotations()[taken], atol=1e-6)
        assert np.allclose(some.ctf_params[:, 1], ctf()[taken, 2])
        assert np.array_equal(some.raw(np.arange(3)), images()[taken])


def test_a_given_norm_is_kept_on_disk_too_and_apart_from_the_images_own(tmp_path) -> None:
    files = particle_set(tmp_path)
    own = load_particles(files, "disk", tmp_path / "cache")
    twice = (0.0, 2 * own.norm[1])
    given = load_particles(files, "disk", tmp_path / "cache", norm=twice)
    assert given.norm == twice
    assert np.allclose(given.images * 2, own.images)
    again = load_particles(files, "disk", tmp_path / "cache", norm=twice)
    assert again.norm == twice and again.images.equal(given.images)


def test_a_configuration_that_holds_out_gives_its_two_sides_under_one_norm(tmp_path) -> None:
    where = f"paths.cache={tmp_path}", "data.n_particles=20", "data.box_px=16", "data.shift_px=0.5"
    config = check(compose("+exp=heldout", *where))
    train = particles_of(config)
    heldout = heldout_particles_of(config, train)
    assert (len(train), len(heldout)) == (16, 4)
    assert not np.intersect1d(train.index, heldout.index).size
    assert heldout.norm == train.norm
    assert not np.array_equal(particles_of(check(compose("+exp=heldout", "seed=1", *where))).index, train.index)
    assert np.array_equal(particles_of(check(compose(*where))).index, np.arange(20))
