"""The pictures: real PNGs of the stated size that show what they say, for few, many and collapsed latents."""

import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from experiments import figure_style
from experiments.figures import displaced_latents, latent_space, loss_curve

SIZE_PX = (750, 960)  # 5.0 x 6.4 inches at 150 dpi


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def map_xy(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((500, 2)) + 8 * rng.integers(3, size=(500, 1))


def log_rows(n: int) -> list[dict[str, str]]:
    return [
        {
            "epoch": str(e),
            "loss/total": str(0.5 + 0.4 * np.exp(-e / 6)),
            "loss/reconstruction": str(0.48 + 0.4 * np.exp(-e / 6)),
            "loss/kl": str(20 * (1 - np.exp(-e / 8))),
            "time/epoch_s": "1.5",
        }
        for e in range(n)
    ]


def pixels(path: Path) -> np.ndarray:
    """RGB (750, 960, 3) in [0, 1] of a PNG of the stated size that is not blank."""
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    image = imread(path)[..., :3]
    assert image.shape[:2] == SIZE_PX
    assert image.std() > 0.02
    return image


def count(image: np.ndarray, colour: str) -> int:
    return int((np.abs(image - to_rgb(colour)).max(axis=-1) < 0.03).sum())


def test_loss_curve_has_both_losses_and_the_kl(tmp_path):
    path = tmp_path / "figures" / "loss.png"
    assert loss_curve(log_rows(40), path) == path
    image = pixels(path)
    upper, lower = image[: SIZE_PX[0] // 2], image[2 * SIZE_PX[0] // 3 :]
    assert count(upper, figure_style.TOTAL) > 200
    assert count(upper, figure_style.RECONSTRUCTION) > 200
    assert count(lower, figure_style.KL) > 200
    assert count(lower, figure_style.TOTAL) == 0


def test_loss_curve_of_one_epoch_is_a_point(tmp_path):
    image = pixels(loss_curve(log_rows(1), tmp_path / "loss.png"))
    assert count(image, figure_style.TOTAL) > 20


def test_loss_curve_leaves_out_what_is_missing(tmp_path):
    gaps = [*log_rows(30), {"epoch": "30", "loss/total": "", "loss/kl": "nan"}, {"epoch": "31"}]
    with_gaps = pixels(loss_curve(gaps, tmp_path / "gaps.png"))
    np.testing.assert_array_equal(with_gaps, pixels(loss_curve(log_rows(30), tmp_path / "whole.png")))


def test_loss_curve_before_the_first_epoch(tmp_path):
    assert imread(loss_curve([], tmp_path / "loss.png")).shape[:2] == SIZE_PX


def test_first_particles_are_red_and_the_rest_is_not(map_xy, tmp_path):
    ten = count(pixels(latent_space(map_xy, tmp_path / "ten.png")), figure_style.ORIGINAL)
    three = count(pixels(latent_space(map_xy, tmp_path / "three.png", n_labelled=3)), figure_style.ORIGINAL)
    none = count(pixels(latent_space(map_xy, tmp_path / "none.png", n_labelled=0)), figure_style.ORIGINAL)
    assert ten > 2 * three > 100
    assert none == 0


def test_true_states_have_their_colours_in_the_legend(map_xy, rng, tmp_path):
    image = pixels(latent_space(map_xy, tmp_path / "state.png", labels=rng.integers(4, size=500)))
    for colour in figure_style.class_colours(4):
        assert count(image[:, -150:], colour) > 40


@pytest.mark.parametrize("n", [1, 4, 6, 10, 25])
def test_every_class_has_its_own_colour(n):
    assert len(set(figure_style.class_colours(n))) == n


def test_displaced_latents_are_red_green_and_joined_by_purple(map_xy, tmp_path):
    image = pixels(displaced_latents(map_xy, map_xy[::-1], tmp_path / "moved.png"))
    for colour in (figure_style.ORIGINAL, figure_style.ALTERED, figure_style.BETWEEN):
        assert count(image, colour) > 300
    still = pixels(displaced_latents(map_xy, map_xy, tmp_path / "still.png"))
    assert count(still, figure_style.BETWEEN) < 30


def test_originals_and_twins_differ_in_lightness_too():
    red, green = (
        np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)) for colour in (figure_style.ORIGINAL, figure_style.ALTERED)
    )
    assert green > 2 * red


