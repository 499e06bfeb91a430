"""What the encoder sees: the particle itself, or a twin that never changes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_modules.encoder_inputs.altered import RotatedInput, ShiftedInput
from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin, PermutedTwin, derangement
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particles import Particles, load_particles
from tests.small_models import SpyLatents, cryo_vae, particles_in, train

N, D = 40, 32
INDEX = torch.tensor([3, 17, 0, 39])
FORMATION = ImageFormation(D)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=N, box_px=D)


def show(encoder_input: EncoderInput, particles: Particles, index: Tensor = INDEX, seed: int = 0) -> Tensor:
    """What a freshly prepared input gives for particles that need no centring."""
    encoder_input.prepare(particles, FORMATION, seed)
    return encoder_input(particles.images[index], torch.zeros(len(index), 2), None, index)


def seen_by_encoder(encoder_input: EncoderInput, particles: Particles) -> tuple[Tensor, Tensor, Tensor]:
    """What reaches the encoder, what the loss compares with, and the CTF, for the particles INDEX."""
    spy = SpyLatents()
    model = cryo_vae(particles, encoder_input, spy)
    observed = model.observe(INDEX)
    model.infer(observed)
    return spy.seen, observed.y, observed.ctf


def centred(particles: Particles, images: Tensor) -> Tensor:
    return FORMATION.centre(images, particles.shifts_px[INDEX])


def test_no_particle_is_its_own_twin_and_none_is_shared() -> None:
    for n in range(2, 201):
        for seed in range(10):
            order = derangement(n, seed)
            assert (order != np.arange(n)).all()
            assert np.array_equal(np.sort(order), np.arange(n))


def test_derangements_are_all_equally_likely() -> None:
    drawn = [tuple(derangement(4, seed)) for seed in range(2700)]
    counts = np.unique(drawn, axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert ((counts - 300) ** 2 / 300).sum() < 26  # chi-squared, 8 degrees of freedom, p = 0.001


def test_twins_need_not_be_mutual() -> None:
    order = derangement(100, 0)
    assert (order[order] != np.arange(100)).any()


def test_one_particle_has_no_twin(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"1 particle was found, expected at least 2"):
        show(PermutedTwin(), particles_in(tmp_path, n=5, n_particles=1), torch.tensor([0]))


@pytest.mark.parametrize("kind", [PermutedTwin, NoiseTwin])
def test_twins_are_a_function_of_the_seed(kind: type, particles: Particles) -> None:
    everyone = torch.arange(N)
    first, after_resuming, other = (show(kind(), particles, everyone, seed) for seed in (5, 5, 6))
    assert torch.equal(first, after_resuming)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("kind", [PermutedTwin, NoiseTwin])
def test_twins_are_the_same_in_every_epoch(kind: type, particles: Particles) -> None:
    model = cryo_vae(particles, kind())
    nobody = torch.zeros(N, 2)
    before = model.encoder_input(particles.images, nobody, None, torch.arange(N)).clone()
    seen: list[Tensor] = []
    forward = model.latents.forward
    model.latents.forward = lambda x, index: seen.append((index, x.clone())) or forward(x, index)
    train(model, max_epochs=3, batch_size=7)
    signs = FORMATION.ctf(particles.ctf_params).sign()
    assert sum(len(index) for index, _ in seen) == 3 * N
    for index, x in seen:
        assert torch.equal(x, before[index] * signs[index])
    assert torch.equal(model.encoder_input(particles.images, nobody, None, torch.arange(N)), before)


def test_permuted_twins_are_the_images_of_the_partners(particles: Particles) -> None:
    twin = PermutedTwin()
    x = show(twin, particles)
    assert torch.equal(x, particles.images[twin.partner[INDEX]])
    assert torch.equal(twin.partner, torch.from_numpy(derangement(N, 0)))


def test_encoder_sees_the_uncentred_twin_with_the_particles_own_ctf_sign(particles: Particles) -> None:
    twin = PermutedTwin()
    x, y, ctf = seen_by_encoder(twin, particles)
    assert torch.equal(ctf, FORMATION.ctf(particles.ctf_params[INDEX]))
    assert (ctf.sign() == -1).any() and (ctf.sign() == 1).any()
    assert torch.equal(x, particles.images[twin.partner[INDEX]] * ctf.sign())
    assert torch.equal(y, centred(particles, particles.images[INDEX]))


def test_encoder_sees_noise_with_the_particles_own_ctf_sign(particles: Particles) -> None:
    twin = NoiseTwin()
    x, y, ctf = seen_by_encoder(twin, particles)
    assert torch.equal(x, show(twin, particles) * ctf.sign())
    assert torch.equal(y, centred(particles, particles.images[INDEX]))


def test_encoder_sees_the_particle_itself_centred(particles: Particles) -> None:
    x, y, ctf = seen_by_encoder(IdentityInput(), particles)
    assert torch.equal(x, centred(particles, particles.images[INDEX]) * ctf.sign())
    assert torch.equal(y, centred(particles, particles.images[INDEX]))
    assert (y - particles.images[INDEX]).abs().max() > 0.1


def test_without_ctf_nothing_is_flipped(tmp_path: Path) -> None:
    particles = particles_in(tmp_path, n=N, box_px=D, ctf=None)
    x, y, ctf = seen_by_encoder(IdentityInput(), particles)
    assert ctf is None
    assert torch.equal(x, y)


def noise_images(particles: Particles) -> Tensor:
    """The (N, D, D) noise of the twins, in real space, before any preprocessing."""
    drawn: list[Tensor] = []
    spied = dataclasses.replace(particles)
    spied.preprocess = lambda raw: drawn.append(raw.clone()) or particles.preprocess(raw)
    show(NoiseTwin(), spied)
    return torch.cat(drawn)


@pytest.mark.parametrize("invert", [False, True], ids=["as_is", "inverted"])
def test_noise_has_the_mean_and_variance_of_the_raw_data(tmp_path: Path, invert: bool) -> None:
    particles = particles_in(tmp_path, n=N, box_px=D, invert=invert)
    raw = particles.raw(np.arange(N))
    noise = noise_images(particles)
    assert noise.shape == raw.shape
    standard_error = float(raw.std()) / np.sqrt(raw.numel())
    assert float(raw.mean()) > 2.9
    assert abs(float(noise.mean() - raw.mean())) < 5 * standard_error
    assert abs(float(noise.std() / raw.std()) - 1) < 5 / np.sqrt(2 * raw.numel())


def test_noise_is_gaussian_and_says_nothing_about_anything(particles: Particles) -> None:
    noise = noise_images(particles)
    noise = (noise - noise.mean()) / noise.std()
    n = noise.numel()
    assert abs(float((noise**4).mean()) - 3) < 5 * np.sqrt(96 / n)
    assert abs(float((noise[:, :, 1:] * noise[:, :, :-1]).mean())) < 5 / np.sqrt(n)
    between_twins = np.corrcoef(noise.reshape(N, -1)) - np.eye(N)
    assert np.abs(between_twins).max() < 5 / D
    raw = particles.raw(np.arange(N)).reshape(N, -1)
    assert abs(np.corrcoef(noise.ravel(), raw.ravel())[0, 1]) < 5 / np.sqrt(n)


def test_noise_is_preprocessed_as_any_image(particles: Particles) -> None:
    expected = particles.preprocess(noise_images(particles))
    actual = show(NoiseTwin(), particles, torch.arange(N))
    torch.testing.assert_close(actual, expected, rtol=2**-11, atol=1e-6)  # half precision


def test_every_particle_has_noise_of_its_own(particles: Particles) -> None:
    noise = show(NoiseTwin(), particles, torch.arange(N))
    assert len(torch.unique(noise, dim=0)) == N


def test_noise_of_a_particle_does_not_depend_on_how_many_there_are(particles: Particles) -> None:
    parts = {name: getattr(particles, name)[:7] for name in ("images", "rotations", "shifts_px", "ctf_params")}
    first = torch.arange(7)
    few = show(NoiseTwin(), dataclasses.replace(particles, **parts), first)
    assert torch.equal(few, show(NoiseTwin(), particles, first))


@pytest.mark.parametrize("twin", [PermutedTwin(), NoiseTwin()], ids=["permuted", "noise"])
def test_twins_are_centred_by_nobodys_shift_and_do_not_see_the_particle(
    twin: EncoderInput, particles: Particles
) -> None:
    x = show(twin, particles)
    other = twin(torch.zeros_like(x), torch.full((len(INDEX), 2), 4.0), None, INDEX)
    assert torch.equal(x, other)


def test_encode_shows_what_was_trained_on_until_told_otherwise(particles: Particles) -> None:
    model = cryo_vae(particles, PermutedTwin())
    twin = model.encode().mu
    model.see(IdentityInput())
    own = model.encode().mu
    assert not torch.equal(twin, own)
    assert torch.equal(own, cryo_vae(particles, IdentityInput()).encode().mu)


def test_images_are_the_same_bits_whether_kept_or_made_again(particles: Particles) -> None:
    on_disk = dataclasses.replace(particles, on_disk=True)
    for kind in (NoiseTwin, ShiftedInput, RotatedInput):
        kept, again = kind(), kind()
        kept.prepare(particles, FORMATION, seed=3)
        again.prepare(on_disk, FORMATION, seed=3)
        assert kept.images is not None and again.images is None
        like = particles.images[INDEX]
        assert torch.equal(kept.fixed(INDEX, like), again.fixed(INDEX, like))


def test_a_data_set_on_disk_has_no_second_copy_in_memory(tmp_path: Path) -> None:
    files = particles_in(tmp_path).files
    twins = []
    for residency in ("disk", "memory"):
        twin = NoiseTwin()
        twin.prepare(load_particles(files, residency, tmp_path / "cache"), ImageFormation(16), seed=0)
        twins.append(twin)
    assert twins[0].images is None and twins[1].images is not None
    assert torch.equal(*(twin.fixed(torch.tensor([2, 7]), torch.zeros(1)) for twin in twins))
