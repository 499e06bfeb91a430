"""Several processes, one training: they share every minibatch, add up its gradient, and take the same step.

The minibatches, their noise and so the losses are those of one process; only the order of additions differs.
"""

from collections.abc import Callable, Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_modules.elbo import Elbo
from lightning_modules.optimization.step_inputs import StepInputs

LOOK_EVERY = 16  # minibatches; asking a GPU makes the processor wait for it


class SingleProcess:
    """One process: a minibatch is its own."""

    def __init__(self, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Set who knows whether to stop."""
        self.stop_requested = stop_requested

    @property
    def stops(self) -> bool:
        """Whether to stop before the next minibatch."""
        return self.stop_requested()

    def part(self, batch: Tensor) -> Tensor:
        """Return the rows of a minibatch that are this process's."""
        return batch

    def descend(
        self, elbo: Callable[..., Elbo], inputs: StepInputs, index: Tensor, optimizers: Sequence[torch.optim.Optimizer]
    ) -> Tensor:
        """Take a step down the gradient of a minibatch's loss.

        Args:
            elbo: computes the terms from the inputs, means over this process's part.
            inputs: this process's part of the minibatch.
            index: (B,) the whole minibatch.
            optimizers: of dense parameters, and ``SparseAdam`` of those that are trained row by row; all on one device.

        Returns:
            (3,) the terms of the whole minibatch, detached.
        """
        _forget_gradients(optimizers)
        terms = elbo(*inputs)
        terms.total.backward()
        for optimizer in optimizers:
            optimizer.step()
        return torch.stack(terms).detach()


class DataParallel(SingleProcess):
    """One of several processes of an initialized ``torch.distributed`` group.

    Every process has all particles, weights and optimizer states, and they stay equal bit for bit: each step adds
    up one vector, which holds the networks' gradients, those of the minibatch's table rows, the losses, and whether
    the first process was asked to stop.
    """

    def __init__(self, rank: int, size: int, stop_requested: Callable[[], bool] = lambda: False) -> None:
        """Set who this is.

        Args:
            rank: counted from 0.
            size: number of processes.
            stop_requested: asked in the first process.
        """
        super().__init__(stop_requested)
        self.rank, self.size = rank, size
        self._n_steps, self._stops = 0, False

    @property
    def stops(self) -> bool:
        """Whether to stop before the next minibatch; all processes say so after the same one."""
        return self._stops

    def part(self, batch: Tensor) -> Tensor:
        """Return the rows of a minibatch that are this process's; there may be none."""
        return batch.tensor_split(self.size)[self.rank]

    def descend(
        self, elbo: Callable[..., Elbo], inputs: StepInputs, index: Tensor, optimizers: Sequence[torch.optim.Optimizer]
    ) -> Tensor:
        """Take the step that one process would take; see :meth:`SingleProcess.descend`."""
        _forget_gradients(optimizers)
        device = optimizers[0].param_groups[0]["params"][0].device
        losses, part = torch.zeros(3, device=device), self.part(index)
        if len(part):
            terms, share = elbo(*inputs), len(part) / len(index)
            (share * terms.total).backward()
            losses = share * torch.stack(terms).detach()
        dense, tables = _parameters(optimizers)
        stop = torch.full((1,), float(self.rank == 0 and self.stop_requested()), device=device)
        gradients = [_gradient(parameter) for parameter in dense]
        parts = [*gradients, *(self._rows(table, index) for table in tables), losses, stop]
        joined = torch.cat([values.flatten() for values in parts])
        dist.all_reduce(joined)
        lengths = [values.numel() for values in parts]
        added = [values.view_as(like) for values, like in zip(joined.split(lengths), parts, strict=True)]
        for gradient, sums in zip(gradients, added, strict=False):
            gradient.copy_(sums)
        for table, sums in zip(tables, added[len(dense) :], strict=False):
            table.grad = torch.sparse_coo_tensor(index.to(device)[None], sums, table.shape, check_invariants=False)
        for optimizer in optimizers:
            optimizer.step()
        self._look(added[-1])
        return added[-2]

    def _rows(self, table: Tensor, index: Tensor) -> Tensor:
        """Return a table's gradient at the rows of the whole minibatch: (B, columns), zero but at the own ones."""
        rows, part = torch.zeros(len(index), table.shape[1], device=table.device), self.part(index)
        if len(part):
            first = sum(len(other) for other in index.tensor_split(self.size)[: self.rank])
            gradient = _gradient(table).coalesce()  # its rows ascend; each particle is seen once per epoch
            rows[first + part.argsort().to(table.device)] = gradient.values()
        return rows

    def _look(self, stop: Tensor) -> None:
        if self._n_steps % (1 if stop.device.type == "cpu" else LOOK_EVERY) == 0:
            self._stops = self._stops or bool(stop)
        self._n_steps += 1


def _forget_gradients(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    for optimizer in optimizers:
        optimizer.zero_grad()


def _parameters(optimizers: Sequence[torch.optim.Optimizer]) -> tuple[list[Tensor], list[Tensor]]:
    """Return the parameters with dense gradients, and those with sparse ones."""
    dense: list[Tensor] = []
    tables: list[Tensor] = []
    for optimizer in optimizers:
        kind = tables if isinstance(optimizer, torch.optim.SparseAdam) else dense
        kind += [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return dense, tables


def _gradient(parameter: Tensor) -> Tensor:
    """Return a parameter's gradient; zero where this process had no part of the minibatch."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad
