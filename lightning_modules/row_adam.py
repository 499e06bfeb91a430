"""SparseAdam for a table of which every step moves some rows, each once."""

from collections.abc import Callable
from typing import Any

import torch


class RowAdam(torch.optim.SparseAdam):
    """``torch.optim.SparseAdam`` without its search for rows that a gradient names twice.

    A minibatch names no particle twice. On a GPU the search sorts, counts, and lets the processor wait for the
    count in every step. The result is the same to the last bit.
    """

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; gradients are sparse, and name each row once."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and not table.grad.is_coalesced():
                    rows, values = table.grad._indices(), table.grad._values()
                    table.grad = torch.sparse_coo_tensor(
                        rows, values, table.shape, is_coalesced=True, check_invariants=False
                    )
        return super().step(closure)
