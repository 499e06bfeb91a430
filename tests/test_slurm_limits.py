"""A job that Slurm will never start is not waited for; small programs that answer as Slurm's do stand in for it."""

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from experiments.machine import slurm, slurm_limits
from experiments.machine.slurm import Queued
from experiments.machine.slurm_limits import Offer, lasting, offer_of
from experiments.runs import state
from experiments.sweeps.status import status_of, statuses_of
from hydra_plugins.grid import slurm as launcher

ASKED = {
    "partition": None, "cpus_per_task": 4, "tasks_per_node": 1, "nodes": 1, "mem_gb": 16, "gpus_per_node": 1,
    "timeout_min": 240,
}  # fmt: skip
NODES = "urgent|64|512000|1:00|gpu:8\nmain*|2|8000|infinite|(null)\nmain*|1|4000|infinite|(null)\n"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], Path]:
    """Make a program that prints a text; return the file that lists its calls."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")

    def make(name: str, answer: str) -> Path:
        (folder / f"{name}.txt").write_text(answer)
        (folder / name).write_text(f'#!/bin/sh\necho "$@" >>{folder}/{name}.calls\ncat {folder}/{name}.txt\n')
        (folder / name).chmod(0o755)
        return folder / f"{name}.calls"

    return make


def test_state_and_reason_are_read_whatever_is_in_the_reason(program: Any) -> None:
    program("squeue", "7_0|PENDING|Priority\n8|PENDING|ReqNodeNotAvail, UnavailableNodes:n[1|2]\n9|RUNNING|None\n")
    assert slurm.queue() == {
        "7_0": Queued("PENDING", "Priority"),
        "8": Queued("PENDING", "ReqNodeNotAvail, UnavailableNodes:n[1|2]"),
        "9": Queued("RUNNING", "None"),
    }
    assert slurm.states() == {"7_0": "PENDING", "8": "PENDING", "9": "RUNNING"}


NEVER = [
    "PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "DependencyNeverSatisfied",
    "AssocMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "QOSMaxMemoryPerJob", "QOSMaxGRESPerNode",
    "QOSMinGRES", "InvalidQOS", "AccountNotAllowed", "JobHeldAdmin", "launch_failed_requeued_held",
    "AssocMaxJobsLimit", "QOSMaxJobsPerUserLimit", "QOSMaxCpuPerUserLimit",
]  # fmt: skip
PASSES = [
    "None", "Priority", "Resources", "Dependency", "BeginTime", "JobArrayTaskLimit", "JobHeldUser", "Licenses",
    "AssocGrpCpuLimit", "QOSGrpGRES", "ReqNodeNotAvail, UnavailableNodes:n1", "Reservation", "PartitionDown",
]  # fmt: skip


@pytest.mark.parametrize("reason", NEVER)
def test_some_reasons_never_pass(reason: str) -> None:
    assert lasting("1", {"1": Queued("PENDING", reason)})
    assert not lasting("1", {"1": Queued("RUNNING", reason)}) and not lasting("1", {})


@pytest.mark.parametrize("reason", PASSES)
def test_others_do(reason: str) -> None:
    assert not lasting("1", {"1": Queued("PENDING", reason)})


def test_a_limit_to_jobs_at_once_passes_when_one_of_them_ends() -> None:
    waiting, running = Queued("PENDING", "AssocMaxJobsLimit"), Queued("RUNNING", "None")
    assert lasting("1", {"1": waiting, "2": waiting})
    assert not lasting("1", {"1": waiting, "2": running})
    assert lasting("1", {"1": Queued("PENDING", "PartitionConfig"), "2": running})


def test_what_a_partition_has_is_asked_of_slurm(program: Any) -> None:
    program("sinfo", NODES + "old|4|4000|1-02:30:00|gpu:a100:4(S:0-1),gpu:v100:2\n")
    assert offer_of(None) == Offer(cpus=2, mem_mb=8000, gpus=0, minutes=float("inf"))
    assert offer_of("urgent") == Offer(cpus=64, mem_mb=512000, gpus=8, minutes=1)
    assert offer_of("old,main") == Offer(cpus=4, mem_mb=8000, gpus=6, minutes=float("inf"))
    assert offer_of("old") == Offer(cpus=4, mem_mb=4000, gpus=6, minutes=26 * 60 + 30)
    assert offer_of("none") is None
    program("sinfo", "main*|two|8000|infinite|(null)\n")
    assert offer_of(None) is None


class Folder(SimpleNamespace):
    """Stands in for a planned run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(label=folder.name, run=SimpleNamespace(folder=folder, metrics=None))
        folder.mkdir()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm_limits, "LASTS_S", 0.0)
    monkeypatch.setattr(launcher, "GRACE_S", 0.0)
    monkeypatch.setattr(launcher, "POLL_S", (0.0, 0.0))


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("reason", "asked", "told"),
    [
        ("PartitionConfig", {}, "have 2 CPUs, 7.8 GB, 0 GPUs; ask for less: hydra.launcher.cpus_per_task=2 "
         "hydra.launcher.mem_gb=7.8 hydra.launcher.gpus_per_node=null"),
        ("PartitionConfig", {"mem_gb": 4, "gpus_per_node": None}, "ask for less: hydra.launcher.cpus_per_task=2"),
        ("PartitionTimeLimit", {"partition": "urgent"}, "at most 1 min; ask for less: hydra.launcher.timeout_min=1"),
        ("BadConstraints", {"constraint": "a100"}, "change hydra.launcher.constraint=a100 or hydra.launcher.partition"),
        ("AssocMaxCpuPerJobLimit", {"cpus_per_task": 2}, "change hydra.launcher.cpus_per_task=2"),
        ("DependencyNeverSatisfied", {}, "start the sweep again"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)  # fmt: skip
def test_a_job_that_never_starts_ends_the_waiting_for_it_with_the_key_that_asks_for_less(
    reason: str, asked: dict[str, Any], told: str, program: Any, tmp_path: Path
) -> None:
    program("squeue", f"7_0|PENDING|{reason}\n")
    program("sinfo", NODES)
    cancelled, entry = program("scancel", ""), Folder(tmp_path / "run")
    launcher.wait([entry], {0: "7_0"}, {**ASKED, **asked})  # type: ignore[list-item]
    failure = state.read_failure(tmp_path / "run")
    assert failure is not None
    assert failure.reason.startswith(f"Slurm job 7_0 will never start as things are ({reason}): ")
    assert told in failure.reason
    assert cancelled.read_text().split() == ["7_0"]


@pytest.mark.usefixtures("hurried")
def test_whoever_wants_to_waits_anyway(program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "logger", said := mock.Mock())
    cancelled, entry = program("scancel", ""), Folder(tmp_path / "run")
    stuck = {"7": Queued("PENDING", "PartitionConfig")}
    answers = iter([stuck, stuck, None, stuck, {"7": Queued("FAILED", "None")}, {"7": Queued("FAILED", "None")}])
    monkeypatch.setattr(slurm, "queue", lambda: next(answers))
    monkeypatch.setattr(slurm, "state_of", lambda job: "FAILED")
    launcher.wait([entry], {0: "7"}, ASKED, wait_anyway=True)  # type: ignore[list-item]
    failure = state.read_failure(tmp_path / "run")
    assert failure is not None and failure.reason == "Slurm job 7 ended as FAILED"
    (warned,) = said.warning.call_args_list
    assert "will never start as things are (PartitionConfig)" in warned.args[0] % warned.args[1:]
    assert not cancelled.exists()


def test_a_reason_is_given_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm may name one while nodes come up, and take it back."""
    now = [0.0]
    monkeypatch.setattr(slurm_limits, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(slurm_limits, "offer_of", lambda partition: None)
    stuck, patience = {"7": Queued("PENDING", "PartitionConfig")}, slurm_limits.Patience(ASKED)
    for seconds, queue in ((0, stuck), (9, stuck), (11, {"7": Queued("PENDING", "Resources")}), (12, stuck)):
        now[0] = seconds
        assert patience.why_over("7", queue) is None
    now[0] = 23
    assert patience.why_over("7", None) is None, "nobody knows"
    assert patience.why_over("7", stuck) is None
    now[0] = 34
    assert "PartitionConfig" in str(patience.why_over("7", stuck))


def test_status_shows_why_slurm_does_not_start_a_job(program: Any, tmp_path: Path) -> None:
    jobs = {
        "7_0": ("PENDING|PartitionConfig", "Slurm job 7_0: PENDING, PartitionConfig; will never start as things are"),
        "7_1": ("PENDING|Priority", "Slurm job 7_1: PENDING, Priority"),
        "7_2": ("RUNNING|None", "Slurm job 7_2: RUNNING"),
        "7_3": ("CANCELLED|None", "Slurm job 7_3: no longer in the queue, the same command submits it again"),
    }
    calls = program("squeue", "".join(f"{job}|{shown}\n" for job, (shown, _) in jobs.items()))
    for job in jobs:
        (tmp_path / job).mkdir()
        state.write_job(tmp_path / job, state.Job(str(tmp_path), job))
    found = statuses_of(tmp_path / job for job in jobs)
    assert [status.state for status in found] == ["waiting"] * 4
    assert [status.note for status in found] == [note for _, note in jobs.values()]
    assert len(calls.read_text().splitlines()) == 1, "Slurm is asked once for all"
    assert status_of(tmp_path / "7_0", lambda: None).note == "Slurm job 7_0"
