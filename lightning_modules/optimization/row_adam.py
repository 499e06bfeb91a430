"""SparseAdam for a table of which every step moves some rows, each once."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class RowAdam(torch.optim.SparseAdam):
    """``torch.optim.SparseAdam``, looking at the rows of a minibatch alone.

    A minibatch names no particle twice, so that nothing need be searched for and added up. On a GPU the search sorts,
    counts, and lets the processor wait for the count in every step. Steps are counted on the table's device, so that
    a step is the same operations every time. The results are the same to the last bit.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; gradients are sparse, and name each row once."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    rows, gradient = table.grad._indices()[0], table.grad._values()
                    _move(table, self._state_of(table), rows, gradient, group)

    def _state_of(self, table: Tensor) -> dict[str, Tensor]:
        state = self.state[table]
        if not state:
            state |= {"exp_avg": torch.zeros_like(table), "exp_avg_sq": torch.zeros_like(table)}
        # As SparseAdam leaves it, and as a checkpoint holds it, it may be a number, or on another device.
        count = state.get("step", 0)
        state["step"] = torch.as_tensor(count, dtype=dtype_of_steps(table.device), device=table.device)
        return state


def dtype_of_steps(device: torch.device) -> torch.dtype:
    """Return in what a device counts steps: Apple's GPUs have no float64, and float32 is exact up to 16 million."""
    return torch.float32 if device.type == "mps" else torch.float64


def _move(table: Tensor, state: dict[str, Tensor], rows: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
    """Move rows as ``torch.optim._functional.sparse_adam`` does."""
    (beta1, beta2), step = group["betas"], state["step"].add_(1)
    old, old_square = state["exp_avg"][rows], state["exp_avg_sq"][rows]
    change = gradient.sub(old).mul_(1 - beta1)
    change_of_square = gradient.pow(2).sub_(old_square).mul_(1 - beta2)
    mean, square = old.add_(change), old_square.add_(change_of_square)
    state["exp_avg"].index_copy_(0, rows, mean)
    state["exp_avg_sq"].index_copy_(0, rows, square)
    size = group["lr"] * (1 - beta2**step).sqrt() / (1 - beta1**step)
    table.index_add_(0, rows, mean.div(square.sqrt().add_(group["eps"])).mul_(-size))
