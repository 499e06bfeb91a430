"""A results folder can be handed on: its numbers are recomputed, and what was changed is found."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from experiments.configuration.compose import compose
from experiments.runs import provenance
from experiments.runs.checksums import of_stack
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.tasks.findings import FAILS, HOLDS, NOT_RECOMPUTED, UNKNOWN
from experiments.tasks.verify import main, verify
from lightning_modules.errors import InputError
from tests.particle_sets import images, stack
from tests.tiny import SETTINGS, tiny


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tiny(tmp_path_factory.mktemp("verify"))


@pytest.fixture
def copied(finished: Run, tmp_path: Path) -> Path:
    """A run's folder, handed on to somebody else."""
    folder = tmp_path / "runs" / "simulated" / "baseline" / finished.folder.name
    shutil.copytree(finished.folder, folder)
    return folder


def test_an_untouched_run_holds_wherever_it_lies(copied: Path, capsys: pytest.CaptureFixture) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    assert main([str(copied)]) == 0
    out = capsys.readouterr().out
    assert FAILS not in out and UNKNOWN not in out
    assert out.endswith("everything that was recomputed or compared holds\n")
    metrics = json.loads((copied / "metrics.json").read_text())
    for checked in ("latents: ", "data: particles: ", "data: poses: ", "reconstruction in one pass: ", *metrics):
        assert checked in out, checked
    lines = [line for line in out.splitlines() if NOT_RECOMPUTED in line]
    for named in ("time/epoch_s: ", "time/total_s: ", "images_per_s: ", "run.log", "figures/", "volumes/", "cryodrgn/"):
        assert any(named in line for line in lines), named
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before, "a run is only read"


def test_a_number_that_cannot_be_checked_stands_apart_from_its_verdict(
    copied: Path, capsys: pytest.CaptureFixture
) -> None:
    path = copied / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"latents/of_another_version": 0.5}))
    main([str(copied)])
    (line,) = (line for line in capsys.readouterr().out.splitlines() if "of_another_version" in line)
    assert line.split(": ")[0].split() == [*UNKNOWN.split(), "latents/of_another_version"]


def test_a_run_from_before_a_switch_was_there_holds(copied: Path, capsys: pytest.CaptureFixture) -> None:
    config = OmegaConf.load(copied / "config.yaml")
    for switch in ("capture", "native"):
        del config.trainer[switch]
    OmegaConf.save(config, copied / "config.yaml")
    assert main([str(copied)]) == 0, capsys.readouterr()


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("house")


FEW = ("task.search.steps=2", "task.n_samples=2")
KINDS = {
    "shifted images": ["+exp=shift_1px", "task.n_volumes=3"],
    "unseen particles": ["+exp=heldout", "task.n_train_optimized=3", *FEW],
    "new particles": ["+exp=infer", "task.source=baseline", "data.seed=1", *FEW],
    "a frozen table": ["+exp=vlt_pretrained_frozen"],
    "permuted twins": ["+exp=evil_twin_permuted"],
    "augmented images": ["+exp=augmented_encoder"],
    "pictures": ["+exp=mnist_vae"],
}
NOT_OF_PICTURES = ("data.box_px", "data.shift_px")


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_run_holds(kind: str, house: Path) -> None:
    given = [part for part in SETTINGS if not (kind == "pictures" and part.startswith(NOT_OF_PICTURES))]
    run = execute(compose(*given, f"paths.runs={house}/runs", f"paths.cache={house}/cache", *KINDS[kind]))
    found = list(verify(run.folder))
    assert found and [finding for finding in found if finding.verdict == FAILS] == []
    assert sum(finding.verdict == HOLDS for finding in found) > len(found) / 2


