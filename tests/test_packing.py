"""Runs of a grid carried out together: what is measured is the time until all are done."""

import json
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.benchmarks import packing


class Runs:
    """Stands in for processes: each takes a moment, and says what it was asked for."""

    def __init__(self, failing_seed: int | None = None) -> None:
        self.asked: list[list[str]] = []
        self.threads: list[str] = []
        self.at_once = self.most_at_once = 0
        self.failing_seed = failing_seed

    def __call__(self, command: list[Any], env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.asked.append(list(map(str, command)))
        self.threads.append(env["OMP_NUM_THREADS"])
        time.sleep(0.1)
        self.at_once -= 1
        failed = f"seed={self.failing_seed}" in command
        return subprocess.CompletedProcess(command, int(failed), "", "log\nout of memory" if failed else "")


def in_place_of_processes(monkeypatch: pytest.MonkeyPatch, runs: Runs) -> None:
    """Only of this module: Python's own library starts programs, too."""
    fake = SimpleNamespace(run=runs, CompletedProcess=subprocess.CompletedProcess)
    monkeypatch.setattr(packing, "subprocess", fake)


def test_every_seed_is_carried_out_so_many_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_place_of_processes(monkeypatch, runs := Runs())
    asked = ["--together", "1", "4", "--runs", "4", "--output", str(tmp_path), "data.box_px=16"]
    assert packing.main(asked) == 0
    assert (
        runs.most_at_once == 4 and len(runs.asked) == 1 + 4 + 4 and all("data.box_px=16" in each for each in runs.asked)
    )
    assert {part for each in runs.asked[-4:] for part in each if part.startswith("seed=")} == {
        f"seed={seed}" for seed in range(4)
    }
    assert set(runs.threads[-4:]) == {str(packing.threads_each(4))}
    found = json.loads((tmp_path / "packing.json").read_text())["makespan_s"]
    assert found["1"] > 2 * found["4"] > 0
    assert f"| 4 | {packing.threads_each(4)} |" in capsys.readouterr().out


def test_a_run_that_fails_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_place_of_processes(monkeypatch, Runs(failing_seed=2))
    assert packing.main(["--together", "2", "--runs", "4", "--output", str(tmp_path)]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "the run of seed 2 failed: log out of memory"
    assert not list(tmp_path.iterdir())


def test_cores_are_shared_and_everyone_gets_one() -> None:
    assert packing.threads_each(1) >= packing.threads_each(2) >= packing.threads_each(10_000) == 1
