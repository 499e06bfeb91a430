"""A sweep on a real Slurm of one node, which tests/slurm/start.sh starts: two GPUs that are none, four processors."""

import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.machine import slurm
from experiments.runs import state
from experiments.runs.finding import run_folders
from experiments.sweeps.status import status_of
from tests.tiny import ON_A_PLANE, tiny

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent / "slurm"
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Start a Slurm, and point this process to it."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        pytest.skip(f"no {', '.join(missing)}: on Debian, apt-get install munge slurmctld slurmd slurm-client")
    if getpass.getuser() != "root":
        pytest.skip("only root may start a Slurm")
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher", reason="pip install -e '.[slurm]'")
    folder = tmp_path_factory.mktemp("cluster")
    environment = {**os.environ, "PATH": path, **free_ports()}
    started = subprocess.run([HERE / "start.sh", folder], env=environment, capture_output=True, text=True, check=False)
    assert started.returncode == 0, started.stderr
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patched.setenv("OMP_NUM_THREADS", "1")
        yield folder
        subprocess.run([HERE / "stop.sh", folder], env=environment, check=True)


def free_ports():
    """Tests may run side by side, each with a Slurm of its own."""
    with socket.socket() as one, socket.socket() as two:
        one.bind(("127.0.0.1", 0))
        two.bind(("127.0.0.1", 0))
        return {"SLURMCTLD_PORT": str(one.getsockname()[1]), "SLURMD_PORT": str(two.getsockname()[1])}


class Sweep:
    """A sweep in a process of its own; its jobs end with it."""

    def __init__(self, folder, *overrides, epochs=1):
        self.runs, self.output = folder / "runs", folder / "output.txt"
        site = "mem_gb=1.5", "cpus_per_task=1", "signal_delay_s=60"
        self.command = [
            sys.executable, ROOT / "run.py", "-m", *ON_A_PLANE, f"trainer.max_epochs={epochs}",
            f"paths.runs={self.runs}", f"paths.cache={folder}/cache",
            "hydra/launcher=slurm", *(f"hydra.launcher.{key}" for key in site), *overrides,
        ]  # fmt: skip

    def start(self):
        """Start it, or start it again."""
        with self.output.open("w") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT)

    def said(self, text):
        """Tell whether it has said something."""
        return text in self.output.read_text()

    def end(self):
        """Wait for its end; return the exit code and what was said."""
        return self.process.wait(timeout=600), self.output.read_text()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.wait()
        subprocess.run(["scancel", "--me"], check=True)

    def run_with(self, *settings):
        """Return the folder of the run whose config.yaml has these lines, once it is there."""

        def found():
            for folder in run_folders(self.runs):
                lines = [line.strip() for line in (folder / "config.yaml").read_text().splitlines()]
                if set(settings) <= set(lines):
                    return folder
            return None

        return eventually(found)


