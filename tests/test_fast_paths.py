"""Fast ways of training are held against what seeds do, repetitions against themselves."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import fast_paths
from experiments.benchmarks.fast_paths import AGAIN, FASTEST_ON_CPU, PLAIN, THREADS, TOLERANCES, is_as_near, tolerance
from tests.tiny import SETTINGS

SEEDS = (0.50, 0.53)


@pytest.mark.parametrize(("fast", "holds"), [((0.52, 0.54), True), ((0.49, 0.50), True), ((0.55, 0.56), False)])
def test_a_fast_way_is_as_near_as_one_seed_is_to_another(fast: tuple[float, float], holds: bool) -> None:
    assert is_as_near("loss/total", SEEDS, fast) is holds


def test_seeds_that_agree_by_chance_ask_for_no_more_than_a_repetition_gives() -> None:
    assert is_as_near("latents/knn_class_accuracy", (0.7, 0.7), (0.66, 0.66))
    assert not is_as_near("latents/knn_class_accuracy", (0.7, 0.7), (0.64, 0.64))


def test_losses_may_differ_by_a_fraction_of_themselves_and_accuracies_by_so_much() -> None:
    assert tolerance("loss/kl", 20.0) == pytest.approx(1.0)
    assert tolerance("latents/knn_class_accuracy", 0.2) == 0.05
    assert set(TOLERANCES) == set(fast_paths.METRICS)


def test_what_is_too_far_is_said_and_is_the_exit_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    numbers = {PLAIN: SEEDS, "bfloat16": (0.6, 0.6), FASTEST_ON_CPU: SEEDS, AGAIN: SEEDS[:1], THREADS: (0.5001,)}
    found = {way: {"loss/total": list(values)} for way, values in numbers.items()}
    monkeypatch.setattr(fast_paths, "measure", lambda *_: found)
    assert fast_paths.main(["--exp", "vlt_zero", "--output", str(tmp_path)]) == 1
    row = (tmp_path / "fast_paths.md").read_text().splitlines()[-1]
    assert row == "| `vlt_zero` | loss/total | 0.5150, 0.0300 | +0.0850 (too far) | +0.0000 | same bits | +0.0001 |"


@pytest.mark.slow
def test_every_way_is_trained_once_and_a_repetition_has_the_same_bits(tmp_path: Path) -> None:
    settings = [each for each in SETTINGS if not each.startswith("precision")]
    asked = ["--exp", "vlt_zero", "--seeds", "0", "1", "--output", str(tmp_path), f"paths.cache={tmp_path}/cache"]
    fast_paths.main([*asked, *settings])
    found = json.loads((tmp_path / "fast_paths.json").read_text())["found"]["vlt_zero"]
    assert found[AGAIN]["loss/total"] == found[PLAIN]["loss/total"][:1]
    assert found["bfloat16"]["loss/total"] != found[PLAIN]["loss/total"]
    made = sorted(path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("metrics.json"))
    assert made.count("float32") == 2 and made.count("float32_again") == 1
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
    fast_paths.main([*asked, *settings])
    assert times == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("metrics.json")}
