"""New particles get their latents under a finished run's decoder."""

import pickle

import numpy as np
import pytest

from experiments.configuration.compose import compose
from experiments.configuration.identity import identity
from experiments.configuration.validation import check
from experiments.runs.execution import execute
from experiments.runs.stored_results import read_latents
from lightning_modules.errors import InputError
from tests.tiny import SETTINGS, tiny

FEW = ("task.search.steps=3", "task.n_samples=2")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module", params=["", "+exp=vlt_zero"], ids=["encoder", "table"])
def source(request, house):
    return tiny(house, *filter(None, [request.param]))


@pytest.fixture(scope="module")
def run(house, source):
    return tiny(house, "+exp=infer", f"task.source={source.folder}", "data.seed=1", "data.n_particles=30", *FEW)


def test_every_new_particle_gets_its_q_and_its_elbo(run):
    with np.load(run.folder / "latents.npz") as stored:
        assert stored["mu"].shape == stored["logvar"].shape == (30, 3)
        assert np.array_equal(stored["index"], np.arange(30))
        for name in ("loss", "reconstruction", "kl"):
            assert stored[name].shape == (30,)
            assert run.metrics[f"infer/{name}"] == pytest.approx(stored[name].mean())
        assert len(np.unique(stored["mu"], axis=0)) == 30
    assert run.metrics["latents/knn_class_accuracy"] is not None
    assert (run.folder / "figures" / "latent_space.png").exists()


def test_new_images_are_normalized_as_the_training_images_were(house, run, source):
    from experiments.runs.building import particles_of
    from experiments.tasks.infer import particles_for
    from experiments.volumes.run_volumes import decoder_of

    new, training = particles_for(run.config, decoder_of(source), "x"), particles_of(source.config)
    assert new.norm == pytest.approx(training.norm)
    own = particles_of(check(compose(*SETTINGS, "data.seed=1", "data.n_particles=30", f"paths.cache={house}/cache")))
    assert own.norm[1] != pytest.approx(training.norm[1], rel=1e-6)
    assert np.allclose(new.images * new.norm[1], own.images * own.norm[1], rtol=1e-4, atol=1e-4)


def test_the_folder_is_one_that_cryodrgn_analyzes(run, source):
    from experiments.volumes.run_volumes import decoder_of

    with (run.folder / "cryodrgn" / "z.pkl").open("rb") as file:
        mu = pickle.load(file)
    with np.load(run.folder / "latents.npz") as stored:
        assert np.array_equal(mu, stored["mu"])
    z = mu[:1]
    ours, theirs = (next(decoder_of(each).decode(z)) for each in (run, source))
    assert np.array_equal(ours, theirs)
    names = {path.name for path in (run.folder / "cryodrgn").iterdir()}
    assert {"config.yaml", "weights.pkl", "z.pkl"} <= names


def test_another_box_is_refused_in_one_line(house, source):
    with pytest.raises(InputError, match=r"a box of 18 px was found, expected 16 px, that of task.source="):
        tiny(house, "+exp=infer", f"task.source={source.folder}", "data.box_px=18", "data.shift_px=0", *FEW)


def test_another_pixel_size_is_refused_in_one_line(house, source, tmp_path):
    from tests.particle_sets import ctf, dump, images, rotations, shifts, stack

    data = (
        "data=cryodrgn",
        f"data.particles={stack(tmp_path / 'p.mrcs', images(6, 16))}",
        f"data.poses={dump(tmp_path / 'poses.pkl', (rotations(6), shifts(6)))}",
        f"data.ctf={dump(tmp_path / 'ctf.pkl', ctf(6, 16, 3.0))}",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={tmp_path}/cache",
        "trainer.accelerator=cpu",
    )
    with pytest.raises(InputError, match=r"3 A/px was found, expected 26.2 A/px, that of task.source="):
        execute(compose("+exp=infer", f"task.source={source.folder}", *data, *FEW))
    assert not list((tmp_path / "runs").rglob("latents.npz"))


def test_pictures_are_no_particles(house, source):
    digits = ("data=digits", "data.n_particles=40", f"paths.runs={house}/runs")
    with pytest.raises(InputError, match="pictures were found, expected particles"):
        execute(compose("+exp=infer", f"task.source={source.folder}", *digits, *FEW))


def test_identity_holds_what_decides_the_numbers_and_nothing_else(source):
    def identity_of(*overrides):
        return identity(check(compose("+exp=infer", f"task.source={source.folder}", *overrides)))

    same = ["lr=1", "batch_size=3", "encoder=large", "decoder.width=7", "zdim=5", "trainer.max_epochs=9", "beta=3"]
    other = ["seed=1", "data.seed=1", "task.search.steps=7", "task.search.lr=0.5", "task.n_samples=3"]
    assert {identity_of(override) for override in same} == {identity_of()}
    assert len({identity_of(), *(identity_of(override) for override in other)}) == len(other) + 1


def test_the_runs_own_encoder_can_give_q(house):
    source = tiny(house, "+exp=pose_aware")
    new = ("+exp=infer", f"task.source={source.folder}", "data.seed=1", "data.n_particles=30", "task.n_samples=2")
    run = tiny(house, *new, "task/search=encoder")
    from experiments.runs.building import trained_model
    from experiments.tasks.infer import particles_for
    from experiments.volumes.run_volumes import decoder_of

    particles = particles_for(run.config, decoder_of(source), "x")
    expected = trained_model(source, particles).encode().mu
    assert np.array_equal(read_latents(run.folder).mu, expected)
    assert not np.array_equal(tiny(house, *new, *FEW).metrics["infer/loss"], run.metrics["infer/loss"])


def test_a_table_has_no_encoder_to_give_q(house):
    table = tiny(house, "+exp=vlt_zero")
    with pytest.raises(InputError, match=r"a run with a lookup table was found, .* leave out task/search=encoder"):
        tiny(house, "+exp=infer", f"task.source={table.folder}", "task/search=encoder")
