"""Weights & Biases: what is written is what was logged; nothing asks, nothing hangs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate

from experiments.configuration.compose import compose
from experiments.machine import signals
from experiments.runs.run import Run
from experiments.tracking import loggers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
KEY = "0123456789abcdef0123456789abcdef01234567"
SERVER = "http://localhost:9"  # the discard port: nobody answers


@pytest.fixture(autouse=True)
def no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Nobody's key, and nobody's settings."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))


def run_of(tmp_path: Path, *overrides: str) -> Run:
    return Run.of(compose(f"paths.runs={tmp_path}/runs", "precision=float32", "logger=wandb", *overrides))


def tracker_of(run: Run) -> Any:
    run.folder.mkdir(parents=True, exist_ok=True)
    return instantiate(run.config.logger)(run=run)


def records(run: Run) -> list[list[dict[str, Any]]]:
    """Each offline file of a run, oldest first, as wandb's own reader gives it."""
    files = sorted(run.folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)
    read = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    outputs = [subprocess.run([*read, file], capture_output=True, text=True, check=True).stdout for file in files]
    return [[json.loads(line) for line in output.splitlines() if line.strip()] for output in outputs]


def of_kind(records: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [record[kind] for record in records if record["type"] == kind]


def history(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row["item"] for row in of_kind(records, "history")]


class Loss(pl.LightningModule):
    """Logs 1 / (1 + epoch), with two optimizers as a table run has them."""

    def __init__(self, fails_in: int | None = None) -> None:
        super().__init__()
        self.automatic_optimization, self.fails_in = False, fails_in
        self.weight = torch.nn.Parameter(torch.zeros(2))

    def training_step(self, batch: Any, _: int) -> None:
        if self.current_epoch == self.fails_in:
            raise ValueError("failed")
        for optimizer in self.optimizers():
            optimizer.step()
        self.log("loss/total", 1 / (1 + self.current_epoch), on_step=False, on_epoch=True, batch_size=1)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([self.weight], lr=0.1) for _ in range(2)]


def fit(tracker: Any, model: Loss, epochs: int, folder: Path) -> None:
    options = {"enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=tracker,
        log_every_n_steps=1,
        default_root_dir=folder,
        **options,
    )
    trainer.fit(model, torch.utils.data.DataLoader([0, 1, 2]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]]]:
    """A run that was logged offline, trained for two epochs, and what is on disk of it."""
    tmp_path = tmp_path_factory.mktemp("finished")
    run = run_of(tmp_path, "+exp=vlt_zero", "seed=3", "logger.tags=[mine]")
    tracker = tracker_of(run)
    fit(tracker, Loss(), 2, tmp_path)
    picture = tmp_path / "latent_space.png"
    matplotlib.image.imsave(picture, np.linspace(0, 1, 12).reshape(3, 4))
    loggers.log_results(tracker, run, {"loss/total": 0.5, "latents/knn_hinge_r2": None, "time/total_s": 7.0}, [picture])
    loggers.close(tracker)
    (written,) = records(run)
    return run, written


def test_csv_needs_no_logger(tmp_path: Path):
    run = Run.of(compose(f"paths.runs={tmp_path}", "precision=float32"))
    assert instantiate(run.config.logger)(run=run) is None


def test_every_epoch_is_there_with_its_numbers(finished):
    rows = history(finished[1])
    assert [(row["epoch"], row["loss/total"]) for row in rows if "loss/total" in row] == [(1, 1.0), (2, 0.5)]
    assert [row["_step"] for row in rows] == [1, 2]


def test_everything_is_plotted_against_the_epoch(finished):
    metrics = {m.get("name", m.get("glob_name")): m.get("step_metric") for m in of_kind(finished[1], "metric")}
    assert metrics == {"epoch": None, "*": "epoch"}


def test_the_run_says_what_it_is(finished):
    run, written = finished
    (described,) = of_kind(written, "run")
    assert described["run_id"] == f"vlt_zero-{run.folder.name}"
    assert described["run_group"] == "simulated"
    assert described["job_type"] == "train"
    assert described["tags"] == ["vlt_zero", "simulated", "seed=3", "mine"]
    assert described["project"] == "amortize-or-memorize"


def test_the_configuration_is_nested_and_keeps_its_types(finished):
    config = of_kind(finished[1], "run")[0]["config"]["update"]
    assert config["latents"]["init"]["logvar"] == -8.0
    assert config["trainer"]["max_epochs"] == finished[0].config.trainer.max_epochs
    assert config["beta_control"] is None
    assert config["precision"] == "float32"


def test_results_become_the_summary_and_pictures_are_kept(finished):
    run, written = finished
    summary: dict[str, Any] = {}
    for record in of_kind(written, "summary"):
        summary |= record["update"]
    assert (summary["loss/total"], summary["time/total_s"]) == (0.5, 7.0)
    assert "latents/knn_hinge_r2" not in summary
    shown = [row for row in history(written) if any(key.startswith("figures/latent_space") for key in row)]
    assert [row["epoch"] for row in shown] == [2]
    (picture,) = run.folder.glob("wandb/offline-run-*/files/media/images/figures/*.png")
    assert picture.read_bytes() == (run.folder.parents[3] / "latent_space.png").read_bytes()


def test_no_code_and_no_git_state_is_taken(finished):
    run, written = finished
    assert not any("git" in environment for environment in of_kind(written, "environment"))
    assert not list(run.folder.glob("wandb/*/files/code/**/*.py"))


def test_an_amortization_test_is_a_job_of_its_own(tmp_path: Path):
    run = run_of(tmp_path, "+exp=shift_1px", "logger.group=my_sweep")
    loggers.close(tracker_of(run))
    (described,) = of_kind(records(run)[0], "run")
    assert (described["job_type"], described["run_group"]) == ("amortization", "my_sweep")