@pytest.mark.parametrize("n", [1, 3, 50])
def test_collapsed_and_few_latents_are_drawn(n, tmp_path):
    same = np.zeros((n, 2))
    assert count(pixels(latent_space(same, tmp_path / "a.png", labels=np.arange(n) % 4)), figure_style.ORIGINAL) > 30
    assert count(pixels(displaced_latents(same, same, tmp_path / "b.png")), figure_style.ALTERED) > 30


def test_labels_do_not_cover_each_other_or_labelled_particles(map_xy):
    with figure_style.look():
        fig = figure_style.figure()
        ax = fig.subplots()
        ax.scatter(*map_xy.T)
        names = [str(i + 1) for i in range(10)]
        figure_style.label_points(ax, map_xy[:10], names, [figure_style.ORIGINAL] * 10)
        fig.draw_without_rendering()
        at = ax.transData.transform(map_xy[:10])
        # The text alone: an annotation's own extent takes in the line to its point.
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
        frame = ax.get_window_extent()
    assert [text.get_text() for text in ax.texts] == names
    for i, box in enumerate(boxes):
        assert not any(box.contains(x, y) for x, y in at)
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def test_drawing_is_reproducible_and_heeds_no_setting_of_the_user(map_xy, tmp_path):
    first = latent_space(map_xy, tmp_path / "first.png").read_bytes()
    with matplotlib.rc_context({"axes.facecolor": "black", "savefig.dpi": 40, "font.size": 30}):
        before = dict(matplotlib.rcParams)
        second = latent_space(map_xy, tmp_path / "second.png").read_bytes()
        assert dict(matplotlib.rcParams) == before
    assert second == first


def test_no_figure_goes_through_pyplot(tmp_path):
    code = (
        "import sys; from pathlib import Path; from experiments.figures import latent_space;"
        f"latent_space([[0, 1], [1, 0]], Path({str(tmp_path / 'a.png')!r}), labels=[0, 1]);"
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    root = Path(__file__).resolve().parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0


def test_nothing_half_written_stays(map_xy, tmp_path, monkeypatch):
    path = latent_space(map_xy, tmp_path / "latents.png")
    whole = path.read_bytes()

    def fails(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails)
    with pytest.raises(OSError, match="disk full"):
        latent_space(map_xy + 1, path)
    assert [p.name for p in tmp_path.iterdir()] == ["latents.png"]
    assert path.read_bytes() == whole


def test_as_many_particles_as_the_paper_has_take_seconds(rng, tmp_path):
    n = 131_899
    state = rng.integers(4, size=n)
    xy = rng.standard_normal((n, 2)) + 6 * np.column_stack([state % 2, state // 2])
    start = time.perf_counter()
    image = pixels(latent_space(xy, tmp_path / "many.png", labels=state, n_labelled=0))
    assert time.perf_counter() - start < 20
    # Dense is dark and sparse is light: the picture still has many shades of a state's colour.
    assert len(np.unique((image * 255).round().astype(int).reshape(-1, 3), axis=0)) > 200


def test_wrong_shapes_are_named(map_xy, tmp_path):
    with pytest.raises(ValueError, match=r"\(N, 2\), found shape \(500, 1\)"):
        latent_space(map_xy[:, :1], tmp_path / "a.png")
    with pytest.raises(ValueError, match="altered twin for each of 500"):
        displaced_latents(map_xy, map_xy[:3], tmp_path / "a.png")
    with pytest.raises(ValueError, match="one label for each of 500"):
        latent_space(map_xy, tmp_path / "a.png", labels=[1, 2])
    assert not list(tmp_path.iterdir())
