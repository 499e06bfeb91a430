"""Every experiment of the paper's appendix B runs on the suite's machinery, and makes its figures and numbers."""

import math

import numpy as np
import pytest
from omegaconf import DictConfig

from experiments.configuration.compose import CONF_DIR, compose
from experiments.configuration.identity import identity, source_of
from experiments.configuration.validation import check
from experiments.runs.building import particles_of, trained_model
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.runs.stored_results import read_latents

EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "exp").glob("mnist_*.yaml"))
SETTINGS = (
    "data.n_particles=60",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "encoder.width=16",
    "decoder.width=16",
    "batch_size=16",
)
QUICK_SEARCH = ("task.search.steps=3", "task.search.n_starts=2", "task.n_train_optimized=5")
TABLE, MLP = "LookupTable", "MlpEncoder"
GRID = {
    "mnist_vae": (MLP, "IdentityInput", "Train", None),
    "mnist_vlt": (TABLE, "IdentityInput", "Train", None),
    "mnist_vlt_frozen": (TABLE, "IdentityInput", "Train", "mnist_vae"),
    "mnist_evil_twin_permuted": (MLP, "PermutedTwin", "Train", None),
    "mnist_evil_twin_noise": (MLP, "NoiseTwin", "Train", None),
    "mnist_heldout": (MLP, "IdentityInput", "HeldOut", None),
    "mnist_shift_1": (MLP, "ShiftedInput", "AmortizationTest", "mnist_vae"),
    "mnist_shift_5": (MLP, "ShiftedInput", "AmortizationTest", "mnist_vae"),
}


