"""A sweep on the GPUs of one machine; Ray takes our word for how many there are."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.runs.finding import run_folders
from experiments.sweeps.status import status_of
from lightning_modules.errors import InputError
from tests.tiny import ON_A_PLANE

ROOT = Path(__file__).resolve().parents[1]
PROGRAM = """
import json, os, signal, time
from pathlib import Path
import hydra
from experiments.configuration import schema
from experiments.runs.run import Run

# Stands for run.py: a run notes which GPU it was given, and goes on when so many have begun; seed 1 crashes.
@hydra.main(version_base="1.3", config_path="{conf}", config_name="config")
def job(config):
    note = {{"gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""), "process": os.getpid(), "began": time.time()}}
    if (config.name, config.seed) == ("baseline", 1):
        os.kill(os.getpid(), signal.SIGKILL)
    folder = Run.of(config).folder
    (folder / "began").touch()
    while len(list(Path(config.paths.runs).rglob("began"))) < {n_at_once}:
        time.sleep(0.1)
    note["ended"] = time.time()
    (folder / "metrics.json").write_text(json.dumps(note))

schema.register()
job()
"""

pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="pip install -e '.[gpus]'")


def sweep(folder, *overrides, n_at_once):
    """Carry out a sweep with two GPUs; return what was said, and by experiment and seed what the runs noted."""
    (folder / "program.py").write_text(PROGRAM.format(conf=ROOT / "conf", n_at_once=n_at_once))
    gpus = "hydra/launcher=local_gpus", "hydra.launcher.ray.init.num_gpus=2", "hydra.launcher.ray.init.num_cpus=8"
    done = subprocess.run(
        [sys.executable, folder / "program.py", "-m", *ON_A_PLANE, f"paths.runs={folder}/runs", *gpus, *overrides],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    statuses = [status_of(folder) for folder in run_folders(folder / "runs")]
    notes = {(s.experiment, s.seed): s.folder / "metrics.json" for s in statuses if s.state == "finished"}
    return done, {key: json.loads(path.read_text()) for key, path in notes.items()}


def at_once(one, other):
    return one["began"] < other["ended"] and other["began"] < one["ended"]


@pytest.mark.slow
def test_each_run_has_its_own_gpu_and_one_that_crashes_takes_only_those_along_that_need_it(tmp_path):
    done, notes = sweep(tmp_path, "+exp=shift_1px,baseline", "seed=0,1,2", n_at_once=2)
    assert notes.keys() == {("baseline", 0), ("baseline", 2), ("shift_1px", 0), ("shift_1px", 2)}, done.stderr
    assert "4 finished, 2 failed" in done.stdout and done.returncode != 0
    runs = list(notes.values())
    assert {run["gpu"] for run in runs} == {"0", "1"}
    assert not any(a["gpu"] == b["gpu"] and at_once(a, b) for a in runs for b in runs if a is not b)
    assert at_once(notes["baseline", 0], notes["baseline", 2])
    for seed in (0, 2):
        assert notes["shift_1px", seed]["began"] > notes["baseline", seed]["ended"]
    reasons = {s.experiment: s.note for s in map(status_of, run_folders(tmp_path / "runs")) if s.state == "failed"}
    assert "its process died" in reasons["baseline"]
    assert reasons["shift_1px"].startswith("needs baseline, which failed: ")


@pytest.mark.slow
def test_small_runs_are_packed_on_a_gpu_when_asked(tmp_path):
    done, notes = sweep(tmp_path, "hydra.launcher.ray.remote.num_gpus=0.5", "seed=0,2,3,4", n_at_once=4)
    runs = list(notes.values())
    assert len(runs) == 4, done.stderr
    assert sorted(run["gpu"] for run in runs) == ["0", "0", "1", "1"]
    assert len({run["process"] for run in runs}) == 4


@pytest.mark.slow
def test_without_gpus_each_run_has_a_core(tmp_path):
    cores = "hydra/launcher=local_cpus", "hydra.launcher.ray.init.num_gpus=0", "hydra.launcher.ray.init.num_cpus=2"
    done, notes = sweep(tmp_path, *cores, "seed=0,2,3", n_at_once=2)
    runs = list(notes.values())
    assert len(runs) == 3, done.stderr
    assert {run["gpu"] for run in runs} == {""}
    assert max(sum(at_once(run, other) for other in runs) for run in runs) >= 2


def test_more_gpus_than_there_are_is_one_line():
    from hydra_plugins.grid.local_gpus import LocalGpusLauncher

    launcher = LocalGpusLauncher(ray=OmegaConf.create({"remote": {"num_gpus": 1}}))
    launcher.check_gpus(1)
    with pytest.raises(InputError, match="found 0 GPUs, expected at least 1"):
        launcher.check_gpus(0)
