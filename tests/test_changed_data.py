"""A file that changed under the same path is other data: no old number is given out for it, and no run goes on."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from experiments.configuration.compose import compose
from experiments.runs.changed_data import refuse_changed
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.sweeps.planning import Refused, wanted
from lightning_modules.errors import InputError
from tests.particle_sets import ctf, dump, images, rotations, shifts, stack

N, D = 12, 16
SETTINGS = (
    "data=cryodrgn", "decoder.width=16", "zdim=2", "trainer.max_epochs=1", "trainer.accelerator=cpu",
    "precision=float32", "trainer.enable_progress_bar=false",
)  # fmt: skip


@pytest.fixture
def overrides(tmp_path: Path) -> list[str]:
    return [
        *SETTINGS,
        f"data.particles={stack(tmp_path / 'p.mrcs', images(N, D))}",
        f"data.poses={dump(tmp_path / 'poses.pkl', (rotations(N), shifts(N)))}",
        f"data.ctf={dump(tmp_path / 'ctf.pkl', ctf(N, D))}",
        f"paths.runs={tmp_path}/runs",
        f"paths.cache={tmp_path}/cache",
    ]


@pytest.fixture
def finished(overrides: list[str]) -> Run:
    return execute(compose(*overrides))


def move_one_particle(path: Path) -> None:
    """Write another shift for the first particle, and leave the file's size as it is."""
    moved = shifts(N)
    moved[0] += 1
    size = path.stat().st_size
    dump(path, (rotations(N), moved))
    assert path.stat().st_size == size


def test_a_finished_run_of_other_poses_is_not_given_out(tmp_path: Path, overrides: list[str], finished: Run) -> None:
    first = finished.metrics
    assert execute(compose(*overrides)).metrics == first
    move_one_particle(tmp_path / "poses.pkl")
    expected = r"poses\.pkl: the file has changed since .* was finished with it \(still \d+ bytes, with other content\)"
    with pytest.raises(InputError, match=expected):
        execute(compose(*overrides))
    refused = wanted(overrides, compose(*overrides))
    assert isinstance(refused, Refused)
    assert "poses.pkl: the file has changed" in refused.reason
    with pytest.raises(InputError, match=r"poses\.pkl: the file has changed"):
        execute(compose(*overrides, "+exp=shift_1px", f"task.source={finished.folder}"))
    again = execute(compose(*overrides, "overwrite=true"))
    assert again.metrics is not None and first is not None
    assert again.metrics["loss/total"] != first["loss/total"]
    assert execute(compose(*overrides)).metrics == again.metrics


def test_a_longer_stack_is_named_with_both_sizes(tmp_path: Path, overrides: list[str], finished: Run) -> None:
    size = (tmp_path / "p.mrcs").stat().st_size
    stack(tmp_path / "p.mrcs", images(N + 1, D))
    with pytest.raises(InputError, match=rf"p\.mrcs: .* \({size} bytes then, {size + 4 * D * D} bytes now\)"):
        execute(compose(*overrides))


def test_a_file_that_was_copied_or_is_gone_has_not_changed(tmp_path: Path, overrides: list[str], finished: Run) -> None:
    os.utime(tmp_path / "poses.pkl", (1, 1))
    assert execute(compose(*overrides)).metrics == finished.metrics
    (tmp_path / "p.mrcs").unlink()
    assert execute(compose(*overrides)).metrics == finished.metrics


def test_an_interrupted_run_does_not_go_on_with_other_data(tmp_path: Path, overrides: list[str], finished: Run) -> None:
    (finished.folder / "metrics.json").unlink()
    assert finished.checkpoint.exists()
    before = np.load(finished.folder / "latents.npz")["mu"]
    move_one_particle(tmp_path / "poses.pkl")
    with pytest.raises(InputError, match=r"poses\.pkl: the file has changed since .* was begun with it"):
        execute(compose(*overrides))
    assert np.array_equal(np.load(finished.folder / "latents.npz")["mu"], before)
    assert execute(compose(*overrides, "overwrite=true")).metrics is not None


@pytest.mark.parametrize("path", ["/dev/zero", "a pipe", "", "/nowhere", 3, None])
def test_a_record_from_somebody_else_names_nothing_that_has_no_end(tmp_path: Path, finished: Run, path: object) -> None:
    if path == "a pipe":
        path = str(tmp_path / "pipe")
        os.mkfifo(tmp_path / "pipe")
    record = json.loads((finished.folder / "provenance.json").read_text(encoding="utf-8"))
    record["files"]["poses"] |= {"path": path, "bytes": -1}
    (finished.folder / "provenance.json").write_text(json.dumps(record), encoding="utf-8")
    refuse_changed(finished)
