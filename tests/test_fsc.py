"""Comparing volumes, on cases whose answer is known, and beside cryoDRGN's own command."""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cryodrgn.commands_utils import fsc as command
from cryodrgn.mrcfile import write_mrc
from scipy.ndimage import gaussian_filter
from scipy.stats import ortho_group
from sklearn.metrics import auc
from torch import from_numpy

from experiments.metrics.fsc import (
    VolumeDiversity,
    correlation,
    fsc,
    fsc_auc,
    matched_fsc_auc,
    resolution_angstrom,
    spherical_mask,
    volume_diversity,
)
from lightning_modules.simulation.particles import SimulatedParticles

D = 24
MOST = (D / 2 - 1) / D


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def noise(rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((D, D, D)).astype(np.float32)


@pytest.fixture(scope="module")
def complexes() -> list[np.ndarray]:
    """True volumes of the four assembly states."""
    return [SimulatedParticles(box_px=D).true_volume(state, 0.2 * state) for state in range(4)]


def test_a_volume_correlates_fully_with_itself_at_any_scale(noise):
    frequency, curve = fsc(noise, 3.0 * noise)
    np.testing.assert_allclose(frequency, np.arange(D // 2) / D)
    np.testing.assert_allclose(curve, 1.0)
    assert fsc_auc(noise, 3.0 * noise) == pytest.approx(MOST)
    assert correlation(noise, 3.0 * noise + 5) == pytest.approx(1.0)


def test_the_sign_of_the_contrast_matters(noise):
    _, curve = fsc(noise, -noise)
    np.testing.assert_allclose(curve[1:], -1.0)
    assert fsc_auc(noise, -noise) == pytest.approx((4 - D / 2) / D)
    assert correlation(noise, -noise) == pytest.approx(-1.0)


def test_unrelated_volumes_have_the_floor(rng):
    pairs = [rng.standard_normal((2, D, D, D)) for _ in range(20)]
    areas = [fsc_auc(a, b) for a, b in pairs]
    assert np.mean(areas) == pytest.approx(1.5 / D, abs=0.01)
    assert np.mean([correlation(a, b) for a, b in pairs]) == pytest.approx(0.0, abs=0.01)


def test_fsc_equals_the_sum_over_all_coefficients_shell_by_shell(rng):
    a, b = rng.standard_normal((2, 8, 8, 8))
    fourier_a, fourier_b = np.fft.fftn(a), np.fft.fftn(b)
    k = np.fft.fftfreq(8) * 8
    radius = np.sqrt(k[:, None, None] ** 2 + k[:, None] ** 2 + k**2)
    for i, value in enumerate(fsc(a, b)[1][1:], start=1):
        shell = (radius >= i - 1) & (radius < i)
        common = np.vdot(fourier_a[shell], fourier_b[shell]).real
        power = np.linalg.norm(fourier_a[shell]) * np.linalg.norm(fourier_b[shell])
        assert value == pytest.approx(common / power)


def test_noise_of_known_variance_gives_the_expected_fsc(rng):
    """Two half maps of the same white signal at SNR 1: FSC = 1/2 in every shell."""
    size = 48
    signal, noise_a, noise_b = rng.standard_normal((3, size, size, size))
    _, curve = fsc(signal + noise_a, signal + noise_b)
    assert curve[6:].mean() == pytest.approx(0.5, abs=0.01)


def test_a_common_shift_and_turn_change_nothing(noise, rng):
    other = noise + rng.standard_normal(noise.shape)
    turned = [np.rot90(np.roll(v, 3, axis=0), axes=(1, 2)) for v in (noise, other)]
    np.testing.assert_allclose(fsc(*turned)[1], fsc(noise, other)[1], atol=1e-12)


def test_low_pass_filtering_one_volume_does_not_lower_the_curve_but_noise_does(complexes, rng):
    """FSC compares shell by shell: a filter that only scales a shell leaves it alone."""
    volume = complexes[3]
    blurred = gaussian_filter(volume.astype(np.float64), 1.0, mode="wrap")
    assert fsc_auc(volume, blurred) == pytest.approx(MOST, abs=0.01)
    assert fsc_auc(volume, volume + volume.std() * rng.standard_normal(volume.shape)) < 0.8 * MOST


def test_true_volumes_of_unlike_states_are_between_equal_and_unrelated(complexes):
    areas = [fsc_auc(complexes[0], other) for other in complexes]
    assert areas[0] == pytest.approx(MOST)
    assert all(1.5 / D < area < 0.95 * MOST for area in areas[1:])


def test_a_shell_without_power_has_nothing_in_common():
    x = np.arange(D)
    wave = np.broadcast_to(np.cos(2 * np.pi * 4 * x / D), (D, D, D))
    _, curve = fsc(wave, wave + np.cos(2 * np.pi * 6 * x / D))
    assert curve[5] == pytest.approx(1.0)
    assert curve[7] == pytest.approx(0.0, abs=1e-6)


def test_constant_volumes_have_no_numbers(noise):
    constant = np.full_like(noise, 0.1)
    found = [
        fsc_auc(noise, constant),
        correlation(noise, constant),
        matched_fsc_auc([constant], [noise]),
        matched_fsc_auc([], []),
        volume_diversity([constant, constant, noise]),
    ]
    assert set(json.loads(json.dumps(found, allow_nan=False))) == {None}


def test_matched_volumes_are_averaged_over_those_that_have_an_area(noise, rng):
    other = rng.standard_normal(noise.shape)
    expected = (MOST + fsc_auc(noise, other)) / 2
    constant = np.zeros_like(noise)
    assert matched_fsc_auc(iter([noise, noise, constant]), [noise, other, noise]) == pytest.approx(expected)
    with pytest.raises(ValueError, match="zip"):
        matched_fsc_auc([noise, noise], [noise])


def test_resolution_is_where_the_curve_first_falls_below_the_threshold():
    frequency = np.array([0.0, 0.1, 0.2, 0.3, 0.4])
    curve = np.array([1.0, 0.9, 0.5, 0.1, 0.6])
    assert resolution_angstrom(frequency, curve, 0.5, 2.0) == pytest.approx(2.0 / 0.2)
    assert resolution_angstrom(frequency, curve, 0.3, 2.0) == pytest.approx(2.0 / 0.25)
    assert resolution_angstrom(frequency, curve, 0.05, 2.0) is None


def test_diversity_is_the_mean_over_all_pairs(rng, noise):
    volumes = [noise + 0.5 * rng.standard_normal(noise.shape) for _ in range(5)]
    mask = spherical_mask(D)
    pairs = [1 - correlation(a, b, mask) for i, a in enumerate(volumes) for b in volumes[:i]]
    assert volume_diversity(iter(volumes), mask) == pytest.approx(np.mean(pairs))


def test_diversity_from_one_volume_to_unrelated_ones(noise, rng):
    assert volume_diversity([noise, 2 * noise + 1, noise]) == pytest.approx(0.0, abs=1e-12)
    assert volume_diversity(rng.standard_normal((8, D, D, D))) == pytest.approx(1.0, abs=0.02)
    assert volume_diversity([noise, -noise]) == pytest.approx(2.0)
    orthogonal = ortho_group.rvs(64, random_state=0)[:, :4].T
    centred = [row.reshape(4, 4, 4) for row in np.linalg.qr((orthogonal - orthogonal.mean(1, keepdims=True)).T)[0].T]
    assert volume_diversity(centred) == pytest.approx(1.0)
    assert VolumeDiversity().value is None


def test_more_unlike_conformations_are_more_diverse(complexes):
    data = SimulatedParticles(box_px=D)
    hinge_alone = [data.true_volume(3, angle) for angle in np.linspace(-1, 1, 4)]
    assert 0 < volume_diversity(hinge_alone) < volume_diversity(complexes) < 1


def test_spherical_mask_is_one_inside_zero_outside_and_falls_between():
    mask = spherical_mask(32)
    line = mask[16, 16, 16:]
    assert (line[:14] == 1).all()  # 0.85 * 16 = 13.6
    assert line[14] == pytest.approx(0.5 * (1 + np.cos(np.pi * (14 / 16 - 0.85) / 0.15)))
    assert mask[0, 0, 0] == 0 and mask[16, 16, 0] == 0
    assert (np.diff(line) <= 0).all()
    sharp = spherical_mask(32, radius=0.5, edge=0)
    assert set(np.unique(sharp)) == {0.0, 1.0} and sharp[16, 16, 24] == 1 and sharp[16, 16, 25] == 0


def test_a_mask_hides_what_is_outside(noise):
    mask = spherical_mask(D, radius=0.7, edge=0)
    spoilt = np.where(mask == 0, 100.0, noise)
    np.testing.assert_allclose(fsc(noise, spoilt, mask)[1][1:], 1.0)
    assert correlation(noise, spoilt, mask) == pytest.approx(1.0)
    assert correlation(noise, spoilt) < 0.1


def test_wrong_volumes_are_named(noise):
    with pytest.raises(ValueError, match=r"D even, found shape \(4, 4\)"):
        fsc(np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="must be alike"):
        correlation(noise, noise[:8, :8, :8])
    with pytest.raises(ValueError, match="mask must be like"):
        fsc(noise, noise, np.ones((4, 4, 4)))
    with pytest.raises(ValueError, match="not finite"):
        fsc_auc(noise, np.where(noise > 3, np.nan, noise))


@pytest.mark.parametrize("masked", [False, True], ids=["no mask", "soft sphere"])
def test_cryodrgn_utils_fsc_writes_the_same_curve(tmp_path: Path, complexes, rng, masked):
    a = complexes[3] + 0.02 * rng.standard_normal(complexes[3].shape).astype(np.float32)
    volumes = {"a": a, "b": complexes[1], "mask": spherical_mask(D).astype(np.float32)}
    for name, volume in volumes.items():
        write_mrc(str(tmp_path / f"{name}.mrc"), np.asarray(volume, dtype=np.float32), Apix=2.5)
    parser = argparse.ArgumentParser()
    command.add_args(parser)
    files = [str(tmp_path / name) for name in ("a.mrc", "b.mrc", "fsc.txt", "mask.mrc")]
    command.main(parser.parse_args([*files[:2], "-o", files[2], *(["--mask", files[3]] if masked else [])]))
    theirs = pd.read_csv(files[2], sep=" ")
    frequency, curve = fsc(a, complexes[1], volumes["mask"] if masked else None)
    np.testing.assert_allclose(frequency, theirs.pixres, atol=1e-7)
    np.testing.assert_allclose(curve, theirs.fsc, atol=1e-6)


def test_area_equals_cryobench_where_the_fsc_is_not_negative(complexes):
    theirs = command.get_fsc_curve(from_numpy(complexes[0]), from_numpy(complexes[2]))
    assert (theirs.fsc >= 0).all()
    assert fsc_auc(complexes[0], complexes[2]) == pytest.approx(auc(theirs.pixres, theirs.fsc.abs()), abs=1e-6)
