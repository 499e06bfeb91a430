"""q(z): a frozen table never moves, a trained one moves where it was looked at, in every precision."""

import numpy as np
import pytest
import torch

from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.latents.table_init import ConstantLatents, RandomLatents
from lightning_modules.optimization.minibatches import EpochBlocks
from lightning_modules.particles.digits import PlainImages
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.small_models import LAYERS, WIDTH, ZDIM, cryo_vae, particles_in, train, weights

PRECISIONS = pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
TABLE = "latents.table.weight"


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"))


def train_one_batch(model: CryoVAE) -> np.ndarray:
    """Take one step; return the particles that were in it."""
    (batch,) = next(iter(EpochBlocks(len(model.particles), 4, 1, model.seed, epoch=0))).batches
    train(model, max_epochs=1, batch_size=4, batches_per_block=1, limit_train_batches=1)
    return batch.numpy()


@PRECISIONS
@pytest.mark.parametrize("init", [RandomLatents(), ConstantLatents()], ids=["random", "zero"])
def test_a_frozen_table_is_bit_equal_after_training(
    particles: Particles, init: RandomLatents | ConstantLatents, bfloat16: bool
) -> None:
    model = cryo_vae(particles, init=init, frozen=True, bfloat16=bfloat16, lr=1e-2, weight_decay=0.1)
    before = weights(model)
    train(model, max_epochs=3)
    after = weights(model)
    assert before[TABLE].tobytes() == after.pop(TABLE).tobytes()
    assert any(not np.array_equal(before[key], value) for key, value in after.items())
    mu, logvar = model.encode()
    assert np.concatenate([mu, logvar], axis=1).tobytes() == before[TABLE].tobytes()


def test_z_is_sampled_from_a_frozen_table(particles: Particles) -> None:
    model = cryo_vae(particles, init=RandomLatents(), frozen=True)
    index = torch.arange(4)
    first, second, again = (
        model.elbo(model.observe(index), torch.randn(4, ZDIM, generator=torch.Generator().manual_seed(seed)), 1.0)
        for seed in (0, 1, 0)
    )
    assert first.reconstruction != second.reconstruction
    assert first.kl == second.kl
    assert first.reconstruction == again.reconstruction


@PRECISIONS
def test_a_step_moves_the_rows_of_its_batch_alone_by_about_table_lr(particles: Particles, bfloat16: bool) -> None:
    table_lr = 0.03
    model = cryo_vae(particles, init=RandomLatents(), bfloat16=bfloat16, table_lr=table_lr)
    before = weights(model)[TABLE]
    batch = train_one_batch(model)
    moved = np.abs(weights(model)[TABLE] - before)
    # Adam's first step is its learning rate, whatever the gradient.
    np.testing.assert_allclose(moved[batch], table_lr, rtol=0.05)
    others = np.setdiff1d(np.arange(len(particles)), batch)
    assert len(others) == len(particles) - 4
    assert not moved[others].any()


@PRECISIONS
def test_every_row_of_a_trained_table_moves_in_an_epoch(particles: Particles, bfloat16: bool) -> None:
    model = cryo_vae(particles, init=ConstantLatents(), bfloat16=bfloat16, table_lr=0.05)
    train(model, max_epochs=3)
    mu, logvar = model.encode()
    assert (mu.abs() > 0.01).any(dim=1).all()
    assert ((logvar + 8).abs() > 0.01).any(dim=1).all()
    assert len(np.unique(mu, axis=0)) == len(particles)


@PRECISIONS
def test_training_a_table_lowers_the_loss(particles: Particles, bfloat16: bool) -> None:
    model = cryo_vae(particles, init=RandomLatents(), bfloat16=bfloat16, table_lr=0.05, lr=1e-3)
    index, eps = torch.arange(len(particles)), torch.zeros(len(particles), ZDIM)
    before = model.elbo(model.observe(index), eps, 0.25).total.item()
    train(model, max_epochs=10)
    assert model.elbo(model.observe(index), eps, 0.25).total.item() < before - 0.01


@PRECISIONS
@pytest.mark.parametrize("kind", ["table", "encoder"])
def test_weights_and_optimizer_states_stay_float32(particles: Particles, kind: str, bfloat16: bool) -> None:
    model = cryo_vae(particles, init=RandomLatents() if kind == "table" else None, bfloat16=bfloat16)
    fitted = train(model, max_epochs=1)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert len(fitted.optimizers) == (2 if kind == "table" else 1)
    for optimizer in fitted.optimizers:
        averages = [state[name] for state in optimizer.state.values() for name in ("exp_avg", "exp_avg_sq")]
        assert averages and {average.dtype for average in averages} == {torch.float32}
    assert {part.dtype for part in model.encode()} == {torch.float32}
    assert {term.dtype for term in model.elbo(model.observe(torch.arange(3)), torch.zeros(3, ZDIM), 1.0)} == {
        torch.float32
    }


def test_bfloat16_is_near_float32(particles: Particles) -> None:
    index, eps = torch.arange(6), torch.randn(6, ZDIM)
    models = [cryo_vae(particles, bfloat16=bfloat16) for bfloat16 in (False, True)]
    exact, rounded = (model.elbo(model.observe(index), eps, 0.25) for model in models)
    assert exact.kl == rounded.kl  # the encoder is in float32 either way
    assert exact.reconstruction != rounded.reconstruction
    torch.testing.assert_close(rounded.total, exact.total, rtol=5e-3, atol=0)


def test_the_table_ignores_the_image_and_the_encoder_ignores_the_index(particles: Particles) -> None:
    n_pixels = particles.images.shape[1]
    table = cryo_vae(particles, init=RandomLatents()).latents
    encoder = cryo_vae(particles).latents
    x, other = torch.randn(2, 3, n_pixels)
    index, other_index = torch.tensor([0, 1, 2]), torch.tensor([5, 4, 3])
    assert torch.equal(table(x, index)[0], table(other, index)[0])
    assert not torch.equal(table(x, index)[0], table(x, other_index)[0])
    assert torch.equal(encoder(x, index)[0], encoder(x, other_index)[0])
    assert not torch.equal(encoder(x, index)[0], encoder(other, index)[0])


def test_the_encoder_has_the_layers_asked_for() -> None:
    encoder = AmortizedEncoder(PlainImages(100), n_particles=5, zdim=ZDIM, layers=LAYERS, width=WIDTH)
    shapes = [tuple(parameter.shape) for name, parameter in encoder.named_parameters() if name.endswith("weight")]
    assert shapes == [(WIDTH, 100), *[(WIDTH, WIDTH)] * LAYERS, (2 * ZDIM, WIDTH)]
