"""The order in which particles are seen: minibatches of indices, handed out many at a time.

A step at batch 8 takes a few milliseconds; a framework that is entered for every step would be the program. So
Lightning sees blocks, and knows nothing of where in a block training is. :class:`EpochProgress` does: with it in the
checkpoint, training continues after any minibatch.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from lightning_modules.errors import InputError


def generator_of(*key: int) -> torch.Generator:
    """Return a generator whose state is a function of the key alone: resuming needs no saved random state."""
    state = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


@dataclass
class EpochProgress:
    """How far training is in an epoch, and the losses on the way.

    Attributes:
        epoch: counted from 0.
        n_batches: minibatches of the epoch that are done.
        n_seen: particles in them.
        sums: of each loss over these particles.
    """

    epoch: int = 0
    n_batches: int = 0
    n_seen: int = 0
    sums: list[float] = field(default_factory=list)
    _not_summed: list[tuple[int, Tensor]] = field(default_factory=list)

    def add(self, n_particles: int, losses: Tensor) -> None:
        """Count a minibatch; its mean losses, (k,), stay on the device for now."""
        self.n_batches, self.n_seen = self.n_batches + 1, self.n_seen + n_particles
        self._not_summed.append((n_particles, losses))

    def means(self) -> list[float]:
        """Return the mean of each loss over the epoch's particles so far.

        Raises:
            InputError: one is no longer a number.
        """
        self._sum()
        return [total / self.n_seen for total in self.sums]

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps; losses that are no numbers never get into one."""
        self._sum()
        return {"epoch": self.epoch, "n_batches": self.n_batches, "n_seen": self.n_seen, "sums": list(self.sums)}

    def _sum(self) -> None:
        # One after the other, in double precision: the sums do not depend on when they were asked for.
        if self._not_summed:
            rows = torch.stack([losses for _, losses in self._not_summed]).tolist()
            for (n_particles, _), row in zip(self._not_summed, rows, strict=True):
                sums = self.sums or [0.0] * len(row)
                self.sums = [total + n_particles * loss for total, loss in zip(sums, row, strict=True)]
            self._not_summed.clear()
        for total in self.sums:
            if not math.isfinite(total):
                raise InputError(
                    f"the loss became {total} in epoch {self.epoch + 1}; the last good checkpoint is kept. "
                    "Lower lr (or table_lr), or use precision=float32"
                )


class MinibatchBlock:
    """Some consecutive minibatches of an epoch.

    A block always starts at the same minibatch, also when training continues inside it: what is computed once
    per block does not depend on interruptions.

    Attributes:
        epoch: counted from 0.
        seen: particles of the epoch that came before this block.
        batches: particle indices of each minibatch, (B,) int64; the last of an epoch may be shorter.
        n_done: so many of them were done before an interruption.
        is_last: no block of the epoch comes after it.
    """

    def __init__(
        self,
        so_far: EpochProgress,
        seen: int,
        batches: list[Tensor],
        n_done: int = 0,
        is_last: bool = False,
        after_minibatch: Callable[[], None] | None = None,
    ) -> None:
        """Set what it holds, and what is called after each minibatch."""
        self.epoch, self.seen, self.batches, self.n_done, self.is_last = so_far.epoch, seen, batches, n_done, is_last
        self.so_far, self._after_minibatch = so_far, after_minibatch

    @property
    def rest(self) -> list[Tensor]:
        """The minibatches that are to be done."""
        return self.batches[self.n_done :]

    def done(self, n_particles: int, losses: Tensor) -> None:
        """Say that a minibatch is done; checkpoints are written here, and an interruption is raised here.

        Args:
            n_particles: its size.
            losses: (k,) its mean losses, on any device.
        """
        self.so_far.add(n_particles, losses)
        if self._after_minibatch is not None:
            self._after_minibatch()


class EpochBlocks:
    """One epoch: every particle once, in an order that is a function of (seed, epoch)."""

    def __init__(
        self,
        n_particles: int,
        batch_size: int,
        batches_per_block: int,
        seed: int,
        epoch: int,
        so_far: EpochProgress | None = None,
        after_minibatch: Callable[[], None] | None = None,
    ) -> None:
        """Set the order; nothing is drawn before iteration.

        Args:
            n_particles: in all.
            batch_size: particles per minibatch.
            batches_per_block: minibatches per block.
            seed: of the order.
            epoch: counted from 0.
            so_far: what of this epoch is done already.
            after_minibatch: called when a minibatch is done.
        """
        self.n_particles, self.batch_size, self.batches_per_block = n_particles, batch_size, batches_per_block
        self.seed, self.epoch, self.after_minibatch = seed, epoch, after_minibatch
        self.so_far = so_far or EpochProgress(epoch)

    @property
    def n_batches(self) -> int:
        """Minibatches of the whole epoch."""
        return -(-self.n_particles // self.batch_size)

    @property
    def is_over(self) -> bool:
        """Whether every particle was seen."""
        return self.so_far.n_batches >= self.n_batches

    def __len__(self) -> int:
        """Return the number of blocks that are left."""
        return -(-self.n_batches // self.batches_per_block) - self.so_far.n_batches // self.batches_per_block

    def __iter__(self) -> Iterator[MinibatchBlock]:
        """Yield the blocks that are left, of the first one perhaps only a rest."""
        order = torch.randperm(self.n_particles, generator=generator_of(self.seed, 10, self.epoch))
        per_block, n_done = self.batches_per_block, self.so_far.n_batches % self.batches_per_block
        for first in range(self.so_far.n_batches - n_done, self.n_batches, per_block):
            of_block = order[first * self.batch_size : (first + per_block) * self.batch_size]
            yield MinibatchBlock(
                self.so_far,
                seen=first * self.batch_size,
                batches=list(of_block.split(self.batch_size)),
                n_done=n_done,
                is_last=first + per_block >= self.n_batches,
                after_minibatch=self.after_minibatch,
            )
            n_done = 0


class ParticleBlocks(pl.LightningDataModule):
    """Hands the epochs' blocks to Lightning. The particles themselves stay with the model.

    Attributes:
        blocks: of the epoch that training is in.
    """

    def __init__(
        self,
        n_particles: int,
        batch_size: int,
        seed: int,
        batches_per_block: int = 64,
        after_minibatch: Callable[[], None] | None = None,
    ) -> None:
        """Set what the order depends on, and what is called when a minibatch is done."""
        super().__init__()
        self.sizes = n_particles, batch_size, batches_per_block, seed
        self.after_minibatch = after_minibatch
        self._enter(EpochProgress())

    def train_dataloader(self) -> EpochBlocks:
        """Return what is to be done next: the rest of an epoch, or the one after it.

        The trainer must ask again for each epoch (reload_dataloaders_every_n_epochs=1).
        """
        if self.blocks.is_over:
            self._enter(EpochProgress(self.blocks.epoch + 1))
        return self.blocks

    def state_dict(self) -> dict[str, Any]:
        """Return where training is. After an epoch's last minibatch, that is before the next one's first."""
        so_far = self.blocks.so_far
        so_far.means()
        return (EpochProgress(so_far.epoch + 1) if self.blocks.is_over else so_far).state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from there."""
        self._enter(EpochProgress(**state_dict))

    def _enter(self, so_far: EpochProgress) -> None:
        self.blocks = EpochBlocks(*self.sizes, so_far.epoch, so_far, self.after_minibatch)
