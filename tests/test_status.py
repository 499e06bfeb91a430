"""How a run stands is read from its folder; a killed one is not shown as running."""

import json
import os
import subprocess
import sys
import time

import pytest
import yaml

from experiments.runs import state
from experiments.runs.finding import run_folders
from experiments.sweeps.status import main, status_of, table
from lightning_modules.files.lease import BEAT_S, LEASE_S


def a_run(top, experiment="baseline", seed=0, epochs=0, name=None):
    """Write what a run of 12 epochs has written after some of them; an epoch takes 10 s."""
    folder = top / "simulated" / experiment / (name or f"{seed:010x}")
    folder.mkdir(parents=True)
    config = {
        "name": experiment,
        "seed": seed,
        "data": {"name": "simulated"},
        "task": {"_target_": "experiments.tasks.train.Train"},
        "trainer": {"max_epochs": 12},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    if epochs:
        rows = "".join(f"{epoch},{1 / epoch},10.0\n" for epoch in range(1, epochs + 1))
        (folder / "log.csv").write_text(f"epoch,loss/total,time/epoch_s\n{rows}")
    return folder


def a_process_at(folder, *, then):
    """Start a process that takes a run's lease, and then does something."""
    code = f"""
import os, signal, sys, time
from pathlib import Path
from experiments.runs import state
lease = state.lease(Path({str(folder)!r}))
lease.acquire()
print("has it", flush=True)
{then}
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "has it\n"
    return process


def test_a_finished_run_shows_its_last_loss(tmp_path):
    folder = a_run(tmp_path, epochs=12)
    (folder / "metrics.json").write_text("{}")
    status = status_of(folder)
    assert (status.state, status.experiment, status.data, status.seed) == ("finished", "baseline", "simulated", 0)
    assert (status.epoch, status.n_epochs, status.loss) == (12, 12, pytest.approx(1 / 12))


def test_a_running_run_shows_epoch_loss_and_time_left_and_a_killed_one_is_not_running(tmp_path):
    folder = a_run(tmp_path, epochs=9)
    process = a_process_at(folder, then="time.sleep(60)")
    status = status_of(folder)
    assert (status.state, status.epoch, status.loss) == ("running", 9, pytest.approx(1 / 9))
    assert status.left_s == pytest.approx(30, abs=5) and str(process.pid) in status.note
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and nobody has taken note
    assert status_of(folder).state == "stopped"
    process.wait()
    assert status_of(folder).state == "stopped"


def test_a_lease_of_another_machine_that_is_no_longer_renewed_is_not_running(tmp_path):
    folder = a_run(tmp_path, epochs=1)
    a_process_at(folder, then="os._exit(0)").wait()
    marker = folder / state.LEASE
    marker.write_text(marker.read_text().replace("host=", "host=another-"))
    assert status_of(folder).state == "running"  # nobody can tell yet
    long_ago = time.time() - 10 * LEASE_S
    os.utime(marker, (long_ago, long_ago))
    assert status_of(folder).state == "stopped"


def test_who_was_killed_is_followed_at_once(tmp_path):
    a_process_at(tmp_path, then="os.kill(os.getpid(), signal.SIGKILL)").wait()
    began = time.monotonic()
    with state.lease(tmp_path):
        assert time.monotonic() - began < BEAT_S / 2


def test_a_clock_that_goes_backwards_keeps_nobody_out(tmp_path):
    """The lease of who was killed is then from the future."""
    a_process_at(tmp_path, then="os.kill(os.getpid(), signal.SIGKILL)").wait()
    tomorrow = time.time() + 86400
    os.utime(tmp_path / state.LEASE, (tomorrow, tomorrow))
    assert state.holder(tmp_path) is None
    began = time.monotonic()
    with state.lease(tmp_path):
        assert time.monotonic() - began < BEAT_S / 2


def test_a_run_of_a_sweep_waits_as_long_as_the_sweep_lives(tmp_path):
    folder, sweep = a_run(tmp_path / "runs"), tmp_path / "sweep"
    sweep.mkdir()
    state.write_job(folder, state.Job(str(sweep)))
    with state.lease(sweep):
        assert status_of(folder).state == "waiting"
        state.mark_started(folder)
        assert status_of(folder).state == "stopped"
        state.mark_started(folder, started=False)  # queued again
        assert status_of(folder).state == "waiting"
    assert status_of(folder).state == "stopped"


def test_a_slurm_job_waits_whether_or_not_anybody_watches(tmp_path):
    folder = a_run(tmp_path)
    state.write_job(folder, state.Job(str(tmp_path), "12_3", "12_3.log"))
    status = status_of(folder)
    assert status.state == "waiting" and "12_3" in status.note


def test_a_failed_run_says_why_and_where_to_look(tmp_path):
    folder = a_run(tmp_path, epochs=2)
    (folder / "run.log").write_text("...")
    state.write_failure(folder, "the loss became nan")
    assert status_of(folder).state == "failed"
    shown = table([status_of(folder)])
    assert "the loss became nan" in shown and str(folder / "run.log") in shown and "1 failed" in shown
    state.forget_failure(folder)
    assert status_of(folder).state == "stopped"


def test_torn_files_are_no_reason_to_show_nothing(tmp_path):
    folder = a_run(tmp_path, epochs=1)
    for name in ("job.json", "failed.json"):
        (folder / name).write_text('{"half')
    status = status_of(folder)
    assert (status.state, status.experiment, status.data) == ("stopped", "baseline", "simulated")
    (folder / "config.yaml").write_text('{"half')
    status = status_of(folder)
    assert (status.state, status.experiment, status.data) == ("damaged", "baseline", "simulated")
    assert "config.yaml: cannot be read" in status.note


def test_two_hundred_runs_are_listed_in_under_a_second_without_torch(tmp_path, capsys):
    for seed in range(200):
        folder = a_run(tmp_path / "runs", "evil_twin_permuted", seed, epochs=12)
        (folder / "metrics.json").write_text(json.dumps({"loss/total": 0.5}))
    began = time.process_time()
    assert main([str(tmp_path / "runs")]) == 0
    assert time.process_time() - began < 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 202 and lines[-1] == "200 finished"
    imports = "import sys, experiments.sweeps.status; assert not {'torch', 'hydra', 'omegaconf'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", imports], check=True)


def test_a_part_of_the_runs_can_be_asked_for_and_sweeps_are_no_runs(tmp_path):
    runs = [a_run(tmp_path, experiment) for experiment in ("baseline", "shift_1px")]
    (tmp_path / ".sweeps" / "now").mkdir(parents=True)
    (tmp_path / ".sweeps" / "now" / "config.yaml").write_text("")
    assert list(run_folders(tmp_path)) == runs
    assert list(run_folders(tmp_path / "simulated" / "shift_1px")) == runs[1:]


def test_a_folder_that_is_not_there_is_said_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "paths.runs" in capsys.readouterr().err
