"""Devices that this machine does not have are refused by name, before any work; no child outlives its parent."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

from experiments.configuration.compose import compose
from experiments.machine import devices
from experiments.machine.devices import best_device, check_devices
from experiments.training import processes
from experiments.volumes import run_volumes
from lightning_modules.errors import InputError
from lightning_modules.optimization.row_adam import dtype_of_steps
from tests.tiny import tiny


@pytest.fixture
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "n_cores", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.usefixtures("four_cores")
@pytest.mark.parametrize("wanted", [0, -1, -2, 5, 1000, "7", "abc", [0], [0, 0], "0,1", [], 1.5, {"a": 1}], ids=str)
def test_cores_that_are_not_there_are_refused(wanted: Any) -> None:
    for accelerator in ("cpu", "auto"):
        with pytest.raises(InputError, match=r"^trainer\.devices=.*: .*expected"):
            check_devices(accelerator, wanted)


@pytest.mark.usefixtures("four_cores")
def test_the_number_found_is_named() -> None:
    with pytest.raises(InputError, match=r"trainer\.devices=1000: 4 core\(s\) were found, expected 1 to 4"):
        check_devices("cpu", 1000)
    for accelerator in ("gpu", "cuda"):
        with pytest.raises(InputError, match=rf"trainer\.accelerator={accelerator}: no GPU was found"):
            check_devices(accelerator, 1)
    with pytest.raises(InputError, match=r"trainer\.accelerator=abacus: expected one of auto, cpu"):
        check_devices("abacus", 1)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", [3, [0, 2], [1, 1], "0,0", 0], ids=str)
def test_gpus_that_are_not_there_are_refused(wanted: Any) -> None:
    with pytest.raises(InputError, match=r"trainer\.devices=.*: 2 GPU\(s\) were found, expected"):
        check_devices("auto", wanted)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize("wanted", ["auto", 1, 2, -1, [1], [0, 1], "0,1", "1", "1,"], ids=str)
def test_gpus_that_are_there_are_not(wanted: Any) -> None:
    check_devices("gpu", wanted)


@pytest.mark.usefixtures("two_gpus")
def test_work_beside_training_is_done_on_the_gpu_that_was_asked_for() -> None:
    for wanted, expected in (([1], "cuda:1"), ("1,", "cuda:1"), ([1, 0], "cuda:1"), (2, "cuda:0"), ("auto", "cuda:0")):
        assert best_device("auto", wanted) == best_device("gpu", wanted) == expected
    assert best_device("cpu", [1]) == best_device("mps") == "cpu"
    assert best_device("gpu", [3]) == "cuda:0", "a run of another machine may name what is not here"


@pytest.mark.usefixtures("two_gpus")
def test_volumes_are_decoded_on_the_gpu_that_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = mock.Mock()
    monkeypatch.setattr(run_volumes.VolumeDecoder, "of", lambda model: decoder)
    run = mock.Mock(config=compose("trainer.devices=[1]"))
    run_volumes.on_best_device(run, mock.Mock())
    decoder.to.assert_called_once_with("cuda:1")


@pytest.mark.usefixtures("four_cores")
def test_apples_gpu_is_used_only_where_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert best_device("auto") == "cpu"
    assert processes.places_of(compose("trainer.accelerator=auto"))[0].accelerator == "cpu"
    assert processes.places_of(compose("trainer.accelerator=mps"))[0].accelerator == "mps"
    assert dtype_of_steps(torch.device("mps")) == torch.float32, "it has no float64"
    assert dtype_of_steps(torch.device("cuda")) == torch.float64


def test_a_run_is_refused_before_it_leaves_anything(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trainer\.devices=1000: \d+ core\(s\) were found"):
        tiny(tmp_path, "trainer=ddp", "trainer.devices=1000")
    assert not list(tmp_path.iterdir())


def _parent(pids: Any) -> None:
    """Start a child that would live for a minute, and be killed before the child can have asked for anything."""
    places = [processes.Place("cpu", 1)] * 2
    given = (1, places, Path("/nowhere"), os.getpid(), 1, _sleep, ())
    child = multiprocessing.get_context("spawn").Process(target=processes._other, args=given)
    child.start()
    pids.send(child.pid)
    os.kill(os.getpid(), signal.SIGKILL)


def _sleep(*_: Any) -> None:
    time.sleep(60)


def test_a_child_whose_parent_is_killed_while_it_starts_does_not_live_on() -> None:
    ours, theirs = multiprocessing.Pipe()
    parent = multiprocessing.get_context("fork").Process(target=_parent, args=(theirs,))
    parent.start()
    assert ours.poll(60)
    child = ours.recv()
    parent.join(60)
    assert parent.exitcode == -signal.SIGKILL
    deadline = time.monotonic() + 60
    while _lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _lives(child)


def _lives(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False


def _meet(team: Any, place: Any, ready: Any) -> None:
    ready()


def test_processes_that_meet_listen_on_the_loopback_alone() -> None:
    with processes.team_of([processes.Place("cpu", 1)] * 2, _meet):
        links = [str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()]
        own = {link.removeprefix("socket:[").removesuffix("]") for link in links}
        tables = [Path(f"/proc/net/{name}").read_text(encoding="utf-8") for name in ("tcp", "tcp6")]
    sockets = [line.split() for table in tables for line in table.splitlines()[1:]]
    listening = [columns[1] for columns in sockets if columns[3] == "0A" and columns[9] in own]
    assert all(address.startswith("0100007F:") for address in listening)
