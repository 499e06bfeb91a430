"""Particles made by others, through the whole suite."""

import csv

import numpy as np
import pytest

from experiments.configuration.compose import compose
from experiments.runs.execution import execute


def toy(shared_data, tmp_path, *overrides):
    folder = shared_data / "particles"
    return compose(
        "data=cryodrgn",
        f"data.particles={folder}/toy_projections.mrcs",
        f"data.poses={folder}/toy_rot_trans.pkl",
        f"data.ctf={folder}/test_ctf.pkl",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={tmp_path}/cache",
        "trainer.max_epochs=2",
        "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false",
        *overrides,
    )


@pytest.mark.slow
@pytest.mark.parametrize("exp", ["baseline", "evil_twin_permuted"])
def test_a_thousand_particles_made_by_others_train(shared_data, tmp_path, exp):
    run = execute(toy(shared_data, tmp_path, f"+exp={exp}"))
    with (run.folder / "log.csv").open() as file:
        losses = [float(row["loss/total"]) for row in csv.DictReader(file)]
    assert len(losses) == 2 and losses[1] < losses[0]
    with np.load(run.folder / "latents.npz") as stored:
        assert stored["mu"].shape == (1000, 8)
    assert run.metrics.keys() >= {"loss/total", "images_per_s"}
    assert not any(key.startswith("latents/knn") for key in run.metrics)  # nobody knows their conformations


@pytest.mark.slow
def test_a_run_without_a_ctf(shared_data, tmp_path):
    metrics = execute(toy(shared_data, tmp_path, "data.ctf=null", "data.n_particles=64")).metrics
    assert 0 < metrics["loss/reconstruction"] < 2
