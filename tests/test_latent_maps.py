"""Latents on paper: which map is drawn when, that it is reproducible, and where altered latents go."""

import warnings
from pathlib import Path

import numpy as np
import pytest

from experiments.figures import latent_maps
from experiments.figures.latent_maps import LatentMap, differ, latent_map
from experiments.metrics.latents import drawn

N, ZDIM = 200, 8


@pytest.fixture(scope="module")
def state() -> np.ndarray:
    return np.random.default_rng(3).integers(3, size=N)


@pytest.fixture(scope="module")
def mu(state: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(4).standard_normal((N, ZDIM))
    return (20 * np.eye(3, ZDIM)[state] + noise).astype(np.float32)


@pytest.fixture(scope="module")
def umap_of_mu(mu: np.ndarray) -> LatentMap:
    return LatentMap(mu, seed=0)


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        yield


def nearest_centre(xy: np.ndarray, state: np.ndarray) -> np.ndarray:
    centres = np.array([xy[state == s].mean(0) for s in range(3)])
    return np.linalg.norm(xy[:, None] - centres, axis=-1).argmin(1)


def test_two_dimensional_latents_are_their_own_map(mu):
    xy, axis_labels = latent_map(mu[:, :2])
    np.testing.assert_array_equal(xy, mu[:, :2])
    assert axis_labels == ("z1", "z2")


def test_one_dimensional_latents_are_drawn_against_the_particle(mu):
    xy, axis_labels = latent_map(mu[:, :1])
    np.testing.assert_array_equal(xy, np.column_stack([np.arange(N), mu[:, 0]]))
    assert axis_labels == ("particle", "z")


def test_umap_keeps_clusters_apart(umap_of_mu, state):
    assert umap_of_mu.axis_labels == ("UMAP1", "UMAP2")
    assert umap_of_mu.xy.shape == (N, 2)
    np.testing.assert_array_equal(nearest_centre(umap_of_mu.xy, state), state)


def test_umap_has_the_settings_of_cryodrgn_analyze(mu, umap_of_mu):
    from cryodrgn.analysis import run_umap

    with pytest.warns(UserWarning, match="n_jobs"):
        theirs = run_umap(mu, random_state=0)
    np.testing.assert_array_equal(umap_of_mu.xy, theirs)


@pytest.mark.parametrize("zdim", [3, 8, 10, 33])
def test_distances_are_those_that_umap_would_take_one_by_one(zdim: int):
    from umap.distances import euclidean

    z, others = (np.random.default_rng(n).normal(size=(n, zdim)).astype(np.float32) for n in (30, 40))
    expected = np.array([[euclidean(one, other) for other in others] for one in z])
    np.testing.assert_allclose(latent_maps._distances(z, others), expected, rtol=2e-7)


def test_what_umap_compiles_is_kept_for_the_next_process(umap_of_mu):
    from umap.layouts import _nb_optimize_layout_euclidean_single_epoch as compiled

    assert compiled.stats.cache_path
    assert compiled.stats.cache_hits or compiled.stats.cache_misses


def test_where_nothing_can_be_kept_umap_is_compiled_again(monkeypatch):
    def refuse(_: object) -> None:
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr("numba.core.dispatcher.Dispatcher.enable_caching", refuse)
    assert latent_maps._umap.__wrapped__().UMAP


def test_altered_latents_are_placed_where_umap_itself_places_them(mu, umap_of_mu):
    from umap import UMAP

    moved = np.roll(mu, 1, axis=0)
    with pytest.warns(UserWarning, match="n_jobs"):
        theirs = UMAP(random_state=0).fit(mu).transform(moved)
    np.testing.assert_array_equal(umap_of_mu.transform(moved), theirs)


def test_of_very_many_latents_some_are_fitted_and_the_others_placed_among_them(mu, state, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(latent_maps, "_FITTED", N // 2)
    found, rows = LatentMap(mu, seed=0, cache=tmp_path / "map.npz"), drawn(N, N // 2, 0)
    np.testing.assert_array_equal(found.xy[rows], LatentMap(mu[rows], seed=0).xy)
    np.testing.assert_array_equal(nearest_centre(found.xy, state), state)
    moved = np.roll(mu, 1, axis=0)
    again = LatentMap(mu, seed=0, cache=tmp_path / "map.npz")
    np.testing.assert_array_equal(again.xy, found.xy)
    np.testing.assert_array_equal(again.transform(moved), found.transform(moved))


def test_one_seed_gives_one_map_and_another_seed_another(mu, umap_of_mu):
    np.testing.assert_array_equal(latent_map(mu, seed=0)[0], umap_of_mu.xy)
    assert not np.allclose(latent_map(mu, seed=1)[0], umap_of_mu.xy)


def test_unaltered_latents_stay_where_they_are_and_moved_ones_go_to_their_new_cluster(mu, umap_of_mu, state):
    altered = mu.copy()
    swapped = np.flatnonzero(state == 0)
    altered[swapped] += (20 * (np.eye(ZDIM)[1] - np.eye(ZDIM)[0])).astype(np.float32)
    xy = umap_of_mu.transform(altered)
    np.testing.assert_array_equal(xy[state != 0], umap_of_mu.xy[state != 0])
    to_centre = np.array([umap_of_mu.xy[state == s].mean(0) for s in range(3)])
    nearest = np.linalg.norm(xy[swapped, None] - to_centre, axis=-1).argmin(1)
    assert (nearest == 1).all()
    np.testing.assert_array_equal(umap_of_mu.transform(altered), xy)


@pytest.mark.parametrize("zdim", [1, 2])
def test_altered_latents_on_a_map_without_umap(mu, zdim):
    flat = LatentMap(mu[:, :zdim])
    np.testing.assert_allclose(flat.transform(mu[:, :zdim] + 1)[:, -1], mu[:, zdim - 1] + 1, rtol=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1])
def test_collapsed_latents_are_one_point(value):
    collapsed = LatentMap(np.full((50, ZDIM), value, dtype=np.float32))
    assert collapsed.axis_labels == ("PC1", "PC2")
    np.testing.assert_array_equal(collapsed.xy, 0.0)
    np.testing.assert_array_equal(collapsed.transform(np.full((50, ZDIM), value, dtype=np.float32)), 0.0)


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_few_particles_are_drawn_by_principal_components(mu, n):
    few = LatentMap(mu[:n])
    assert few.axis_labels == ("PC1", "PC2")
    between = np.linalg.norm(few.xy[:, None] - few.xy, axis=-1)
    assert (between <= np.linalg.norm(mu[:n, None] - mu[:n], axis=-1) + 1e-4).all()
    if n in (2, 3):  # three points span a plane: nothing is lost
        np.testing.assert_allclose(between, np.linalg.norm(mu[:n, None] - mu[:n], axis=-1), atol=1e-4)


@pytest.mark.parametrize("n", [10, 12, 16])
def test_fewer_particles_than_umap_has_neighbours(mu, n):
    small = LatentMap(mu[:n])
    assert small.axis_labels == ("UMAP1", "UMAP2")
    assert np.isfinite(small.xy).all()
    assert np.isfinite(small.transform(mu[:n] + 1)).all()


def test_many_copies_of_a_dozen_latents(mu):
    assert np.isfinite(latent_map(np.repeat(mu[:12], 20, axis=0))[0]).all()


def never(self, layout=None):
    pytest.fail("what had been kept was computed again")


def test_cache_is_used_for_the_same_latents_alone(mu, umap_of_mu, tmp_path: Path, monkeypatch):
    cache = tmp_path / "maps" / "umap.npz"
    first, axis_labels = latent_map(mu, seed=0, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(LatentMap, "_fit_umap", never)
        again, again_labels = latent_map(mu, seed=0, cache=cache)
    np.testing.assert_array_equal(again, first)
    assert again_labels == axis_labels
    np.testing.assert_array_equal(latent_map(mu + 1, seed=0, cache=cache)[0], latent_map(mu + 1, seed=0)[0])
    assert [path.name for path in cache.parent.iterdir()] == ["umap.npz"]


def test_altered_latents_after_the_cache_land_as_before(mu, umap_of_mu, tmp_path: Path):
    cache = tmp_path / "umap.npz"
    latent_map(mu, seed=0, cache=cache)
    np.testing.assert_array_equal(LatentMap(mu, 0, cache).transform(mu + 1), umap_of_mu.transform(mu + 1))


def test_altered_latents_are_kept_too(mu, umap_of_mu, tmp_path: Path, monkeypatch):
    cache = tmp_path / "umap.npz"
    first = LatentMap(mu, 0, cache).transform(mu[:10] + 1)
    with monkeypatch.context() as patch:
        patch.setattr(LatentMap, "_fit_umap", never)
        np.testing.assert_array_equal(LatentMap(mu, 0, cache).transform(mu[:10] + 1), first)
    other = LatentMap(mu, 0, cache).transform(mu[:10] + 2)
    np.testing.assert_array_equal(other, umap_of_mu.transform(mu[:10] + 2))


def test_the_cache_of_another_run_is_read_and_not_written(mu, umap_of_mu, tmp_path: Path, monkeypatch):
    theirs, ours = tmp_path / "theirs.npz", tmp_path / "ours.npz"
    latent_map(mu, seed=0, cache=theirs)
    before = theirs.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(LatentMap, "_fit_umap", never)
        found = LatentMap(mu, 0, ours, others=[tmp_path / "missing.npz", theirs])
        np.testing.assert_array_equal(found.xy, umap_of_mu.xy)
        np.testing.assert_array_equal(LatentMap(mu, 0, ours).xy, umap_of_mu.xy)
    LatentMap(mu + 1, 0, ours, others=[theirs])
    assert theirs.read_bytes() == before


def test_the_first_few_altered_latents_need_not_bring_the_others(mu, umap_of_mu):
    altered = mu.copy()
    altered[3] = mu[7]
    xy = umap_of_mu.transform(altered[:10])
    assert xy.shape == (10, 2)
    still = np.arange(10) != 3
    np.testing.assert_array_equal(xy[still], umap_of_mu.xy[:10][still])
    assert np.linalg.norm(xy[3] - umap_of_mu.xy[7]) < np.ptp(umap_of_mu.xy, axis=0).max() / 4


@pytest.mark.parametrize(("n", "expected"), [(2, True), (3, True), (4, False)])
def test_differ_counts_latents_beyond_rounding(mu, n, expected):
    three = np.repeat(mu[:3], 4, axis=0)
    three += 1e-9 * np.abs(mu).max() * np.random.default_rng(0).standard_normal(three.shape)
    assert differ(three, n) is expected
    assert not differ(np.zeros((5, 3)))


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_damaged_cache_is_replaced(mu, umap_of_mu, tmp_path: Path, content: bytes):
    cache = tmp_path / "umap.npz"
    cache.write_bytes(content)
    np.testing.assert_array_equal(latent_map(mu, seed=0, cache=cache)[0], umap_of_mu.xy)
    np.testing.assert_array_equal(latent_maps._read_cache(cache)["xy"], umap_of_mu.xy)


def test_wrong_latents_are_named(mu):
    with pytest.raises(ValueError, match=r"finite \(N, zdim\)"):
        latent_map(np.full((5, 3), np.nan))
    with pytest.raises(ValueError, match="with n <= 200"):
        LatentMap(mu[:, :2]).transform(np.vstack([mu, mu])[:, :2])
    with pytest.raises(ValueError, match=r"must be \(n, 2\)"):
        LatentMap(mu[:, :2]).transform(mu[:, :3])
