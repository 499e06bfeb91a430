"""Every particle once per epoch, in an order that only the seed and the epoch decide."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from lightning_modules.elbo import kl_divergence
from lightning_modules.latents.table_init import ConstantLatents, RandomLatents
from lightning_modules.optimization.minibatches import EpochBlocks, ParticleBlocks, generator_of
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.small_models import cryo_vae, particles_in, train, trainer, weights

SIZES = [(1, 8), (7, 8), (8, 8), (9, 8), (100, 8), (101, 1), (64, 16)]


def order(blocks: EpochBlocks) -> np.ndarray:
    return torch.cat([index for block in blocks for index in block.batches]).numpy()


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=22)


@pytest.mark.parametrize("batches_per_block", [1, 3, 64])
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_every_particle_is_seen_once(n: int, batch_size: int, batches_per_block: int) -> None:
    blocks = EpochBlocks(n, batch_size, batches_per_block, seed=0, epoch=3)
    assert np.array_equal(np.sort(order(blocks)), np.arange(n))
    assert len(blocks) == len(list(blocks))


@pytest.mark.parametrize("batches_per_block", [1, 3, 64])
@pytest.mark.parametrize(("n", "batch_size"), SIZES)
def test_only_the_last_batch_is_short_and_it_is_kept(n: int, batch_size: int, batches_per_block: int) -> None:
    sizes = [len(index) for block in EpochBlocks(n, batch_size, batches_per_block, 0, 0) for index in block.batches]
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)
    assert sizes[-1] == n - batch_size * (len(sizes) - 1)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first, again = (order(EpochBlocks(1000, 8, 64, seed=1, epoch=2)) for _ in range(2))
    assert np.array_equal(first, again)
    for seed, epoch in ((1, 3), (2, 2), (2, 1)):
        other = order(EpochBlocks(1000, 8, 64, seed, epoch))
        assert (first == other).mean() < 0.02


def test_order_is_shuffled() -> None:
    found = order(EpochBlocks(1000, 8, 64, 0, 0))
    assert abs(np.corrcoef(found, np.arange(1000))[0, 1]) < 0.15


@pytest.mark.parametrize("batches_per_block", [1, 2, 7, 1000])
def test_block_boundaries_change_neither_order_nor_batches(batches_per_block: int) -> None:
    expected = [index.tolist() for block in EpochBlocks(101, 8, 64, 0, 0) for index in block.batches]
    found = [index.tolist() for block in EpochBlocks(101, 8, batches_per_block, 0, 0) for index in block.batches]
    assert found == expected


def test_blocks_know_what_came_before_them() -> None:
    seen = 0
    for block in EpochBlocks(101, 8, 3, seed=0, epoch=5):
        assert (block.epoch, block.seen) == (5, seen)
        seen += sum(map(len, block.batches))
    assert seen == 101


def test_generators_of_different_keys_differ_and_of_the_same_agree() -> None:
    def draw(*key: int) -> float:
        return float(torch.rand((), generator=generator_of(*key)))

    keys = [(seed, use, epoch, seen) for seed in range(4) for use in (10, 11) for epoch in range(4) for seen in (0, 8)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(3, 11, 2, 8) == draw(3, 11, 2, 8)


def test_every_epoch_of_a_training_has_its_own_order(particles: Particles) -> None:
    model = cryo_vae(particles)
    seen: list[torch.Tensor] = []
    model.latents.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].clone()))
    train(model, max_epochs=3, batch_size=8)
    epochs = torch.cat(seen).view(3, 22).numpy()
    assert [row.tolist() for row in epochs] == [order(EpochBlocks(22, 8, 64, 0, epoch)).tolist() for epoch in range(3)]


@pytest.mark.parametrize("batches_per_block", [1, 2, 64])
def test_reported_losses_are_means_over_particles(particles: Particles, batches_per_block: int) -> None:
    # 22 particles in batches of 4: a mean over batches would weigh the last two twice.
    model = cryo_vae(particles, init=RandomLatents(), frozen=True, lr=0.0)
    fitted = train(model, max_epochs=1, batch_size=4, batches_per_block=batches_per_block)
    losses = {key: float(value) for key, value in fitted.callback_metrics.items()}
    assert losses["loss/kl"] == pytest.approx(float(kl_divergence(*model.encode()).mean()), rel=1e-5)
    n_pixels = particles.images.shape[1]
    expected = losses["loss/reconstruction"] + losses["loss/kl"] / 4 / n_pixels
    assert losses["loss/total"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batches_per_block", [1, 2, 64])
def test_noise_in_z_is_drawn_anew_for_every_particle_and_epoch(particles: Particles, batches_per_block: int) -> None:
    # In the zero table every particle has the same mu = 0 and logvar = -8: what differs in z is eps.
    model = cryo_vae(particles, init=ConstantLatents(), frozen=True)
    seen: list[torch.Tensor] = []
    model.decoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1].detach().clone()))
    train(model, max_epochs=20, batch_size=4, batches_per_block=batches_per_block)
    eps = torch.cat(seen) / np.exp(-4)
    assert len(torch.unique(eps[:, 0])) == len(eps) == 20 * len(particles)
    assert abs(float(eps.mean())) < 5 / np.sqrt(eps.numel())
    assert abs(float(eps.var()) - 1) < 5 * np.sqrt(2 / eps.numel())


@pytest.mark.parametrize("kind", ["table", "encoder"])
def test_training_is_a_function_of_the_seed(particles: Particles, kind: str) -> None:
    def trained(seed: int) -> dict[str, np.ndarray]:
        model = cryo_vae(particles, init=RandomLatents() if kind == "table" else None, seed=seed)
        train(model)
        return weights(model)

    first, again, other = trained(0), trained(0), trained(1)
    assert all(np.array_equal(first[key], again[key]) for key in first)
    assert not all(np.array_equal(first[key], other[key]) for key in first)


class KeepSecondEpoch(pl.Callback):
    """Writes a checkpoint at the end of the second epoch, while training goes on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch == 1:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("kind", ["table", "encoder"])
def test_an_interrupted_training_continues_exactly(particles: Particles, kind: str, tmp_path: Path) -> None:
    def fresh() -> CryoVAE:
        return cryo_vae(particles, init=RandomLatents() if kind == "table" else None, lr=1e-3, table_lr=0.05)

    checkpoint = tmp_path / "last.ckpt"
    uninterrupted, resumed = fresh(), fresh()
    train(uninterrupted, max_epochs=4, callbacks=[KeepSecondEpoch(checkpoint)])
    half_way = torch.load(checkpoint, weights_only=True)["state_dict"]
    torch.manual_seed(99)
    trainer(4).fit(resumed, datamodule=ParticleBlocks(22, 4, 0), ckpt_path=checkpoint)
    expected, found = weights(uninterrupted), weights(resumed)
    assert all(np.array_equal(expected[key], found[key]) for key in expected)
    assert not all(np.array_equal(expected[key], value.numpy()) for key, value in half_way.items())
