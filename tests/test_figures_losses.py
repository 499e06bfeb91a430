"""Losses and times in pictures: every curve is there, and named where it can be told from the others."""

from pathlib import Path

import matplotlib.axes
import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from experiments.figures import style
from experiments.figures.losses import _duration, _spread, epoch_times, loss_curve, loss_curves
from tests.pictures import count, pixels, size_px, where


def log_rows(n: int, scale: float = 1.0) -> list[dict[str, str]]:
    return [
        {
            "epoch": str(e + 1),
            "loss/total": str(scale * (0.5 + 0.4 * np.exp(-e / 6))),
            "loss/reconstruction": str(scale * (0.48 + 0.4 * np.exp(-e / 6))),
            "loss/kl": str(20 * scale * (1 - np.exp(-e / 8))),
            "time/epoch_s": str(scale * 1.5),
        }
        for e in range(n)
    ]


@pytest.fixture
def texts(monkeypatch) -> list[str]:
    """What is written on axes."""
    written, write = [], matplotlib.axes.Axes.text

    def text(self, x, y, s, **options):
        written.append(s)
        return write(self, x, y, s, **options)

    monkeypatch.setattr(matplotlib.axes.Axes, "text", text)
    return written


def test_loss_curve_has_both_losses_and_the_kl(tmp_path: Path):
    path = tmp_path / "figures" / "loss.png"
    assert loss_curve(log_rows(40), path, "baseline") == path
    image = pixels(path)
    height = len(image)
    assert image.shape[:2] == size_px(6.4, 5.0)
    upper, lower = image[: height // 2], image[2 * height // 3 :]
    assert count(upper, style.TOTAL) > 200
    assert count(upper, style.RECONSTRUCTION) > 200
    assert count(lower, style.KL) > 200
    assert count(lower, style.TOTAL) == 0


def test_loss_curve_of_one_epoch_is_a_point(tmp_path: Path):
    assert count(pixels(loss_curve(log_rows(1), tmp_path / "loss.png")), style.TOTAL) > 20


def test_loss_curve_leaves_out_what_is_missing(tmp_path: Path):
    gaps = [*log_rows(30), {"epoch": "30", "loss/total": "", "loss/kl": "nan"}, {"epoch": "31"}]
    with_gaps = pixels(loss_curve(gaps, tmp_path / "gaps.png"))
    np.testing.assert_array_equal(with_gaps, pixels(loss_curve(log_rows(30), tmp_path / "whole.png")))


def test_loss_curve_before_the_first_epoch(tmp_path: Path):
    assert pixels(loss_curve([], tmp_path / "loss.png")).shape[:2] == size_px(6.4, 5.0)


def test_loss_curves_name_every_run_once_in_each_panel_in_its_colour(tmp_path: Path, texts: list[str]):
    runs = [(f"run_{i}", log_rows(12, 1 + 0.02 * i)) for i in range(8)]
    image = pixels(loss_curves([*runs, ("run_0", log_rows(9))], tmp_path / "losses.png"))
    names = [f"run_{i}" for i in range(8)]
    assert sorted(text for text in texts if text.startswith("run")) == sorted(2 * names)
    for colour in style.line_colours(8):
        assert count(image, colour) > 150
    assert len(set(style.line_colours(8))) == 8


def test_loss_curves_of_more_runs_than_there_are_colours_and_of_a_run_without_an_epoch(tmp_path: Path):
    runs = [(f"run_{i}", log_rows(12, 1 + 0.02 * i)) for i in range(20)]
    twenty = pixels(loss_curves(runs, tmp_path / "losses.png"))
    few = pixels(loss_curves([("a", log_rows(3)), ("b", [])], tmp_path / "few.png"))
    assert len(twenty) > len(few)  # higher, so that the names fit


def test_names_keep_their_order_and_distance_and_stay_near():
    spread = _spread(np.array([0.5, 0.1, 0.51, 0.5]), 0.1)
    np.testing.assert_allclose(np.diff(np.sort(spread)), [0.3033333, 0.1, 0.1], atol=1e-6)
    assert spread[0] < spread[3] < spread[2]
    assert spread[[0, 2, 3]].mean() == pytest.approx(np.mean([0.5, 0.51, 0.5]))
    np.testing.assert_array_equal(_spread(np.array([0.9, 0.2]), 0.1), [0.9, 0.2])
    np.testing.assert_allclose(_spread(np.array([0.98, 0.99, 0.01, 0.0]), 0.1), [0.9, 1.0, 0.1, 0.0])


def test_epoch_times_show_the_median_of_each_name(tmp_path: Path, texts: list[str]):
    slow = [{"epoch": e, "time/epoch_s": t} for e, t in enumerate((100.0, 567.0, 600.0))]
    runs = [("quick", log_rows(4)), ("quick", log_rows(4)), ("slow", slow), ("amortization", [])]
    image = pixels(epoch_times(runs, tmp_path / "times.png", "Time"))
    assert texts == ["1.5 s", "9:27 min"]
    bar = 1 - 0.35 * (1 - np.array(to_rgb(style.TOTAL)))
    lengths = [line.sum() for line in where(image, to_hex(bar)) if line.sum()]
    assert max(lengths) / min(lengths) > 50  # 567 s and 1.5 s


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.123, "0.123 s"), (59.9, "59.9 s"), (59.99, "1:00 min"), (602, "10:02 min")]
)
def test_durations_are_written_as_in_the_papers_table(seconds: float, text: str):
    assert _duration(seconds) == text