def eventually(found, within_s=300):
    """Return what is found, as soon as it is."""
    end = time.monotonic() + within_s
    while not (result := found()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
    return result


def squeue(job, what):
    """Return what squeue says of a job: %j its name, %T its state, ..."""
    command = ["squeue", "--noheader", "--states=all", f"--jobs={job}", f"--format={what}"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def restarts(job):
    shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True).stdout
    return int(re.search(r"Restarts=(\d+)", shown)[1])


def limit(job, minutes):
    subprocess.run(["scontrol", "update", f"jobid={job}", f"timelimit={minutes}"], check=True)


def has_trained(folder, n_epochs):
    return (status_of(folder).epoch or 0) >= n_epochs


def test_a_grid_goes_to_its_end_whatever_becomes_of_one_run_or_of_who_watches(cluster, tmp_path):
    exps, rates = "+exp=shift_1px,baseline", "lr=1e-4,1e30"  # the second rate gives a loss that is no number
    setup = "hydra.launcher.setup=['echo device $CUDA_VISIBLE_DEVICES','sleep 4']"
    with Sweep(tmp_path, exps, rates, setup) as sweep:
        eventually(lambda: sweep.said("watch them"))
        sweep.process.send_signal(signal.SIGINT)
        code, said = sweep.end()
        assert code == 130 and "scancel" in said
        submitted = set(slurm.states())
        assert len(submitted) == 4

        sweep.start()  # again: it finds the jobs, and submits none
        code, said = sweep.end()
        assert set(slurm.states()) == submitted and said.count("of an earlier sweep already") == 4
        assert code == 1
        assert "2 finished, 2 failed" in said
        last = said.splitlines()[-1]
        assert last.startswith("2 of 4 not finished") and "baseline (seed 0)" in last and "shift_1px (seed 0)" in last

        runs = {
            (exp, lr): sweep.run_with(f"name: {exp}", f"lr: {lr}")
            for exp in ("baseline", "shift_1px")
            for lr in ("0.0001", "1.0e+30")
        }
        jobs = {key: state.read_job(folder) for key, folder in runs.items()}
        states = {key: slurm.state_of(job.slurm) for key, job in jobs.items()}
        assert {key for key, state in states.items() if state == "COMPLETED"} == {
            key for key in runs if key[1] == "0.0001"
        }
        assert {key for key, state in states.items() if state == "FAILED"} == {
            key for key in runs if key[1] == "1.0e+30"
        }

        logs = {key: Path(job.log).read_text(encoding="utf-8") for key, job in jobs.items()}
        assert "Traceback" in logs["baseline", "1.0e+30"] and "loss became" in logs["baseline", "1.0e+30"]
        reason = state.read_failure(runs["shift_1px", "1.0e+30"]).reason
        assert reason.startswith("needs baseline (seed 0), which failed: ") and "loss became" in reason
        assert (runs["baseline", "1.0e+30"] / "run.log").read_text().count("Traceback") == 1  # nobody tried again

        # Side by side, each with a GPU of its own.
        devices = [re.search(r"device (\S*)", logs["baseline", lr])[1] for lr in ("0.0001", "1.0e+30")]
        assert sorted(devices) == ["0", "1"]
        named = {squeue(job.slurm, "%j") for job in jobs.values()}
        assert named == {"baseline.simulated.seed0", "shift_1px.simulated.seed0"}

        for key in ("baseline", "1.0e+30"), ("shift_1px", "1.0e+30"):
            shutil.rmtree(runs[key])
        sweep.command[-2] = "lr=1e-4"
        sweep.start()
        code, said = sweep.end()
        assert code == 0 and "0 to do, 2 finished already" in said and set(slurm.states()) == submitted


def test_killed_cancelled_and_out_of_memory_jobs_are_named_and_a_timed_out_one_continues(cluster, tmp_path):
    widths = "decoder.width=8,16,24,8192"
    with Sweep(tmp_path, widths, "hydra.launcher.gpus_per_node=null", epochs=1_000_000) as sweep:
        killed, cancelled, timed_out, too_big = (sweep.run_with(f"width: {width}") for width in (8, 16, 24, 8192))
        eventually(lambda: all(has_trained(folder, 1) for folder in (killed, cancelled, timed_out)))
        job = {folder: state.read_job(folder).slurm for folder in (killed, cancelled, timed_out, too_big)}
        assert status_of(killed).state == "running" and job[killed] in status_of(killed).note
        minutes = int(squeue(job[timed_out], "%M").split(":")[0])
        limit(job[timed_out], minutes + 2)
        os.kill(state.lease(killed).owner.pid, signal.SIGKILL)
        subprocess.run(["scancel", job[cancelled]], check=True)
        # Slurm looks at the memory now and then: the kernel may be first, and then the job was killed.
        ends = ((killed, ("FAILED",)), (cancelled, ("CANCELLED",)), (too_big, ("OUT_OF_MEMORY", "FAILED")))
        for folder, named in ends:
            failure = eventually(lambda folder=folder: state.read_failure(folder))
            assert any(f"{job[folder]} ended as {end}" in failure.reason for end in named)
            assert Path(failure.log).exists()

        eventually(lambda: restarts(job[timed_out]) >= 1)
        limit(job[timed_out], 60)
        n_epochs = status_of(timed_out).epoch
        eventually(lambda: has_trained(timed_out, n_epochs + 2))
        assert "continuing from" in (timed_out / "run.log").read_text()
        assert (timed_out / "log.csv").read_text().splitlines()[1].startswith("1,")  # not from the start
        subprocess.run(["scancel", job[timed_out]], check=True)

        code, said = sweep.end()
        assert code == 1 and "4 failed" in said and said.splitlines()[-1].startswith("4 of 4 not finished")


def test_a_preempted_run_is_queued_again_and_comes_to_the_same_numbers_bit_for_bit(cluster, tmp_path):
    with Sweep(tmp_path, "+exp=vlt_random", epochs=200) as sweep:
        folder = sweep.run_with("name: vlt_random")
        eventually(lambda: has_trained(folder, 3))
        urgent = ["sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
        subprocess.run(urgent, check=True, capture_output=True)
        code, said = sweep.end()
        assert code == 0, said
        assert restarts(state.read_job(folder).slurm) == 1
        assert "continuing from" in (folder / "run.log").read_text()
    whole = tiny(tmp_path / "whole", "zdim=2", "+exp=vlt_random", "trainer.max_epochs=200")
    assert whole.folder.name == folder.name
    with np.load(folder / "latents.npz") as ours, np.load(whole.folder / "latents.npz") as theirs:
        assert np.array_equal(ours["mu"], theirs["mu"]) and np.array_equal(ours["logvar"], theirs["logvar"])


def test_a_site_that_refuses_the_jobs_is_quoted_in_one_line(cluster, tmp_path):
    with Sweep(tmp_path, "+exp=baseline", "hydra.launcher.partition=nowhere") as sweep:
        code, said = sweep.end()
    assert code == 1 and "invalid partition" in said.splitlines()[-1].lower() and "Traceback" not in said


def test_jobs_too_large_for_any_node_are_not_waited_for(cluster, tmp_path):
    with Sweep(tmp_path, "+exp=shift_1px,baseline", "hydra.launcher.cpus_per_task=8") as sweep:
        waiting = sweep.run_with("name: baseline")
        eventually(lambda: "PartitionConfig" in status_of(waiting).note)
        assert "will never start" in status_of(waiting).note
        code, said = sweep.end()
        assert code == 1 and "2 failed" in said and "Traceback" not in said
        last = said.splitlines()[-1]
        assert "(PartitionConfig)" in last and last.count("ask for less: hydra.launcher.cpus_per_task=4") == 2
        assert "PENDING" not in {slurm.state_of(state.read_job(folder).slurm) for folder in run_folders(sweep.runs)}
