"""An encoder that is trained on turned and moved images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_modules.encoder_inputs.altered import ConsistentMetadata, RotatedInput
from lightning_modules.encoder_inputs.augmented import AugmentedInput
from lightning_modules.encoder_inputs.encoder_input import IdentityInput
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.digits import PlainImages
from lightning_modules.particles.particles import Particles
from tests.particle_sets import images
from tests.small_models import cryo_vae, particles_in, train, trainer

N, D = 40, 32
FORMATION = ImageFormation(D)
EVERYONE = torch.arange(N)


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=N, box_px=D, window=False)


def seen(particles: Particles, encoder_input, epoch: int | None, index: Tensor = EVERYONE, seed: int = 0) -> Tensor:
    """What the encoder sees in an epoch."""
    encoder_input.prepare(particles, FORMATION, seed)
    encoder_input.start_epoch(epoch)
    ctf = FORMATION.ctf(particles.ctf_params[index])
    return encoder_input(particles.images[index], particles.shifts_px[index], ctf, index)


def test_outside_of_training_it_is_the_image_itself(particles: Particles) -> None:
    expected = seen(particles, IdentityInput(), None)
    augmented = AugmentedInput()
    assert not torch.equal(seen(particles, augmented, 3), expected)
    augmented.start_epoch(None)
    ctf = FORMATION.ctf(particles.ctf_params)
    assert torch.equal(augmented(particles.images, particles.shifts_px, ctf, EVERYONE), expected)


def test_what_is_seen_is_a_function_of_seed_epoch_and_particle(particles: Particles) -> None:
    first = seen(particles, AugmentedInput(), 5)
    later = AugmentedInput()
    for epoch in (0, 4):
        seen(particles, later, epoch)
    assert torch.equal(seen(particles, later, 5), first)
    order = torch.randperm(N)[:17]
    torch.testing.assert_close(seen(particles, AugmentedInput(), 5, order), first[order])
    assert not torch.equal(seen(particles, AugmentedInput(), 6), first)
    assert not torch.equal(seen(particles, AugmentedInput(), 5, seed=1), first)


def test_turned_images_are_those_of_consistent_rotations(particles: Particles) -> None:
    augmented = AugmentedInput(max_shift_px=0)
    x = seen(particles, augmented, 0)
    assert set(augmented.quarter_turns.tolist()) == {0, 1, 2, 3}
    for turns in range(4):
        rotated = seen(particles, RotatedInput(90 * turns, ConsistentMetadata()), 0)
        these = augmented.quarter_turns == turns
        torch.testing.assert_close(x[these], rotated[these], rtol=0, atol=2e-4)


def test_moved_images_are_off_their_centre_by_what_was_drawn(particles: Particles) -> None:
    augmented = AugmentedInput(max_shift_px=3, turns=False)
    x = seen(particles, augmented, 0)
    moved = augmented.moved_px
    assert moved.abs().max() <= 3 and moved.abs().max() > 2.5 and abs(float(moved.mean())) < 5 * 3 / (3 * 2 * N) ** 0.5
    sign = FORMATION.ctf(particles.ctf_params).sign()
    centred = FORMATION.centre(particles.images, particles.shifts_px)
    torch.testing.assert_close(x, FORMATION.centre(centred, moved) * sign, rtol=0, atol=2e-4)


def test_turns_are_equally_likely_and_drawn_anew(tmp_path: Path) -> None:
    many = particles_in(tmp_path, n=N, box_px=D)
    augmented = AugmentedInput()
    augmented.prepare(many, FORMATION, 0)
    turns = []
    for epoch in range(100):
        augmented.start_epoch(epoch)
        turns.append(augmented.quarter_turns.clone())
    counts = torch.bincount(torch.cat(turns), minlength=4)
    assert ((counts - 1000.0).square() / 1000).sum() < 16.3  # chi-squared, 3 degrees of freedom, p = 0.001
    per_particle = torch.stack(turns).unique(dim=1).shape[1]
    assert per_particle == N  # no two particles turn alike


def test_nothing_drawn_is_the_identity(particles: Particles) -> None:
    expected = seen(particles, IdentityInput(), 0)
    assert torch.equal(seen(particles, AugmentedInput(max_shift_px=0, turns=False), 7), expected)


def test_a_resumed_training_sees_what_an_uninterrupted_one_sees(particles: Particles, tmp_path: Path) -> None:
    def seen_in(model) -> list[tuple[Tensor, Tensor]]:
        found: list[tuple[Tensor, Tensor]] = []
        forward = model.latents.forward
        model.latents.forward = lambda x, index: found.append((index, x.clone())) or forward(x, index)
        return found

    whole = cryo_vae(particles, AugmentedInput())
    expected = seen_in(whole)
    train(whole, max_epochs=3, batch_size=8)
    first = cryo_vae(particles, AugmentedInput())
    train(first, max_epochs=2, batch_size=8).save_checkpoint(tmp_path / "last.ckpt")
    resumed = cryo_vae(particles, AugmentedInput())
    actual = seen_in(resumed)
    from lightning_modules.optimization.minibatches import ParticleBlocks

    trainer(3).fit(resumed, datamodule=ParticleBlocks(N, 8, 0), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert len(actual) == 5 and len(expected) == 15
    for (ours, x), (theirs, y) in zip(actual, expected[10:], strict=True):
        assert torch.equal(ours, theirs) and torch.equal(x, y)
    epochs = [torch.cat([x for _, x in expected[i : i + 5]]).sort(dim=0).values for i in (0, 5)]
    assert not torch.allclose(*epochs)


def test_the_loss_compares_with_the_image_itself(particles: Particles) -> None:
    model = cryo_vae(particles, AugmentedInput())
    model.encoder_input.start_epoch(0)
    observed = model.observe(EVERYONE)
    assert torch.equal(observed.y, FORMATION.centre(particles.images, particles.shifts_px))
    assert not torch.equal(observed.x, seen(particles, IdentityInput(), None))


def test_pictures_have_no_poses_to_turn() -> None:
    with pytest.raises(InputError, match="pictures were found"):
        AugmentedInput().prepare(images(2, 8), PlainImages(64), 0)