def test_numbers_latents_and_data_that_were_changed_are_found(copied: Path, finished: Run, tmp_path: Path) -> None:
    metrics = json.loads((copied / "metrics.json").read_text())
    changed = {"loss/total": metrics["loss/total"] * 1.001, "volumes/diversity": 0.999, "made/up": 1.0}
    (copied / "metrics.json").write_text(json.dumps(metrics | changed))
    with np.load(copied / "latents.npz") as stored:
        arrays = dict(stored)
    arrays["mu"][-1] += 0.1 * arrays["mu"].std()
    np.savez(copied / "latents.npz", **arrays)
    cache = tmp_path / "cache"
    shutil.copytree(finished.config.data.cache_dir, cache)
    labels = next(cache.rglob("labels.npz"))
    with np.load(labels) as stored:
        np.savez(labels, state=stored["state"], hinge_rad=np.roll(stored["hinge_rad"], 1))
    found = {finding.what: finding.verdict for finding in verify(copied, cache)}
    failed = {what for what, verdict in found.items() if verdict == FAILS}
    assert failed >= {
        "loss/total",
        "volumes/diversity",
        "latents",
        "data: labels",
        "latents/knn_hinge_r2",
    }
    assert found["made/up"] == UNKNOWN and found["data: particles"] == HOLDS and found["loss/kl"] == HOLDS


def rows_of(folder: Path) -> list[dict[str, Any]]:
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    rows: list[dict[str, Any]] = checkpoint["callbacks"]["EpochLog"]["rows"]
    return rows


def falsify(folder: Path, rows: list[dict[str, Any]], in_checkpoint: bool = False) -> None:
    """Write rows wherever a run has them but, unless it is said to, in the checkpoint."""
    header = ",".join(rows[0])
    lines = [",".join(map(repr, row.values())) for row in rows]
    (folder / "log.csv").write_text("\n".join([header, *lines]) + "\n")
    metrics = json.loads((folder / "metrics.json").read_text())
    last = {name: value for name, value in rows[-1].items() if name.startswith("loss/")}
    (folder / "metrics.json").write_text(json.dumps(metrics | last))
    if in_checkpoint:
        path = folder / "checkpoints" / "last.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        checkpoint["callbacks"]["EpochLog"]["rows"] = rows
        torch.save(checkpoint, path)


def failures(folder: Path) -> set[str]:
    return {finding.what for finding in verify(folder) if finding.verdict == FAILS}


SUM = "total = reconstruction + beta * KL / M"


def test_a_loss_that_is_falsified_in_metrics_and_log_alike_is_found_in_the_checkpoint(copied: Path) -> None:
    rows = rows_of(copied)
    rows[-1]["loss/reconstruction"] *= 0.999
    falsify(copied, rows)
    assert failures(copied) == {"loss/reconstruction", "log.csv"}


def test_a_loss_of_an_earlier_epoch_and_a_time_are_compared_with_the_checkpoint(copied: Path) -> None:
    rows = rows_of(copied)
    rows[0]["loss/kl"] *= 1.001
    falsify(copied, rows)
    assert failures(copied) == {"log.csv"}
    metrics = json.loads((copied / "metrics.json").read_text())
    (copied / "metrics.json").write_text(json.dumps(metrics | {"time/epoch_s": metrics["time/epoch_s"] / 2}))
    assert failures(copied) == {"log.csv", "time/epoch_s"}


def test_a_total_that_is_falsified_everywhere_is_not_the_sum_of_its_parts(copied: Path) -> None:
    rows = rows_of(copied)
    rows[-1]["loss/total"] *= 0.999
    falsify(copied, rows, in_checkpoint=True)
    assert failures(copied) == {SUM}


def test_a_kl_that_is_falsified_everywhere_is_not_that_of_the_latents(copied: Path) -> None:
    """Of a longer training: the whole log tells of a KL that has come to rest at ten times its value."""
    x, y = np.mgrid[-8:9, -8:9]
    beta, n_pixels = 1 / 3, int((x**2 + y**2 <= 64).sum()) - 1  # 1 / zdim; within a circle, without DC
    rows = [{**row, "epoch": epoch} for epoch, row in enumerate(5 * rows_of(copied)[-1:], 1)]
    for row in rows:
        row["loss/total"] += beta * 9 * row["loss/kl"] / n_pixels
        row["loss/kl"] *= 10
    falsify(copied, rows, in_checkpoint=True)
    found = failures(copied)
    assert "KL of the latents" in found and not found & {SUM, "log.csv", "loss/kl", "loss/total"}