def digit_run(folder, *overrides: str) -> Run:
    return execute(compose(*SETTINGS, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache", *overrides))


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """One folder of runs for the whole grid, so that sources are found."""
    return tmp_path_factory.mktemp("house")


def target(node: DictConfig) -> str:
    return str(node._target_).rpartition(".")[2]


def test_the_grid_is_complete() -> None:
    assert set(EXPERIMENTS) >= set(GRID)


@pytest.mark.parametrize("data", ["digits", "mnist"])
@pytest.mark.parametrize("experiment", GRID)
def test_experiment_has_the_papers_settings_on_either_data(experiment: str, data: str) -> None:
    config = check(compose(f"+exp={experiment}", *([] if data == "digits" else [f"data={data}"])))
    latents, encoder_input, task, source = GRID[experiment]
    assert (config.name, config.data.name) == (experiment, data)
    assert (target(config.latents), target(config.encoder_input), target(config.task)) == (latents, encoder_input, task)
    assert (config.batch_size, config.lr, config.table_lr, config.beta) == (128, 0.01, 0.01, 1)
    assert (config.zdim, config.trainer.max_epochs, config.weight_decay) == (2, 100, 0)
    assert (config.decoder.layers, config.decoder.width, config.decoder.activation) == (2, 256, "relu")
    if latents == MLP:
        assert (config.latents.layers, config.latents.width, config.latents.activation) == (3, 256, "relu")
    needed = source_of(config)
    assert (needed is None) == (source is None)
    if isinstance(needed, DictConfig):
        same = [] if data == "digits" else [f"data={data}"]
        assert identity(needed) == identity(check(compose(f"+exp={source}", *same)))


def test_the_table_starts_as_in_the_paper_and_is_trained_unless_frozen() -> None:
    config = check(compose("+exp=mnist_vlt"))
    assert (config.latents.init.mu, config.latents.init.logvar, config.latents.frozen) == (0, -8, False)
    assert check(compose("+exp=mnist_vlt_frozen")).latents.frozen


@pytest.mark.parametrize(("experiment", "dx_px"), [("mnist_shift_1", 1), ("mnist_shift_5", 5)])
def test_shifts_are_rolls_to_the_right(experiment: str, dx_px: int) -> None:
    seen = check(compose(f"+exp={experiment}")).encoder_input
    assert (seen.dx_px, seen.dy_px, target(seen.edge)) == (dx_px, 0, "Wrap")


def test_data_chosen_on_the_command_line_win_over_the_experiments() -> None:
    assert check(compose("+exp=mnist_vlt", "data=mnist")).data.name == "mnist"
    assert target(check(compose("+exp=mnist_vlt", "data=mnist")).latents) == TABLE


def test_any_experiment_of_the_paper_can_be_tried_on_digits() -> None:
    config = check(compose("+exp=vlt_zero_frozen", "data=digits"))
    assert (target(config.latents), target(config.model), config.zdim) == (TABLE, "DigitVAE", 2)


def test_ones_own_settings_win_over_the_datas() -> None:
    config = check(compose("+exp=mnist_vae", "zdim=5", "lr=1e-3", "encoder=large", "beta=4"))
    assert (config.zdim, config.lr, config.latents.layers, config.latents.width, config.beta) == (5, 1e-3, 5, 1024, 4)


def test_where_mnist_lies_decides_nothing_and_which_part_does() -> None:
    base = identity(check(compose("+exp=mnist_vae", "data=mnist")))
    assert identity(check(compose("+exp=mnist_vae", "data=mnist", "data.root=/elsewhere"))) == base
    others = [("data.split=train",), ("data.n_particles=5000",), ("seed=1",), ("encoder.width=8",), ("zdim=3",)]
    found = {identity(check(compose("+exp=mnist_vae", "data=mnist", *more))) for more in others}
    assert len(found | {base, identity(check(compose("+exp=mnist_vae")))}) == len(others) + 2


@pytest.mark.parametrize("experiment", GRID)
def test_every_experiment_runs_and_makes_its_figures(house, experiment: str) -> None:
    quick = QUICK_SEARCH if experiment == "mnist_heldout" else ()
    run = digit_run(house, f"+exp={experiment}", *quick)
    assert run.metrics
    assert all(value is None or math.isfinite(value) for value in run.metrics.values())
    expected = {"latent_space.png", "reconstructions.png"}
    expected |= {"displaced_latents.png"} if experiment.startswith("mnist_shift") else {"loss_curve.png"}
    assert {path.name for path in (run.folder / "figures").iterdir()} >= expected


def test_losses_are_given_per_image_and_per_batch_of_128(house) -> None:
    metrics = digit_run(house, "+exp=mnist_vae").metrics
    for name in ("loss/total", "loss/reconstruction", "loss/kl"):
        assert metrics[f"{name}_per_batch_of_128"] == pytest.approx(128 * metrics[name])
    assert metrics["loss/total"] == pytest.approx(metrics["loss/reconstruction"] + metrics["loss/kl"], rel=1e-5)


def test_held_out_digits_are_measured(house) -> None:
    metrics = digit_run(house, "+exp=mnist_heldout", *QUICK_SEARCH).metrics
    for key in ("loss_train", "loss_encoder", "loss_optimized", "class_accuracy_encoder", "amortization_gap"):
        assert math.isfinite(metrics[f"heldout/{key}"])
    # The q that was trained is worth what the loss of training says, up to the last epoch's steps and noise.
    assert metrics["heldout/loss_train"] == pytest.approx(metrics["loss/total"], rel=0.2)


def test_a_frozen_table_holds_the_encoders_latents_to_the_bit(house) -> None:
    frozen, source = digit_run(house, "+exp=mnist_vlt_frozen"), digit_run(house, "+exp=mnist_vae")
    ours, theirs = read_latents(frozen.folder), read_latents(source.folder)
    assert ours.mu.equal(theirs.mu) and ours.logvar.equal(theirs.logvar)
    model = trained_model(frozen, particles_of(frozen.config))
    assert np.array_equal(model.latents.table.weight[:, :2].detach().numpy(), theirs.mu.numpy())


def test_a_shift_by_nothing_moves_nothing_and_costs_nothing(house) -> None:
    metrics = digit_run(house, "+exp=mnist_shift_1", "encoder_input.dx_px=0").metrics
    assert metrics["amortization/displacement_ratio"] < 1e-5 and metrics["amortization/neighbour_rank"] == 0
    assert metrics["amortization/reconstruction_of_altered"] == metrics["amortization/reconstruction_of_images"]
    assert metrics["reconstructions/class_accuracy"] == metrics["reconstructions/class_accuracy_unaltered"]


def test_a_shift_by_the_whole_box_is_no_shift(house) -> None:
    assert (
        digit_run(house, "+exp=mnist_shift_1", "encoder_input.dx_px=8").metrics["amortization/displacement_ratio"]
        < 1e-5
    )


def test_reconstructions_of_shifted_images_are_compared_with_shifted_images(house) -> None:
    from experiments.tasks.digit_results import cross_entropy

    run = digit_run(house, "+exp=mnist_shift_5")
    particles = particles_of(run.config)
    source = run.source()
    assert source is not None
    made = trained_model(source, particles).decode(read_latents(run.folder).mu)
    shifted = particles.raw(np.arange(60)).roll(5, dims=-1).flatten(1)
    assert run.metrics["amortization/reconstruction_of_altered"] == pytest.approx(cross_entropy(made, shifted))


def test_a_table_cannot_be_shown_shifted_images(house) -> None:
    from lightning_modules.errors import InputError

    with pytest.raises(InputError, match="lookup table"):
        digit_run(house, "+exp=mnist_shift_1", "task.source=mnist_vlt")


def test_mnist_itself_trains(tmp_path, shared_data) -> None:
    run = digit_run(tmp_path, "+exp=mnist_vlt", "data=mnist", f"data.root={shared_data}/mnist", "data.n_particles=200")
    assert run.folder.parent.parent.name == "mnist" and run.metrics["loss/total"] < 600
