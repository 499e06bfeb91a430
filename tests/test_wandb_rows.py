"""Every row of W&B is the row of log.csv with the same epoch: of a training, a resumed one, and one logged later."""

import csv
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from experiments.__main__ import main
from experiments.configuration.compose import compose
from experiments.machine.signals import Interrupted, request_stop
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.tracking import loggers
from tests.test_loggers import history, no_key, of_kind, records
from tests.test_resume import stopped_after
from tests.tiny import ON_A_PLANE, tiny

__all__ = ["no_key"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
COLUMNS = ("epoch", "loss/total", "loss/reconstruction", "loss/kl", "time/epoch_s", "images_per_s")
N_EPOCHS, N_BATCHES = 3, 3  # of an epoch: 24 particles, 8 in a batch
OPTIONS = (*ON_A_PLANE, f"trainer.max_epochs={N_EPOCHS}")


@pytest.fixture(scope="module")
def unlogged(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run that nobody has logged."""
    return tiny(tmp_path_factory.mktemp("unlogged"), *OPTIONS)


def in_csv(run: Run) -> list[dict[str, float]]:
    with (run.folder / "log.csv").open(encoding="utf-8", newline="") as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def in_wandb(*written: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The rows of some files, one after another; their number on W&B's own axis is the epoch."""
    rows = [row for part in written for row in history(part)]
    assert [row["_step"] for row in rows] == [row["epoch"] for row in rows]
    return [{key: row[key] for key in COLUMNS} for row in rows]


def assert_summary_holds_the_metrics(written: list[dict[str, Any]], run: Run) -> None:
    summary: dict[str, Any] = {}
    for record in of_kind(written, "summary"):
        summary |= record["update"]
    known = {name: value for name, value in (run.metrics or {}).items() if value is not None}
    assert known and {name: summary[name] for name in known} == known


def test_every_row_of_a_training_is_that_of_the_log(tmp_path: Path):
    run = tiny(tmp_path, *OPTIONS, "logger=wandb")
    (written,) = records(run)
    assert in_wandb(written) == in_csv(run)
    assert len(in_csv(run)) == N_EPOCHS
    assert_summary_holds_the_metrics(written, run)


def test_rows_before_and_after_an_interruption_are_those_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with stopped_after(monkeypatch, 2 * N_BATCHES + 1, request_stop), pytest.raises(Interrupted):
        tiny(tmp_path, *OPTIONS, "logger=wandb")
    run = tiny(tmp_path, *OPTIONS, "logger=wandb")
    before, after = records(run)
    assert in_wandb(before, after) == in_csv(run)
    assert len(history(before)) == 2


def test_a_finished_run_that_is_to_be_logged_names_the_command(unlogged: Run, caplog: pytest.LogCaptureFixture):
    root = unlogged.folder.parents[3]
    options = (*OPTIONS, f"paths.runs={root}/runs", f"paths.cache={root}/cache")
    with caplog.at_level(logging.INFO):
        execute(compose(*options, "logger=wandb"))
        execute(compose(*options))
    asked, not_asked = (record.getMessage() for record in caplog.records if "already finished" in record.getMessage())
    assert f"`python -m experiments wandb {unlogged.folder}` logs it" in asked
    assert "wandb" not in not_asked


def test_the_command_logs_what_training_would_have_logged(unlogged: Run, capsys: pytest.CaptureFixture[str]):
    assert main(["wandb", str(unlogged.folder.parents[2]), "--group", "later"]) == 0
    (written,) = records(unlogged)
    assert in_wandb(written) == in_csv(unlogged)
    (described,) = of_kind(written, "run")
    assert (described["run_id"], described["run_group"]) == (loggers.wandb_id(unlogged), "later")
    assert_summary_holds_the_metrics(written, unlogged)
    shown = {key.removesuffix(".path") for row in history(written) for key in row if key.endswith(".path")}
    drawn = {f"figures/{path.stem}" for path in (unlogged.folder / "figures").glob("*.png")}
    assert drawn and drawn | {"tables/latents", "tables/metrics", "volumes/first_1"} <= shown

    capsys.readouterr()
    assert main(["wandb", str(unlogged.folder)]) == 0
    assert "logged before" in capsys.readouterr().out and len(records(unlogged)) == 1
    assert main(["wandb", str(unlogged.folder), "--again"]) == 0
    assert [in_wandb(part) for part in records(unlogged)] == [in_csv(unlogged)] * 2


def test_a_damaged_run_is_one_line_and_leaves_nothing_and_the_others_are_logged(
    unlogged: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    damaged, whole = (
        Run.load(shutil.copytree(unlogged.folder, tmp_path / "runs" / name, ignore=shutil.ignore_patterns("wandb")))
        for name in ("first", "second")
    )
    (damaged.folder / "latents.npz").write_bytes(b"no arrays")
    assert main(["wandb", str(tmp_path / "runs")]) == 1
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "latents.npz" in line]
    assert "damaged" in said
    assert not (damaged.folder / "wandb").exists()
    assert in_wandb(*records(whole)) == in_csv(whole)


def test_where_nothing_is_finished_it_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["wandb", str(tmp_path)]) == 1
    assert "no run in it" in capsys.readouterr().err