def test_a_reconstruction_that_is_falsified_everywhere_is_not_that_of_the_weights(copied: Path) -> None:
    rows = rows_of(copied)
    for row in rows:
        row["loss/total"] -= 0.3 * row["loss/reconstruction"]
        row["loss/reconstruction"] *= 0.7
    falsify(copied, rows, in_checkpoint=True)
    assert failures(copied) == {"reconstruction in one pass"}


def test_a_number_that_is_missing_is_found(copied: Path) -> None:
    metrics = json.loads((copied / "metrics.json").read_text())
    del metrics["loss/kl"], metrics["time/total_s"]
    (copied / "metrics.json").write_text(json.dumps(metrics))
    assert failures(copied) == {"loss/kl", "time/total_s"}


def test_a_run_that_is_none_or_unfinished_is_said_to_be(copied: Path, capsys: pytest.CaptureFixture) -> None:
    (copied / "metrics.json").unlink()
    assert main([str(copied), str(copied.parent)]) == 1
    out = capsys.readouterr().out
    assert "not finished" in out and "not the folder of a run" in out and out.endswith("2 do not hold\n")


def test_a_run_records_where_its_numbers_come_from(finished: Run) -> None:
    record = provenance.read(finished.folder)
    (attempt,) = record["attempts"]
    assert attempt["seed"] == 0 and attempt["command"] and attempt["duration_s"] > 0
    assert attempt["started"] <= attempt["ended"]
    assert attempt["versions"].keys() >= {"python", "torch", "cryodrgn", "pytorch-lightning", "amortize-or-memorize"}
    assert (
        attempt["hardware"]["processor"] and attempt["hardware"]["cores"] and attempt["threads"] and "gpus" in attempt
    )
    assert len(attempt["git"]["commit"]) == 40 and attempt["git"]["dirty"] in (True, False)
    assert record["data"].keys() == {"particles", "poses", "ctf", "labels"}
    assert all(len(checksum["sha256"]) == 64 and checksum["of"] == "all of it" for checksum in record["data"].values())


def test_outside_of_a_repository_there_is_no_git_state(tmp_path: Path) -> None:
    assert provenance.git_state(tmp_path) is None
    assert provenance.git_state(provenance.REPOSITORY / "tests") is None, "somebody else's repository says nothing"


def test_every_attempt_is_recorded_even_if_clocks_go_backwards(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Run(finished.config, tmp_path)
    with pytest.raises(ZeroDivisionError), provenance.recorded(run):
        raise ZeroDivisionError
    times = iter(["2026-01-01T10:00:00+00:00", "2026-01-01T09:00:00+00:00"])
    monkeypatch.setattr(provenance, "_now", lambda: next(times))
    with provenance.recorded(run):
        pass
    first, second = provenance.read(tmp_path)["attempts"]
    assert first["ended"] is None and second["ended"] < second["started"] and second["duration_s"] >= 0


def test_a_damaged_record_is_told_but_stops_no_run(finished: Run, tmp_path: Path) -> None:
    (tmp_path / provenance.PROVENANCE).write_text("{")
    with pytest.raises(InputError, match=r"provenance\.json: expected the attempts"):
        provenance.read(tmp_path)
    with provenance.recorded(Run(finished.config, tmp_path)):
        pass
    assert len(provenance.read(tmp_path)["attempts"]) == 1


def test_of_a_large_stack_a_sample_is_taken_and_said_to_be_one(tmp_path: Path) -> None:
    path = Path(stack(tmp_path / "x.mrcs", images(40)))
    first = of_stack(path, n_sampled=4, whole_up_to=1000)
    assert first["of"] == "size, header and 4 of 40 images" and first == of_stack(path, 4, 1000)
    content = bytearray(path.read_bytes())
    seen = []
    for row in range(40):
        changed = content.copy()
        changed[1024 + row * 1024] ^= 1
        path.write_bytes(changed)
        seen.append(of_stack(path, 4, 1000)["sha256"] != first["sha256"])
    assert sum(seen) == 4
    path.write_bytes(content + b"0")
    assert of_stack(path, 4, 1000)["sha256"] != first["sha256"]
