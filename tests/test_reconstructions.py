"""Images and reconstructions in real space are those that the loss compares."""

from pathlib import Path

import numpy as np
import torch

from experiments.tasks.particle_results import reconstruct, write_reconstructions
from tests.small_models import cryo_vae, particles_in


def test_their_difference_is_the_reconstruction_loss(tmp_path: Path):
    model = cryo_vae(particles_in(tmp_path, n=8))
    found = reconstruct(model, n=8)
    assert found.images.shape == found.reconstructions.shape == (8, 16, 16)
    observed = model.observe(torch.arange(8))
    mu, _ = model.infer(observed)
    with torch.no_grad():
        per_pixel = (model.render(observed, mu) - observed.y).square()
    # The transform keeps the sum of squares. Two pairs of pixels at the mask's rim are the same Nyquist frequency
    # twice, and count once in real space.
    rim = (model.formation.freqs.abs().amax(dim=1) > 0.499).float()
    once = per_pixel.sum(dim=1) - 0.5 * (per_pixel * rim).sum(dim=1)
    np.testing.assert_allclose(((found.images - found.reconstructions) ** 2).sum(axis=(1, 2)), once, rtol=0.02)


def test_images_are_the_particles_own_centred_and_windowed(tmp_path: Path):
    particles = particles_in(tmp_path, n=4)
    model = cryo_vae(particles)
    particles.shifts_px[:] = 0
    found = reconstruct(model, n=3)
    assert len(found.images) == 3
    raw = particles.raw(np.arange(3)).numpy()
    inner = (slice(None), slice(5, 11), slice(5, 11))
    sign = -1 if particles.files.invert else 1
    for image, original in zip(found.images[inner], sign * raw[inner], strict=True):
        assert np.corrcoef(image.ravel(), original.ravel())[0, 1] > 0.7


def test_fewer_particles_than_are_shown(tmp_path: Path):
    found = reconstruct(cryo_vae(particles_in(tmp_path, n=3)))
    assert len(found.images) == 3
    path = write_reconstructions(tmp_path / "r.npz", found)
    with np.load(path, allow_pickle=False) as stored:
        np.testing.assert_array_equal(stored["images"], found.images)
        np.testing.assert_array_equal(stored["reconstructions"], found.reconstructions)
