"""The plain loop and the suite train the same thing, on the same images, and are timed alike."""

import json
from pathlib import Path

import pytest

from experiments.benchmarks import digits
from experiments.benchmarks.cryodrgn import Side
from experiments.benchmarks.digits import PLAIN, SUITE, Comparison, train_plainly
from experiments.configuration.compose import compose
from experiments.configuration.validation import check

SMALL = ("data.n_particles=400", "encoder.width=32", "decoder.width=32", "batch_size=32")


def test_the_fastest_epoch_but_the_first_counts() -> None:
    plain, suite = Side(), Side()
    plain.add([9.0, 8.0, 7.0], [0.1, 2.0, 1.0])
    suite.add([9.0, 8.0, 6.0], [0.1, 1.25, 3.0])
    found = Comparison("mnist_vae", "digits", 100, {PLAIN: plain, SUITE: suite})
    assert found.images_per_s(PLAIN) == 100 and found.ratio() == pytest.approx(0.8)
    assert "| mnist_vae | digits | suite | 80 | 0.80 | 9.0, 6.0 |" in digits.table([found])


@pytest.mark.parametrize("experiment", ["mnist_vae", "mnist_vlt"])
def test_both_sides_come_to_the_same_loss(experiment: str, tmp_path: Path) -> None:
    """They draw other weights, orders and noise; a wrong loss or rate on one side would be far off."""
    config = check(compose(f"+exp={experiment}", *SMALL, "trainer.max_epochs=8", "trainer.enable_progress_bar=false"))
    plain, seconds = train_plainly(config, tmp_path)
    suite, _ = digits.train_suite(config, tmp_path)
    assert len(plain) == len(suite) == len(seconds) == 8
    assert plain[0] == pytest.approx(suite[0], rel=0.05)
    assert plain[-1] == pytest.approx(suite[-1], rel=0.05)
    assert suite[-1] < 0.95 * suite[0]


def test_the_command_writes_what_it_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--epochs", "2", "--rounds", "1", "--output", str(tmp_path)]
    assert digits.main([*sizes, *SMALL]) == 0
    printed = capsys.readouterr().out
    assert (tmp_path / "digits.md").read_text() in printed and printed.endswith(f"{tmp_path}\n")
    found = json.loads((tmp_path / "digits.json").read_text())["comparisons"]
    assert [part["experiment"] for part in found] == ["mnist_vae", "mnist_vlt"]
    assert all(set(part["sides"]) == {PLAIN, SUITE} for part in found)


def test_a_failure_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert digits.main(["--output", str(tmp_path), "data.n_particles=5000"]) == 1
    error = capsys.readouterr().err.strip()
    assert "there are 1797 images" in error and "\n" not in error
