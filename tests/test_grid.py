"""Every cryo-EM experiment runs, and does what its figure in the paper needs."""

import math

import numpy as np
import pytest

from experiments.configuration.compose import CONF_DIR
from tests.tiny import tiny

EXPERIMENTS = sorted({path.stem for path in (CONF_DIR / "exp").glob("*.yaml")} - {"audit"})  # test_audit.py has that
CRYO_EM = {
    "baseline", "vlt_random", "vlt_zero", "vlt_zero_frozen", "vlt_random_frozen", "vlt_pretrained_frozen",
    "evil_twin_permuted", "evil_twin_permuted_large", "evil_twin_noise", "shift_1px", "rotate_90",
    "baseline_small", "evil_twin_permuted_small",
    "vlt_pretrained", "vlt_permuted", "vlt_random_clusters", "baseline_large", "evil_twin_noise_standard",
}  # fmt: skip
BEYOND_THE_PAPER = {
    "pose_aware", "shift_1px_consistent", "rotate_90_consistent", "heldout", "heldout_vlt", "infer",
    "augmented_encoder", "augmented_shift_1px", "augmented_rotate_90", "augmented_heldout",
}  # fmt: skip


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One folder of runs for the whole grid, so that sources are found."""
    return tmp_path_factory.mktemp("house")


def test_the_grid_is_complete():
    assert {exp for exp in EXPERIMENTS if not exp.startswith("mnist_")} == CRYO_EM | BEYOND_THE_PAPER


@pytest.mark.parametrize("exp", sorted(CRYO_EM | BEYOND_THE_PAPER))
def test_every_experiment_runs(house, exp):
    metrics = tiny(house, f"+exp={exp}").metrics
    assert metrics
    assert all(value is None or math.isfinite(value) for value in metrics.values())


@pytest.mark.parametrize("exp", ["vlt_zero_frozen", "vlt_random_frozen", "vlt_pretrained_frozen"])
def test_a_frozen_table_is_bit_equal_after_training(house, exp):
    from experiments.runs.building import model_of, particles_of, trained_model
    from experiments.runs.stored_results import read_latents

    run = tiny(house, f"+exp={exp}")
    particles = particles_of(run.config)
    source = run.source()
    start = model_of(run.config, particles, source and read_latents(source.folder)).latents.table.weight
    assert start.equal(trained_model(run, particles).latents.table.weight)


def test_the_z_written_is_the_z_of_what_was_trained(house):
    """A table's rows; for a twin run, the encoding of the twin and not of the image itself."""
    from experiments.runs.building import particles_of, trained_model
    from lightning_modules.encoder_inputs.encoder_input import IdentityInput

    table = tiny(house, "+exp=vlt_random")
    model = trained_model(table, particles_of(table.config))
    with np.load(table.folder / "latents.npz") as stored:
        rows = model.latents.table.weight.detach().numpy()
        assert np.array_equal(np.hstack([stored["mu"], stored["logvar"]]), rows)

    twin = tiny(house, "+exp=evil_twin_permuted")
    model = trained_model(twin, particles_of(twin.config))
    with np.load(twin.folder / "latents.npz") as stored:
        assert np.allclose(model.encode().mu, stored["mu"], atol=1e-6)
        model.see(IdentityInput())
        assert not np.allclose(model.encode().mu, stored["mu"], atol=1e-3)


def test_an_unaltered_image_stays_where_it_was(house):
    metrics = tiny(house, "+exp=shift_1px", "encoder_input.dx_px=0").metrics
    assert metrics["amortization/displacement_ratio"] < 1e-5
    assert metrics["amortization/neighbour_rank"] == 0


@pytest.mark.parametrize("altered", ["shift_1px", "rotate_90"])
def test_what_an_altered_image_is_said_to_be_decides_where_it_goes(house, altered):
    paper, consistent = (tiny(house, f"+exp={altered}{kind}") for kind in ("", "_consistent"))
    assert paper.source().folder == consistent.source().folder
    assert not np.allclose(mu_of(paper), mu_of(consistent), atol=1e-3)


def test_a_filled_edge_is_another_run_with_other_numbers(house):
    """By 4 px: the window takes away what a shift by 1 px brings in on the other side."""
    wrapped, filled = (tiny(house, "+exp=shift_1px", "encoder_input.dx_px=4", *edge) for edge in ((), (FILL,)))
    assert wrapped.folder != filled.folder
    assert not np.array_equal(mu_of(wrapped), mu_of(filled))


FILL = "encoder_input/edge=fill"


def mu_of(run):
    with np.load(run.folder / "latents.npz") as stored:
        return stored["mu"]
