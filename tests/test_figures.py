"""Every figure of a run is drawn when it ends, and again from its folder alone."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from experiments.figures import run_figures, style
from experiments.figures.__main__ import main
from experiments.figures.latent_maps import LatentMap
from experiments.runs.layout import MAP
from experiments.runs.run import Run
from tests.pictures import count, pixels, size_px
from tests.tiny import tiny

ALWAYS = ["latent_space.png", "loss_curve.png", "reconstructions.png"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("figures")


@pytest.fixture(scope="module")
def baseline(folder: Path) -> Run:
    return tiny(folder, "+exp=baseline")


@pytest.fixture(scope="module")
def shifted(folder: Path, baseline: Run) -> Run:
    return tiny(folder, "+exp=shift_1px")


def drawn(run_folder: Path) -> list[str]:
    return sorted(path.name for path in (run_folder / "figures").glob("*.png"))


def moved(run: Run, folder: Path) -> Path:
    """A copy of a run's folder, without its figures, far from its particles and the other runs."""
    elsewhere = folder / "elsewhere"
    shutil.copytree(run.folder, elsewhere)
    shutil.rmtree(elsewhere / "figures")
    return elsewhere


def steel(image: np.ndarray) -> int:
    """How many pixels have the bluish grey of a volume."""
    red, _, blue = np.moveaxis(image, -1, 0)
    return int(((blue > red + 0.05) & (blue < red + 0.35) & (red > 0.2)).sum())


def test_a_finished_training_has_its_figures(baseline: Run):
    assert drawn(baseline.folder) == ALWAYS
    images = {name: pixels(baseline.folder / "figures" / name) for name in ALWAYS}
    assert steel(images["latent_space.png"][:, :260]) > 2000  # volumes left and right of the map
    assert steel(images["latent_space.png"][:, -260:]) > 2000


def test_an_amortization_test_has_its_figure_and_takes_the_map_of_its_source(baseline: Run, shifted: Run):
    assert drawn(shifted.folder) == ["displaced_latents.png"]
    image = pixels(shifted.folder / "figures" / "displaced_latents.png")
    assert steel(image[:, :450]) > 2000 and steel(image[:, -450:]) > 2000
    with np.load(baseline.folder / MAP) as theirs, np.load(shifted.folder / MAP) as ours:
        np.testing.assert_array_equal(ours["xy"], theirs["xy"])
        assert ours["xy_altered"].shape == (10, 2)


@pytest.mark.parametrize("which", ["baseline", "shifted"])
def test_figures_are_drawn_again_from_the_folder_alone(which: str, request, tmp_path: Path, monkeypatch, capsys):
    run = request.getfixturevalue(which)
    copy = moved(run, tmp_path)
    monkeypatch.setattr(LatentMap, "_fit_umap", lambda self, layout=None: pytest.fail("UMAP was computed again"))
    monkeypatch.chdir(tmp_path)
    assert main([str(copy)]) == 0
    assert sorted(capsys.readouterr().out.split()) == [str(copy / "figures" / name) for name in drawn(run.folder)]
    for name in drawn(run.folder):
        again, before = (pixels(folder / "figures" / name) for folder in (copy, run.folder))
        # Not to the last bit: how a shade is rounded may depend on where in memory a volume lies.
        assert np.abs(again - before).max() < 2.5 / 255, name


def test_latents_that_are_all_equal_have_one_volume(folder: Path):
    run = tiny(folder, "+exp=vlt_zero_frozen")
    image = pixels(run.folder / "figures" / "latent_space.png")
    assert image.shape[0] > image.shape[1]
    assert count(image, style.ORIGINAL) == 0  # no particle is numbered
    assert not (run.folder / MAP).exists()


def test_a_run_without_volumes_has_its_latents_all_the_same(baseline: Run, tmp_path: Path):
    copy = moved(baseline, tmp_path)
    shutil.rmtree(copy / "volumes")
    assert main([str(copy)]) == 0
    assert pixels(copy / "figures" / "latent_space.png").shape[:2] == size_px(6.4, 5.0)


def test_the_true_states_are_in_the_runs_latents(baseline: Run):
    with np.load(baseline.folder / "latents.npz") as latents:
        assert latents["state"].shape == latents["hinge_rad"].shape == (24,)


def test_several_runs_are_drawn_together_where_they_meet(baseline: Run, shifted: Run, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(run_figures, "draw", lambda run: [])
    assert main([str(baseline.folder), str(shifted.folder)]) == 0
    meeting = baseline.folder.parents[1] / "figures"
    assert sorted(path.name for path in meeting.glob("*.png")) == ["epoch_times.png", "loss_curves.png"]
    assert main([str(baseline.folder), str(shifted.folder), "--out", str(tmp_path / "here")]) == 0
    assert len(list((tmp_path / "here").glob("*.pdf"))) == 2


def test_a_folder_that_is_no_run_is_named_and_the_others_are_drawn(baseline: Run, tmp_path: Path, capsys):
    (tmp_path / "empty").mkdir()
    shutil.rmtree(baseline.folder / "figures")
    assert main([str(tmp_path / "empty"), str(baseline.folder)]) == 1
    said = capsys.readouterr()
    assert said.err.splitlines() == [f"{tmp_path / 'empty'}: not the folder of a run, there is no config.yaml in it"]
    assert drawn(baseline.folder) == ALWAYS


def test_an_unfinished_run_is_named(baseline: Run, tmp_path: Path, capsys):
    copy = moved(baseline, tmp_path)
    (copy / "metrics.json").unlink()
    assert main([str(copy)]) == 1
    assert capsys.readouterr().err.count("not finished") == 1
    assert not (copy / "figures").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("latents.npz", b""),
        ("latents.npz", None),
        ("reconstructions.npz", b"PK"),
        ("volumes/first_2.mrc", b"no volume"),
    ],
)
def test_a_damaged_file_is_named_with_the_cure(file: str, content: bytes | None, baseline: Run, tmp_path: Path, capsys):
    copy = moved(baseline, tmp_path)
    (copy / file).unlink()
    if content is not None:
        (copy / file).write_bytes(content)
    assert main([str(copy)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(copy / file) in error and "overwrite=true" in error
