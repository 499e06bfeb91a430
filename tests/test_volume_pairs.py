"""How different the volumes of altered images are."""

import numpy as np
import pytest

from experiments.metrics.fsc import correlation, fsc_auc, spherical_mask
from experiments.volumes.comparison import compare, metrics_of
from experiments.volumes.decoder import VolumeDecoder
from tests.small_models import ZDIM, cryo_vae, particles_in

D = 16


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    return VolumeDecoder.of(cryo_vae(particles_in(tmp_path_factory.mktemp("particles"), box_px=D)))


def latents(n: int, seed: int) -> np.ndarray:
    return 3 * np.random.default_rng(seed).normal(size=(n, ZDIM))


def test_equal_latents_have_equal_volumes(decoder) -> None:
    z = latents(4, 0)
    pairs, others = compare(decoder, z, z)
    assert np.allclose(pairs.correlation, 1) and np.allclose(pairs.fsc_auc, (D / 2 - 1) / D)
    assert len(others.correlation) == 4 and (others.correlation < 0.999).all()


def test_each_pair_is_compared_with_its_own(decoder) -> None:
    z, altered = latents(3, 0), latents(3, 1)
    pairs, others = compare(decoder, z, altered)
    mask = spherical_mask(D)
    a, b = list(decoder.decode(z)), list(decoder.decode(altered))
    assert np.allclose(pairs.correlation, [correlation(x, y, mask) for x, y in zip(a, b, strict=True)], atol=1e-5)
    assert np.allclose(pairs.fsc_auc, [fsc_auc(x, y, mask) for x, y in zip(a, b, strict=True)], atol=1e-5)
    around = zip(a, [*a[1:], a[0]], strict=True)
    assert np.allclose(others.correlation, [correlation(x, y, mask) for x, y in around], atol=1e-5)
    metrics = metrics_of(pairs, others)
    assert metrics["amortization/volume_correlation"] == pytest.approx(pairs.correlation.mean())
    assert metrics["amortization/volume_fsc_auc_q10"] == pytest.approx(np.percentile(pairs.fsc_auc, 10))
    assert metrics["amortization/volume_correlation_of_others"] == pytest.approx(others.correlation.mean())


def test_of_few_particles_what_does_not_exist_is_none(decoder) -> None:
    for n, n_others in ((0, 0), (1, 0), (2, 1)):
        pairs, others = compare(decoder, latents(n, 0), latents(n, 1))
        assert (len(pairs.fsc_auc), len(others.fsc_auc)) == (n, n_others)
        metrics = metrics_of(pairs, others)
        assert (metrics["amortization/volume_correlation"] is None) == (n == 0)
        assert (metrics["amortization/volume_fsc_auc_of_others"] is None) == (n_others == 0)
