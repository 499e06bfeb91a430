"""Runs made by version 0.1.0, before its modules were moved, are still found, verified and reported on."""

import shutil
from pathlib import Path

import pytest

from experiments.configuration import targets
from experiments.configuration.compose import compose
from experiments.configuration.identity import identities
from experiments.configuration.stored import is_known, read_config
from experiments.configuration.validation import check
from experiments.report.__main__ import main as report
from experiments.runs.execution import execute
from experiments.runs.folders import FINISHED, find
from experiments.runs.run import Run
from experiments.tasks import verify
from experiments.tasks.findings import FAILS
from tests.tiny import SETTINGS

EARLIER = Path(__file__).parent / "earlier_runs" / "0.1.0"
MADE_WITH = (*SETTINGS, "encoder.width=16")
FOLDERS = {"baseline": "388d3a269c", "shift_1px": "abe1f18d47"}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    shutil.copytree(EARLIER, tmp_path / "runs")
    return tmp_path / "runs"


def configuration(name: str, runs: Path) -> tuple[str, ...]:
    return (f"+exp={name}", *MADE_WITH, f"paths.runs={runs}", f"paths.cache={runs.parent}/cache")


@pytest.mark.parametrize("name", FOLDERS)
def test_the_same_command_finds_the_earlier_run_finished(runs: Path, name: str):
    before = (runs / "simulated" / name / FOLDERS[name] / "metrics.json").stat().st_mtime_ns
    run = execute(compose(*configuration(name, runs)))
    assert run.folder == runs / "simulated" / name / FOLDERS[name]
    assert (run.folder / "metrics.json").stat().st_mtime_ns == before


def test_a_run_made_now_has_the_hash_of_its_classes_names(tmp_path: Path):
    config = check(compose(*configuration("baseline", tmp_path)))
    assert identities(config) == ("e7c64f5b05", "388d3a269c")
    assert Run.of(config).folder.name == "e7c64f5b05"


def test_a_class_that_is_moved_keeps_its_runs(runs: Path, monkeypatch: pytest.MonkeyPatch):
    config = check(compose(*configuration("baseline", runs)))
    before = identities(config)
    now = config.data._target_
    then = targets.earlier_name(now)
    monkeypatch.setattr(targets, "MOVED", targets.MOVED | {then: "lightning_modules.elsewhere.SimulatedParticles"})
    monkeypatch.setattr(targets, "_EARLIER", {"lightning_modules.elsewhere.SimulatedParticles": then})
    config.data._target_ = "lightning_modules.elsewhere.SimulatedParticles"
    assert (identities(config)[0], targets.current_name(then)) == (before[0], config.data._target_)
    assert targets.rename_targets({"a": [{"_target_": config.data._target_}]}, targets.earlier_name) == {
        "a": [{"_target_": then}]
    }


@pytest.mark.parametrize("name", FOLDERS)
def test_every_class_of_an_earlier_configuration_is_one_of_today(name: str):
    config = read_config(EARLIER / "simulated" / name / FOLDERS[name] / "config.yaml")
    named = {key: part._target_ for key, part in config.items() if hasattr(part, "get") and "_target_" in part}
    assert len(named) > 5 and all(is_known(key, target) for key, target in named.items())


@pytest.mark.parametrize("name", FOLDERS)
def test_earlier_runs_are_verified(runs: Path, name: str):
    found = list(verify.verify(runs / "simulated" / name / FOLDERS[name], runs.parent / "cache"))
    # Another processor simulates other last bits, which are no fault of the run.
    wrong = [finding for finding in found if finding.verdict == FAILS and not finding.what.startswith("data:")]
    assert not wrong and len(found) > 10


def test_earlier_runs_are_reported_on(runs: Path):
    assert {(run.name, run.status) for run in find([runs])} == {(name, FINISHED) for name in FOLDERS}
    report([str(runs)])
    page = (runs / "report.html").read_text()
    assert all(name in page for name in FOLDERS)
