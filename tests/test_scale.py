"""What a particle costs: a stand-in for a large data set, windows of steps, ratios of neighbours in time."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.benchmarks import scale
from experiments.benchmarks.measuring import Watched
from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from lightning_modules.optimization.minibatches import EpochBlocks

TINY = ("data.shift_px=0.5", "decoder.width=16", "trainer.accelerator=cpu", "precision=float32")


def test_the_stand_in_is_as_long_as_the_data_set_and_real_where_it_is_looked_at(tmp_path: Path) -> None:
    settings, path = [*TINY, "data.box_px=16", f"paths.cache={tmp_path}"], tmp_path / "images"
    n = 100_000
    particles, few = scale.stand_in(settings, n, path)
    rows = scale.seen_in_window(n, check(compose(*settings)))
    scale.fill(path, rows, few)
    assert len(particles) == len(particles.labels["state"]) == n and particles.images.shape == (n, few.shape[1])
    real = np.unique(rows)
    assert torch.equal(particles.images[real], torch.from_numpy(np.resize(few, (len(real), few.shape[1]))))
    assert not particles.images[np.setdiff1d(np.arange(1000), real)].any()
    assert path.stat().st_size == n * few[0].nbytes
    blocks = list(zip(range(scale.BLOCKS), EpochBlocks(n, 8, scale.PER_BLOCK, 0, 0), strict=False))
    assert {int(i) for _, block in blocks for index in block.batches for i in index} <= set(real.tolist())
    assert path.stat().st_blocks * 512 < path.stat().st_size / 10, "sparse"


def test_a_window_is_measured_per_particle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale, "EXPERIMENTS", ("baseline", "evil_twin_noise_standard"))
    monkeypatch.setattr(scale, "judging", lambda *_: {"metrics": 2e-6, "figure": 1e-6})
    monkeypatch.setattr(scale, "ENCODED", 20)
    found = scale.measure(16, 300, [*TINY, f"paths.cache={tmp_path}"])
    assert found["metrics, us"] == 2 and found["figure, us"] == 1
    for key in ("baseline, ms", "evil_twin_noise_standard, ms", "encoding, ms", "entering, us"):
        assert 0 < found[key] < 1e3
    assert found.keys() >= scale.PEAKS.keys()


def test_every_n_takes_turns_with_the_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def process(command: list[object]) -> Watched:
        path, n = command[command.index("--one") + 1], int(str(command[-1]))
        asked.append(n)
        cost = dict.fromkeys(scale.COLUMNS, len(asked) * (1.5 if n > scale.REFERENCE else 1.0))
        Path(str(path)).write_text(json.dumps(cost | dict.fromkeys(scale.PEAKS, n / 1e3)), encoding="utf-8")
        return Watched(0, "", 1.0, None)

    monkeypatch.setattr(scale, "watch", process)
    assert scale.main(["--n", "20000", "--box-px", "64", "--rounds", "3", "--output", str(tmp_path)]) == 0
    assert asked == 3 * [scale.REFERENCE, 20_000]
    found = json.loads((tmp_path / "scale.json").read_text())
    assert len(found["found"]["64"]["20000"]) == 3 and "sparse file" in found["images"]
    shown = capsys.readouterr().out
    assert "| 64 | 20,000 | 3 (2.00)" in shown and "| 64 | 20,000 | 20 | 20 | 20 |" in shown


def test_a_failed_process_is_one_line_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def process(command: list[object]) -> Watched:
        if len(asked := [*processes, command]) > 2:
            return Watched(1, "a log\nout of memory", 1.0, None)
        processes[:] = asked
        found = dict.fromkeys([*scale.COLUMNS, *scale.PEAKS], 1.0)
        Path(str(command[command.index("--one") + 1])).write_text(json.dumps(found), encoding="utf-8")
        return Watched(0, "", 1.0, None)

    processes: list[list[object]] = []
    monkeypatch.setattr(scale, "watch", process)
    assert scale.main(["--n", "20000", "30000", "--box-px", "64", "--output", str(tmp_path)]) == 1
    assert json.loads((tmp_path / "scale.json").read_text())["found"]["64"].keys() == {"20000"}
    assert capsys.readouterr().err.splitlines()[-1] == (
        "D=64 N=10000: the process failed; it ended: a log out of memory"
    )