def test_a_resumed_run_continues_its_wandb_run_and_another_seed_has_its_own(tmp_path: Path):
    run = run_of(tmp_path)
    for epoch in (1, 2):  # interrupted after the first epoch
        tracker = tracker_of(run)
        tracker.log_metrics({"epoch": epoch, "loss/total": 1 / epoch})
        loggers.close(tracker)
    first, second = records(run)
    assert of_kind(first, "run")[0]["run_id"] == of_kind(second, "run")[0]["run_id"] == loggers.wandb_id(run)
    assert [row["_step"] for row in history(first) + history(second)] == [1, 2]
    assert loggers.wandb_id(run_of(tmp_path, "seed=1")) != loggers.wandb_id(run)


def test_runs_of_one_process_do_not_leak_into_each_other(tmp_path: Path):
    failing, left_open, sound = (run_of(tmp_path, f"seed={seed}") for seed in range(3))
    with pytest.raises(ValueError, match="failed"):
        fit(tracker_of(failing), Loss(fails_in=1), 3, tmp_path)
    fit(tracker_of(left_open), Loss(), 2, tmp_path)  # as when a figure fails after training
    tracker = tracker_of(sound)
    fit(tracker, Loss(), 3, tmp_path)
    loggers.close(tracker)
    written = [records(run)[0] for run in (failing, left_open, sound)]
    assert [len(history(part)) for part in written] == [1, 2, 3]
    assert [of_kind(part, "exit")[0].get("exit_code", 0) for part in written] == [1, 0, 0]


def test_an_interrupted_run_is_preempted_and_not_failed(tmp_path: Path):
    class Told(Loss):
        def training_step(self, batch: Any, _: int) -> None:
            signals.request_stop()
            signals.leave()

    run = run_of(tmp_path)
    with signals.answered(), pytest.raises(signals.Interrupted):
        fit(tracker_of(run), Told(), 1, tmp_path)
    kinds = [record["type"] for record in records(run)[0]]
    assert "preempting" in kinds and "exit" in kinds
    assert "preempting" not in [record["type"] for record in records(failed_run(tmp_path))[0]]


def failed_run(tmp_path: Path) -> Run:
    run = run_of(tmp_path, "seed=1")
    with pytest.raises(ValueError, match="failed"):
        fit(tracker_of(run), Loss(fails_in=0), 1, tmp_path)
    return run


def test_disabled_logs_nothing(tmp_path: Path):
    run = run_of(tmp_path, "logger.mode=disabled")
    assert tracker_of(run) is None
    assert not (run.folder / "wandb").exists()


def test_all_but_the_first_process_log_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pl.utilities.rank_zero_only, "rank", 1)
    run = run_of(tmp_path)
    assert tracker_of(run) is None
    assert not (run.folder / "wandb").exists()


def test_a_key_is_found_where_wandb_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert not loggers.key_at_hand()
    (tmp_path / "netrc").write_text(f"machine example.org login user password {KEY}\n")
    assert not loggers.key_at_hand()
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai login user password {KEY}\n")
    assert loggers.key_at_hand()
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    assert loggers.key_at_hand()


ONLINE = """
import sys
from hydra.utils import instantiate
from experiments.configuration.compose import compose
from experiments.runs.run import Run
from experiments.tracking import loggers
run = Run.of(compose(f"paths.runs={sys.argv[1]}", "precision=float32", "logger=wandb", "logger.mode=online"))
run.folder.mkdir(parents=True)
loggers.INIT_TIMEOUT_S = 3.0
tracker = instantiate(run.config.logger)(run=run)
tracker.log_metrics({"epoch": 1, "loss/total": 0.25})
loggers.close(tracker)
print("id", tracker.version)
"""


def online_in_a_terminal(tmp_path: Path, **env: str) -> tuple[str, float]:
    """Log online from a process whose input and output are a terminal; return what it showed, and seconds."""
    terminal, end = os.openpty()
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-c", ONLINE, str(tmp_path / "runs")],
        stdin=end, stdout=end, stderr=end, env=os.environ | env, start_new_session=True,
    )  # fmt: skip
    os.close(end)
    shown = b""
    try:
        while chunk := os.read(terminal, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode(), time.monotonic() - started


def offline_after(tmp_path: Path) -> None:
    """Check that the numbers are there nevertheless."""
    (written,) = records(run_of(tmp_path, "logger.mode=online"))
    assert [(row["epoch"], row["loss/total"]) for row in history(written)] == [(1, 0.25)]


@pytest.mark.slow
def test_online_without_a_key_asks_nothing_and_logs_offline_with_one_warning(tmp_path: Path):
    shown, _ = online_in_a_terminal(tmp_path)
    assert "no API key was found" in shown
    assert "wandb login" in shown
    assert len(shown.strip().splitlines()) == 2  # the warning, and the id printed last
    offline_after(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("key", [KEY, "too short"])
def test_online_without_an_answer_gives_up_soon_and_logs_offline(tmp_path: Path, key: str):
    shown, seconds = online_in_a_terminal(tmp_path, WANDB_API_KEY=key, WANDB_BASE_URL=SERVER)
    assert "W&B did not start" in shown
    assert len(shown.strip().splitlines()) == 2
    assert seconds < 90  # 25 on a quiet machine; wandb alone hangs for longer, and then stops the run
    offline_after(tmp_path)


def test_the_module_is_light():
    heavy = "{'wandb', 'torch', 'pytorch_lightning'}"
    check = f"import sys, experiments.tracking.loggers; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
