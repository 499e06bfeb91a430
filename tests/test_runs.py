"""A run is a function of its configuration: found when finished, continued when interrupted, trained once."""

import json
import threading

import numpy as np
import pytest
import torch

from experiments.configuration.compose import compose
from experiments.runs import execution
from experiments.runs.run import Run
from experiments.tasks.train import Train
from experiments.training.checkpoints import LastCheckpoint
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from tests.tiny import SETTINGS, tiny


class PowerCutError(Exception):
    """Stands for a power cut."""


def interrupt_after(monkeypatch, n_epochs):
    """Make training die right after the checkpoint of an epoch."""
    write = LastCheckpoint.on_train_epoch_end

    def write_and_die(self, trainer, pl_module):
        self.written = -float("inf")  # each epoch's checkpoint is due
        write(self, trainer, pl_module)
        if trainer.current_epoch + 1 == n_epochs:
            raise PowerCutError

    monkeypatch.setattr(LastCheckpoint, "on_train_epoch_end", write_and_die)


def weights(run):
    return torch.load(run.checkpoint, weights_only=True)["state_dict"]


def test_asking_twice_returns_the_finished_run_and_trains_nothing(tmp_path, monkeypatch):
    first = tiny(tmp_path)
    stamp = first.checkpoint.stat().st_mtime_ns

    def never(*args):
        raise AssertionError("trained again")

    monkeypatch.setattr(Train, "__call__", never)
    again = tiny(tmp_path)
    assert again.folder == first.folder and again.metrics == first.metrics
    assert again.checkpoint.stat().st_mtime_ns == stamp


def test_overwrite_starts_over_and_comes_to_the_same_numbers(tmp_path):
    first = tiny(tmp_path)
    before = weights(first)
    (first.folder / "left_over.txt").write_text("old")
    again = tiny(tmp_path, "overwrite=true")
    assert again.folder == first.folder and not (again.folder / "left_over.txt").exists()
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(again).items())


def test_an_interrupted_run_continues_to_the_same_weights_and_latents_bit_for_bit(tmp_path, monkeypatch):
    options = ("+exp=evil_twin_permuted", "trainer.max_epochs=3")
    whole = tiny(tmp_path / "whole", *options)
    with monkeypatch.context() as patched:
        interrupt_after(patched, 2)
        with pytest.raises(PowerCutError):
            tiny(tmp_path / "broken", *options)
    continued = tiny(tmp_path / "broken", *options)
    assert continued.folder.name == whole.folder.name
    ours, theirs = weights(continued), weights(whole)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    with np.load(continued.folder / "latents.npz") as a, np.load(whole.folder / "latents.npz") as b:
        assert np.array_equal(a["mu"], b["mu"]) and np.array_equal(a["logvar"], b["logvar"])
    epochs = [line.split(",")[0] for line in (continued.folder / "log.csv").read_text().splitlines()]
    assert epochs == ["epoch", "1", "2", "3"]


def test_a_run_holds_what_the_readme_lists(tmp_path):
    folder = tiny(tmp_path).folder
    for name in (
        "config.yaml", "metrics.json", "log.csv", "latents.npz", "run.log", "checkpoints/last.ckpt",
        "figures/loss_curve.png", "figures/latent_space.png",
        "cryodrgn/config.yaml", "cryodrgn/weights.pkl", "cryodrgn/z.pkl",
    ):  # fmt: skip
        assert (folder / name).is_file(), name
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics.keys() >= {
        "loss/total", "loss/reconstruction", "loss/kl", "time/epoch_s", "time/total_s", "images_per_s",
        "latents/active_dimensions", "latents/knn_class_accuracy", "latents/knn_hinge_r2", "latents/class_ari",
        "latents/neighbourhood_similarity", "latents/imbalance_to_truth", "latents/imbalance_from_truth",
        "volumes/diversity", "volumes/per_image_fsc_auc", "volumes/per_image_fsc_auc_of_mean",
    }  # fmt: skip


def test_a_pretrained_table_starts_from_the_baseline_and_trains_it_first(tmp_path):
    run = tiny(tmp_path, "+exp=vlt_pretrained_frozen", "seed=3")
    source = run.source()
    assert source.config.name == "baseline" and source.config.seed == 3 and source.metrics is not None
    with np.load(run.folder / "latents.npz") as ours, np.load(source.folder / "latents.npz") as theirs:
        assert np.array_equal(ours["mu"], theirs["mu"]) and np.array_equal(ours["logvar"], theirs["logvar"])


def test_the_source_is_the_run_that_the_same_settings_give(tmp_path):
    settings = ("encoder=large", "encoder.width=32", "zdim=4", "data.snr=0.2", "batch_size=4")
    run = tiny(tmp_path, "+exp=shift_1px", *settings)
    assert run.source().folder == tiny(tmp_path, *settings).folder


def test_a_source_may_be_named_by_its_folder(tmp_path):
    source = tiny(tmp_path, "seed=5")
    run = tiny(tmp_path, "+exp=vlt_pretrained", f"latents.init.source={source.folder}")
    assert run.source().folder == source.folder


def test_a_source_with_other_particles_is_refused(tmp_path):
    source = tiny(tmp_path, "data.seed=1")
    with pytest.raises(InputError, match=r"data\.seed=1.*expected data\.seed=0"):
        tiny(tmp_path, "+exp=vlt_pretrained", f"latents.init.source={source.folder}")


def test_a_failed_run_leaves_no_result_behind(tmp_path):
    with pytest.raises(InputError, match="its own twin"):
        tiny(tmp_path, "+exp=evil_twin_permuted", "data.n_particles=1")
    assert not list(tmp_path.rglob("metrics.json")) and not list(tmp_path.rglob("latents.npz"))


def test_a_loss_that_is_no_number_stops_at_the_last_good_checkpoint(tmp_path, monkeypatch):
    config = compose(*SETTINGS, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", "lr=1e30")
    with pytest.raises(InputError, match=r"loss became .*(lower|Lower) lr"):
        execution.execute(config)
    assert Run.of(config).metrics is None


def test_two_that_want_the_same_run_train_it_once(tmp_path, monkeypatch):
    calls = []
    train = Train.__call__

    def counted(self, run, source):
        calls.append(run.config.name)
        return train(self, run, source)

    monkeypatch.setattr(Train, "__call__", counted)
    config = compose(*SETTINGS, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    jobs = [threading.Thread(target=execution.execute, args=(config,)) for _ in range(2)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert calls == ["baseline"]


def test_writing_is_all_or_nothing(tmp_path):
    def fails(path):
        path.write_text("half")
        raise OSError("disk full")

    path = tmp_path / "metrics.json"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fails)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
