"""How much an encoder can memorize, from finished runs."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from experiments.figures.capacity import capacity as draw
from experiments.report import capacity
from lightning_modules.errors import InputError
from tests.tiny import tiny

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    """Twins of two widths; a baseline for one number of particles, of the one width."""
    house = tmp_path_factory.mktemp("house")
    for width in (8, 16):
        tiny(house, "+exp=evil_twin_permuted", f"encoder.width={width}", "trainer.max_epochs=1")
    tiny(house, "encoder.width=8", "trainer.max_epochs=1")
    tiny(house, "+exp=evil_twin_permuted", "encoder.width=8", "trainer.max_epochs=1", "data.n_particles=12")
    tiny(house, "+exp=vlt_zero", "trainer.max_epochs=1")
    return house


def test_twins_are_collected_with_the_baseline_of_the_same_particles(house):
    from experiments.metrics.agreement import neighbourhood_overlap
    from experiments.runs.folders import find
    from experiments.runs.stored_results import read_latents

    few, narrow, wide = capacity.collect([house / "runs"])
    assert [(one.n_particles, one.width) for one in (few, narrow, wide)] == [(12, 8), (24, 8), (24, 16)]
    assert few.neighbourhood_overlap is None and few.class_accuracy_baseline is None
    baseline = next(run for run in find([house / "runs"]) if run.name == "baseline")
    for one in (narrow, wide):
        folder = Path(one.folder)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert one.class_accuracy == metrics["latents/knn_class_accuracy"]
        assert one.class_accuracy_baseline == baseline.metrics["latents/knn_class_accuracy"]
        mu = [read_latents(each).mu for each in (folder, baseline.folder)]
        assert one.neighbourhood_overlap == pytest.approx(neighbourhood_overlap(*mu, k=8))
        assert one.overlap_chance == pytest.approx(8 / 23)


def test_the_weights_are_those_of_the_encoder(house):
    from experiments.runs.building import model_of, particles_of
    from experiments.runs.run import Run

    for one in capacity.collect([house / "runs"]):
        run = Run.load(Path(one.folder))
        model = model_of(run.config, particles_of(run.config))
        assert one.encoder_weights == sum(parameter.numel() for parameter in model.latents.parameters())


def test_the_command_writes_a_table_and_a_figure(house, tmp_path, capsys):
    assert capacity.main([str(house / "runs"), "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-2:] == [str(tmp_path / "capacity.csv"), str(tmp_path / "capacity.png")]
    with (tmp_path / "capacity.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(printed) - 2 == 3
    assert rows[0]["neighbourhood_overlap"] == "" and float(rows[1]["neighbourhood_overlap"]) > 0
    assert (tmp_path / "capacity.png").stat().st_size > 10_000 and (tmp_path / "capacity.pdf").exists()


def test_without_twins_there_is_one_line_that_says_how_to_make_some(house, tmp_path, capsys):
    tables = next((house / "runs" / "simulated").glob("vlt_zero"))
    with pytest.raises(InputError, match=r"no finished run with permuted twins in it; .*sweep=capacity"):
        capacity.collect([tables])
    assert capacity.main([str(tmp_path)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def memorized(n_particles: int, weights: int, seed: int, **known) -> dict:
    unknown = dict.fromkeys(capacity.Memorized._fields)
    return {**unknown, "n_particles": n_particles, "encoder_weights": weights, "seed": seed, **known}


def test_lines_are_numbers_of_particles_and_seeds_share_a_point(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn: list[Figure] = []
    monkeypatch.setattr("experiments.figures.style.save", lambda fig, path: drawn.append(fig) or path)
    rows = [
        memorized(n, weights, seed, class_accuracy=0.1 * seed + weights / 1e4, class_chance=0.25)
        for n in (100, 1000) for weights in (1000, 5000) for seed in (0, 1)
    ]  # fmt: skip
    draw(rows, tmp_path / "capacity.png")
    (ax,) = drawn[0].axes
    twins = [line for line in ax.lines if line.get_marker() == "o"]
    assert len(twins) == 2
    assert np.allclose(twins[0].get_xdata(), [1000, 5000]) and np.allclose(twins[0].get_ydata(), [0.15, 0.55])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["100", "1,000"]


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "each"), [((), 9), (("encoder.width=8,1024", "data.n_particles=100"), 2)])
def test_the_sweep_is_twins_and_baselines_of_all_sizes_unless_the_command_line_says_others(overrides, each):
    """The table of runs says what there was to do; every run fails at once, for want of an epoch."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), "-m", "+sweep=capacity", "trainer.max_epochs=0", *overrides],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    runs = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("failed ")]
    assert len(runs) == 2 * each
    for experiment in ("evil_twin_permuted", "baseline"):
        assert sum(f"+exp={experiment} " in line for line in runs) == each
