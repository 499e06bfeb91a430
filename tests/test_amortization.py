"""A run that shows another run's encoder altered images."""

import numpy as np
import pytest

from experiments.metrics.altered_particles import table_of
from lightning_modules.errors import InputError
from tests.tiny import tiny


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module")
def run(house):
    return tiny(house, "+exp=rotate_90", "task.n_volumes=7")


def test_the_table_is_about_what_is_in_the_latents(run):
    with np.load(run.folder / "latents.npz") as latents, np.load(run.folder / "amortization.npz") as stored:
        expected = table_of(latents["mu_original"], latents["mu"], stored["true_state"], np.arange(24), 0)
        for name, values in expected.items():
            assert np.array_equal(stored[name], values)
        assert run.metrics["amortization/class_kept"] == pytest.approx(stored["class_kept"].mean())
        for name in ("volume_correlation", "volume_fsc_auc"):
            sampled = stored[name][np.isfinite(stored[name])]
            assert len(sampled) == 7
            assert run.metrics[f"amortization/{name}"] == pytest.approx(sampled.mean())
    assert len((run.folder / "amortization.csv").read_text().splitlines()) == 25


def test_volumes_of_an_image_that_is_not_altered_are_the_same(house):
    metrics = tiny(house, "+exp=shift_1px", "encoder_input.dx_px=0", "task.n_volumes=3").metrics
    assert metrics["amortization/class_kept"] == 1
    assert metrics["amortization/volume_correlation_q10"] == pytest.approx(1, abs=1e-4)
    assert metrics["amortization/volume_correlation_of_others"] < 1


def test_an_encoder_that_was_trained_on_a_part_is_tested_on_that_part(house):
    few = ("task.n_volumes=0",)
    source = tiny(house, "+exp=heldout", "task.search.steps=1", "task.n_samples=1", "task.n_train_optimized=2")
    run = tiny(house, "+exp=shift_1px", f"task.source={source.folder}", *few)
    with np.load(source.folder / "latents.npz") as trained, np.load(run.folder / "latents.npz") as tested:
        assert np.array_equal(tested["index"], trained["index"]) and len(tested["index"]) == 19
        assert np.allclose(tested["mu_original"], trained["mu"], atol=1e-5)
    assert run.metrics["amortization/volume_correlation"] is None


def test_a_table_cannot_be_tested(house):
    with pytest.raises(InputError, match="lookup table"):
        tiny(house, "+exp=shift_1px", "task.source=vlt_random")
