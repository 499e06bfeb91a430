"""The benchmark reads cryoDRGN's log, counts operations as a profiler does, and compares like with like."""

import json
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from experiments.benchmarks import cryodrgn, stages
from experiments.benchmarks.measuring import Watched, peak_bytes, watch, ways
from experiments.benchmarks.stages import NAMES, Stages, stages_table
from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.building import model_of, particles_of
from lightning_modules.errors import InputError

LOG = """(INFO) # [Train Epoch: 1/2] [0/24 particles] gen loss=1.0, kld=2.0, beta=0.1, loss=1.1
(INFO) # =====> Epoch: 1 Average gen loss = 0.9, KLD = 2.500000, total loss = 0.950000; Finished in 0:01:02.500000
(INFO) # =====> Epoch: 2 Average gen loss = 0.8, KLD = 3.500000, total loss = 0.850000; Finished in 1:00:01
"""
TINY = ("data.n_particles=24", "data.box_px=16", "data.shift_px=0.5", "trainer.accelerator=cpu", "decoder.width=16")


def test_cryodrgns_log_is_read_with_minutes_and_hours() -> None:
    assert cryodrgn.read_cryodrgn_log(LOG) == [(0.95, 62.5), (0.85, 3601.0)]


def test_the_first_epoch_is_not_timed_and_the_fastest_counts() -> None:
    ours, theirs = cryodrgn.Side(), cryodrgn.Side()
    for _ in range(2):
        ours.add([1.0, 0.5], [9.0, 2.0])
        theirs.add([1.0, 0.4], [1.0, 8.0])
    theirs.add([1.0, 0.4], [1.0, 6.0])
    found = cryodrgn.Comparison(16, 24, {"cryodrgn": theirs, "float32": ours}, 1.0)
    assert found.images_per_s("float32") == 12
    assert found.ratio("float32") == 3
    assert found.loss_difference("float32") == pytest.approx(0.25)
    assert "| 16 | suite, float32 | 12.0 | 3.00 | 50% |  | 0.5000 | +25.00% |" in cryodrgn.table(
        [found], {"float32": 24.0}
    )


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    config = check(compose(*TINY, f"paths.cache={tmp_path}", "precision=float32", "trainer.native=false"))
    model = model_of(config, particles_of(config))
    model.prepare()
    index = torch.arange(8)
    with FlopCounterMode(display=False) as counter:
        model.elbo(model.observe(index), torch.zeros(8, config.zdim), 0.1).total.backward()
    # z's own columns of the first layer are left out: a product per image, not per pixel
    assert counter.get_total_flops() == pytest.approx(8 * 1e9 * cryodrgn.gflop_per_image(config), rel=0.01)


@pytest.mark.slow
def test_both_sides_train_on_the_same_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "whole", lambda *_: {"run_s": 1e3, "report_s": 1.0})  # tested below
    sizes = ["--box-px", "16", "--n-particles", "24", "--epochs", "2", "--rounds", "1"]
    settings = [*TINY[2:], "zdim=2", f"paths.cache={tmp_path}/cache"]  # a plane needs no UMAP
    assert cryodrgn.main([*sizes, "--output", str(tmp_path), *settings]) == 0
    content = json.loads((tmp_path / "benchmark.json").read_text())
    found, (measured,) = content["comparisons"][0]["sides"], content["stages"]
    assert {"date", "processor", "torch", "cryodrgn", "matmul_peak_gflops"} <= content.keys()
    assert measured["measured"].keys() == NAMES.keys() and min(measured["measured"].values()) > 0
    assert measured["measured"]["first_step_s"] < measured["measured"]["run_s"]
    assert set(found) == {"cryodrgn", *ways(gpu=False)} >= {"cryodrgn", "bfloat16", "float32"}
    for side in found.values():
        assert len(side["losses"]) == 2 and len(side["seconds"]) == 1 and 100 < side["peak_mb"] < 10_000
        assert side["losses"][0] == pytest.approx(found["cryodrgn"]["losses"][0], rel=0.1)
    printed = capsys.readouterr().out
    assert (tmp_path / "benchmark.md").read_text() in printed and printed.endswith(f"{tmp_path}\n")


def test_a_command_is_watched_to_its_end() -> None:
    script = "import sys, time; block = bytearray(1 << 27); time.sleep(0.3); print('said'); sys.exit(3)"
    done = watch([sys.executable, "-c", script])
    assert done.code == 3 and done.text == "said\n" and done.seconds > 0.3
    if done.peak_bytes is not None:  # Linux
        assert 1 << 27 < done.peak_bytes < 1 << 28 < (peak_bytes() or 0), "not what this process holds"


def test_a_whole_run_and_its_report_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called = []
    done = iter([Watched(0, "", 30.0, None), Watched(0, "", 4.0, None), Watched(1, "lines\nof a log", 1.0, None)])
    monkeypatch.setattr(stages, "watch", lambda command: (called.append(command), next(done))[1])
    assert stages.whole(["seed=3"], tmp_path) == {"run_s": 30.0, "report_s": 4.0}
    assert [Path(called[0][1]).name, called[1][3]] == ["run.py", "report"] and "seed=3" in called[0]
    with pytest.raises(InputError, match="failed; it ended: lines of a log"):
        stages.whole([], tmp_path)


def test_what_is_measured_survives_what_fails_after_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sides = {name: cryodrgn.Side([0.5], [1.0]) for name in ("cryodrgn", *cryodrgn.PRECISIONS)}
    sizes = iter([cryodrgn.Comparison(16, 24, sides, 1.0)])
    monkeypatch.setattr(cryodrgn, "compare", lambda *_: next(sizes))
    monkeypatch.setattr(cryodrgn, "matmul_peak_gflops", lambda *_: 100.0)
    with pytest.raises(StopIteration):
        cryodrgn.main.__wrapped__(["--box-px", "16", "32", "--no-stages", "--output", str(tmp_path)])
    (kept,) = json.loads((tmp_path / "benchmark.json").read_text())["comparisons"]
    assert kept["box_px"] == 16 and "| 16 | cryodrgn train_vae | 24.0 |" in (tmp_path / "benchmark.md").read_text()


def test_stages_are_a_column_for_each_particle_set() -> None:
    found = [Stages(32, 2000, {"umap_s": 1.234, "run_s": 812.3}), Stages(64, 400, {"umap_s": None, "run_s": 900.0})]
    shown = stages_table(found).splitlines()
    assert shown[0] == "| suite | D = 32, N = 2,000 | D = 64, N = 400 |"
    assert shown[2:] == ["| UMAP, s | 1.23 |  |", "| a whole run of one epoch, s | 812 | 900 |"]


def test_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cryodrgn.main(["--box-px", "15", "--output", str(tmp_path), f"paths.cache={tmp_path}"]) == 1
    error = capsys.readouterr().err.strip()
    assert "box_px" in error and "\n" not in error
    assert not list(tmp_path.glob("benchmark*"))
