"""The order in which particles are seen: minibatches of indices, handed out many at a time.

A step at batch 8 takes a few milliseconds; a framework that is entered for every step would be the program.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor


class Block(NamedTuple):
    """Some consecutive minibatches of an epoch.

    Attributes:
        epoch: counted from 0.
        seen: particles of the epoch that came before this block.
        batches: particle indices of each minibatch, (B,) int64; the last of an epoch may be shorter.
    """

    epoch: int
    seen: int
    batches: list[Tensor]


def generator_of(*key: int) -> torch.Generator:
    """Return a generator whose state is a function of the key alone: resuming needs no saved random state."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


class EpochBlocks:
    """One epoch: every particle once, in an order that is a function of (seed, epoch)."""

    def __init__(self, n_particles: int, batch_size: int, batches_per_block: int, seed: int, epoch: int) -> None:
        """Set the order; nothing is drawn before iteration."""
        self.n_particles, self.batch_size, self.batches_per_block = n_particles, batch_size, batches_per_block
        self.seed, self.epoch = seed, epoch

    def __len__(self) -> int:
        """Return the number of blocks."""
        n_batches = -(-self.n_particles // self.batch_size)
        return -(-n_batches // self.batches_per_block)

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks."""
        order = torch.randperm(self.n_particles, generator=generator_of(self.seed, 10, self.epoch))
        batches = order.split(self.batch_size)
        for first in range(0, len(batches), self.batches_per_block):
            yield Block(self.epoch, first * self.batch_size, list(batches[first : first + self.batches_per_block]))


class ParticleBlocks(pl.LightningDataModule):
    """Hands the epochs' blocks to Lightning. The particles themselves stay with the model."""

    def __init__(self, n_particles: int, batch_size: int, seed: int, batches_per_block: int = 64) -> None:
        """Set what the order depends on."""
        super().__init__()
        self.n_particles, self.batch_size, self.seed = n_particles, batch_size, seed
        self.batches_per_block = batches_per_block

    def train_dataloader(self) -> EpochBlocks:
        """Return the coming epoch; the trainer must ask again for each (reload_dataloaders_every_n_epochs=1)."""
        epoch = self.trainer.current_epoch if self.trainer else 0
        return EpochBlocks(self.n_particles, self.batch_size, self.batches_per_block, self.seed, epoch)
