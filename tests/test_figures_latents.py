"""Pictures of latents show what they say, for few, many and collapsed latents, with and without volumes."""

import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import ConnectionPatch

from experiments.figures import style
from experiments.figures.latents import displaced_latents, latent_space, single_volume
from experiments.figures.scatter import DENSITY_FROM
from tests.pictures import count, disc, pixels, size_px, where

# Colours that nothing else in the figures has.
SIX = ("#ff00ff", "#00ffff", "#ffff00", "#00ff00", "#ff8888", "#8888ff")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


@pytest.fixture
def map_xy(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((500, 2)) + 8 * rng.integers(3, size=(500, 1))


@pytest.fixture
def leaders(monkeypatch) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Start and end, in px, of the lines from pictures to points of the last figure that was saved."""
    found = []

    def save(fig, path):
        fig.draw_without_rendering()
        for line in (artist for ax in fig.axes for artist in ax.patches if isinstance(artist, ConnectionPatch)):
            start = line.axesA.transAxes.transform(line.xy1)
            found.append((tuple(start), tuple(line.axesB.transData.transform(line.xy2))))
        return save_as_always(fig, path)

    save_as_always = style.save
    monkeypatch.setattr(style, "save", save)
    return found


def cross(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two segments (2, 2) cross."""

    def side(p, q, r) -> bool:
        return (q[0] - p[0]) * (r[1] - p[1]) > (q[1] - p[1]) * (r[0] - p[0])

    return side(*a, b[0]) != side(*a, b[1]) and side(*b, a[0]) != side(*b, a[1])


def test_first_particles_are_red_and_the_rest_is_not(map_xy, tmp_path):
    ten = count(pixels(latent_space(map_xy, tmp_path / "ten.png")), style.ORIGINAL)
    three = count(pixels(latent_space(map_xy, tmp_path / "three.png", n_labelled=3)), style.ORIGINAL)
    none = count(pixels(latent_space(map_xy, tmp_path / "none.png", n_labelled=0)), style.ORIGINAL)
    assert ten > 2 * three > 100
    assert none == 0


def test_volumes_of_the_first_particles_stand_around_the_map(map_xy, tmp_path):
    image = pixels(latent_space(map_xy, tmp_path / "a.png", "baseline", pictures=[disc(colour) for colour in SIX]))
    height, width = image.shape[:2]
    for colour in SIX:
        rows, columns = np.nonzero(where(image, colour))
        # Large: a disc fills its picture, which is more than a quarter of the height.
        assert np.ptp(rows) > 0.22 * height and np.ptp(columns) > 0.22 * height
        assert columns.max() < 0.25 * width or columns.min() > 0.75 * width


def test_lines_lead_from_each_volume_to_its_particle_and_do_not_cross(map_xy, leaders, tmp_path):
    latent_space(map_xy, tmp_path / "a.png", pictures=[disc(colour) for colour in SIX])
    starts, ends = np.array(leaders).swapaxes(0, 1)
    lines = np.array(leaders)
    assert len(lines) == 6
    assert len({tuple(start) for start in starts.round()}) == 6
    # The ends are those of the first six particles, in their order, up to the axes' scale.
    scale = (ends[1:] - ends[0]) / (map_xy[1:6] - map_xy[0])
    np.testing.assert_allclose(scale, scale[:1].repeat(5, axis=0), rtol=1e-6)
    assert not any(cross(a, b) for i, a in enumerate(lines) for b in lines[i + 1 :])


@pytest.mark.parametrize("n", [1, 2, 5])
def test_fewer_volumes_than_six(n, map_xy, leaders, tmp_path):
    image = pixels(latent_space(map_xy, tmp_path / "a.png", pictures=[disc(colour) for colour in SIX[:n]]))
    assert len(leaders) == n
    assert all(count(image, colour) > 5000 for colour in SIX[:n])


def test_volumes_keep_one_scale(map_xy, tmp_path):
    small, large = disc(SIX[0]), disc(SIX[1])
    small[: small.shape[0] // 2] = 0  # half a disc
    image = pixels(latent_space(map_xy, tmp_path / "a.png", pictures=[small, large]))
    widths = [np.ptp(np.nonzero(where(image, colour))[1]) for colour in SIX[:2]]
    assert widths[0] == pytest.approx(widths[1], rel=0.05)
    assert count(image, SIX[0]) == pytest.approx(count(image, SIX[1]) / 2, rel=0.1)


def test_a_volume_of_which_nothing_is_seen_is_an_empty_frame(map_xy, tmp_path):
    pixels(latent_space(map_xy, tmp_path / "a.png", pictures=[np.zeros((64, 64, 4), np.uint8)] * 6))


def test_true_states_have_their_colours_in_a_legend_below_the_points(map_xy, rng, tmp_path):
    image = pixels(latent_space(map_xy, tmp_path / "state.png", labels=rng.integers(4, size=500)))
    for colour in style.class_colours(4):
        assert count(image[-60:], colour) > 40


def test_a_hundred_states_have_a_scale(rng, tmp_path):
    states = np.arange(500) % 100
    image = pixels(latent_space(rng.standard_normal((500, 2)), tmp_path / "a.png", labels=states, n_labelled=0))
    bottom = image[-120:]
    assert len(np.unique((bottom * 255).astype(int).reshape(-1, 3), axis=0)) > 90


@pytest.mark.parametrize("n", [1, 4, 6, 10, 25])
def test_every_class_has_its_own_colour(n):
    assert len(set(style.class_colours(n))) == n


def test_displaced_latents_are_red_green_and_joined_by_purple(map_xy, tmp_path):
    image = pixels(displaced_latents(map_xy, map_xy[::-1], tmp_path / "moved.png"))
    for colour in (style.ORIGINAL, style.ALTERED, style.BETWEEN):
        assert count(image, colour) > 300
    still = displaced_latents(map_xy, map_xy, tmp_path / "still.png")
    # The legend has a purple line.
    assert count(pixels(still)[:-60], style.BETWEEN) < 30


def test_displaced_latents_stand_among_the_volumes_of_both(map_xy, leaders, tmp_path):
    path = tmp_path / "a.png"
    originals, altered = [disc(colour) for colour in SIX[:3]], [disc(colour) for colour in SIX[3:]]
    image = pixels(displaced_latents(map_xy, map_xy[::-1][:10], path, pictures=originals, pictures_altered=altered))
    assert len(leaders) == 3
    for before, after in zip(SIX[:3], SIX[3:], strict=True):
        (rows, columns), (rows_after, columns_after) = (np.nonzero(where(image, c)) for c in (before, after))
        assert rows.mean() == pytest.approx(rows_after.mean(), abs=3)  # side by side
        middle = image.shape[1] / 2
        # The original is nearer to the map: the line is its own.
        assert abs(columns.mean() - middle) < abs(columns_after.mean() - middle)
        assert len(rows) > 5000 and len(rows_after) > 5000


def test_altered_twins_outside_the_originals_are_not_cut_off(map_xy, tmp_path):
    far = map_xy[:10] + 100
    image = pixels(displaced_latents(map_xy, far, tmp_path / "far.png"))
    assert count(image[:-60], style.ALTERED) > 300


def test_originals_and_twins_differ_in_lightness_too():
    red, green = (np.dot((0.2126, 0.7152, 0.0722), to_rgb(colour)) for colour in (style.ORIGINAL, style.ALTERED))
    assert green > 2 * red


@pytest.mark.parametrize("n", [1, 3, 50])
def test_collapsed_and_few_latents_are_drawn(n, tmp_path):
    same = np.zeros((n, 2))
    assert count(pixels(latent_space(same, tmp_path / "a.png", labels=np.arange(n) % 4)), style.ORIGINAL) > 30
    assert count(pixels(displaced_latents(same, same, tmp_path / "b.png")), style.ALTERED) > 30


def test_the_single_volume_fills_its_figure(tmp_path):
    image = pixels(single_volume(disc(SIX[0]), tmp_path / "a.png", "vlt_zero_frozen"))
    assert where(image, SIX[0]).mean() > 0.4


def test_drawing_is_reproducible_and_heeds_no_setting_of_the_user(map_xy, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    latent_space(map_xy, first)
    with matplotlib.rc_context({"axes.facecolor": "black", "savefig.dpi": 40, "font.size": 30}):
        before = dict(matplotlib.rcParams)
        latent_space(map_xy, second)
        assert dict(matplotlib.rcParams) == before
    assert second.read_bytes() == first.read_bytes()
    assert second.with_suffix(".pdf").read_bytes() == first.with_suffix(".pdf").read_bytes()


def test_no_figure_goes_through_pyplot(tmp_path):
    code = (
        "import sys; from pathlib import Path; from experiments.figures.run_figures import latent_space;"
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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["latents.pdf", "latents.png"]
    assert path.read_bytes() == whole


def test_points_are_pixels_in_the_pdf_and_text_is_text(rng, tmp_path):
    n = DENSITY_FROM - 1
    pdf = latent_space(rng.standard_normal((n, 2)), tmp_path / "a.png", "a title").with_suffix(".pdf").read_bytes()
    assert pdf.count(b"/Subtype /Image") >= 1
    assert b"/FontFile2" in pdf


def test_as_many_particles_as_the_paper_has_take_seconds_and_show_their_density(rng, tmp_path):
    n = 131_899
    state = rng.integers(4, size=n)
    xy = rng.standard_normal((n, 2)) + 6 * np.column_stack([state % 2, state // 2])
    start = time.perf_counter()
    pictures = [disc(colour) for colour in SIX]
    image = pixels(latent_space(xy, tmp_path / "many.png", labels=state, n_labelled=0, pictures=pictures))
    assert time.perf_counter() - start < 60
    # Dense is dark and sparse is light: the picture still has many shades of a state's colour.
    assert len(np.unique((image * 255).round().astype(int).reshape(-1, 3), axis=0)) > 200


def test_a_density_shows_a_particle_that_is_alone(rng, tmp_path):
    xy = np.vstack([rng.standard_normal((DENSITY_FROM, 2)), [[30, 30]]])
    image = pixels(latent_space(xy, tmp_path / "a.png", n_labelled=0))
    corner = image[:200, -200:]
    assert (corner.min(axis=-1) < 0.9).sum() >= 4


def test_a_density_has_the_colour_of_the_states_that_it_mixes(rng, tmp_path):
    n = DENSITY_FROM
    xy = rng.uniform(size=(n, 2))
    image = pixels(latent_space(xy, tmp_path / "a.png", labels=(xy[:, 0] > 0.5).astype(int), n_labelled=0))
    left, right = (
        part[part.min(axis=-1) < 0.9].mean(axis=0) for part in (image[200:400, 200:400], image[200:400, 600:800])
    )
    blue, orange = (np.array(to_rgb(colour)) for colour in style.class_colours(2))
    assert np.linalg.norm(left - blue) < np.linalg.norm(left - orange)
    assert np.linalg.norm(right - orange) < np.linalg.norm(right - blue)


def test_sizes_are_stated_in_inches(map_xy, tmp_path):
    assert pixels(latent_space(map_xy, tmp_path / "a.png")).shape[:2] == size_px(6.4, 5.0)


def test_wrong_shapes_are_named(map_xy, tmp_path):
    with pytest.raises(ValueError, match=r"\(N, 2\), found shape \(500, 1\)"):
        latent_space(map_xy[:, :1], tmp_path / "a.png")
    with pytest.raises(ValueError, match="altered twin for each of 10"):
        displaced_latents(map_xy, map_xy[:3], tmp_path / "a.png")
    with pytest.raises(ValueError, match="one label for each of 500"):
        latent_space(map_xy, tmp_path / "a.png", labels=[1, 2])
    with pytest.raises(ValueError, match="3 volumes of 2 particles"):
        latent_space(map_xy[:2], tmp_path / "a.png", pictures=[disc(SIX[0])] * 3)
    with pytest.raises(ValueError, match="2 originals and 1 altered"):
        both = {"pictures": [disc(SIX[0])] * 2, "pictures_altered": [disc(SIX[0])]}
        displaced_latents(map_xy, map_xy, tmp_path / "a.png", **both)
    assert not list(tmp_path.iterdir())
