"""Same seed, same machine, same numbers, bit for bit, in whatever process; and one result where two ask at once."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.configuration.compose import CONF_DIR
from experiments.runs.run import Run
from tests.tiny import ON_A_PLANE, tiny

EXPERIMENT = ("+exp=vlt_random", "seed=3")


def start(folder: Path) -> subprocess.Popen:
    """Start run.py in a process of its own."""
    where = (f"paths.runs={folder}/runs", f"paths.cache={folder}/cache", f"hydra.run.dir={folder}")
    command = [sys.executable, str(CONF_DIR.parent / "run.py"), *EXPERIMENT, *ON_A_PLANE, *where]
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}  # sums depend on how they are split
    return subprocess.Popen(
        command, env=os.environ | threads, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
def test_processes_come_to_the_same_numbers_and_share_a_folder(tmp_path: Path) -> None:
    jobs = [start(tmp_path / "theirs") for _ in range(2)]
    ours = tiny(tmp_path / "ours", "zdim=2", *EXPERIMENT)
    for job in jobs:
        _, errors = job.communicate(timeout=600)
        assert job.returncode == 0, errors
    (folder,) = (path.parent for path in (tmp_path / "theirs").rglob("metrics.json"))
    theirs = Run.load(folder)
    assert theirs.folder.name == ours.folder.name
    attempts = json.loads((folder / "provenance.json").read_text())["attempts"]
    assert len(attempts) == 1 and attempts[0]["overrides"], "the second found it finished"

    a, b = (torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in (ours, theirs))
    assert any(name.startswith("latents.") for name in a), "the table is among the weights"
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    with np.load(ours.folder / "latents.npz") as one, np.load(folder / "latents.npz") as other:
        assert set(one) == set(other) and all(one[name].tobytes() == other[name].tobytes() for name in one)
    one_log, other_log = (list(csv.DictReader((run.folder / "log.csv").open())) for run in (ours, theirs))
    losses = [{key: value for key, value in row.items() if "loss" in key} for row in one_log]
    assert losses and losses == [{key: row[key] for key in losses[0]} for row in other_log]
    machine = ("time/", "images_per_s")
    assert {k: v for k, v in ours.metrics.items() if not k.startswith(machine)} == {
        k: v for k, v in theirs.metrics.items() if not k.startswith(machine)
    }
