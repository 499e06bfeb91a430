"""Adam on all parameters at once: one operation a step, not one call for every matrix and bias."""

from collections.abc import Iterable

import torch
from torch import nn


class JoinedAdam(torch.optim.Adam):
    """``torch.optim.Adam``, its parameters laid end to end in one vector, and their gradients in another.

    The parameters stay what they are to the modules that own them: each becomes a view of its stretch. To be made
    after the module has been moved to its device, for a move would part them again.

    Attributes:
        vector: (n,) float32, what Adam sees.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        """Join the parameters; their values stay.

        Args:
            parameters: float32, on one device.
            lr: learning rate.
            weight_decay: as ``torch.optim.Adam`` has it.
        """
        parts = list(parameters)
        self.vector = nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
        self.gradient = self.vector.grad = torch.zeros_like(self.vector)
        sizes = [part.numel() for part in parts]
        for part, values in zip(parts, self.vector.detach().split(sizes), strict=True):
            part.data = values.view_as(part)
        self.stretches = [(part, g.view_as(part)) for part, g in zip(parts, self.gradient.split(sizes), strict=True)]
        super().__init__([self.vector], lr=lr, weight_decay=weight_decay, fused=True)

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zero the gradients, to be called before a backward pass, which adds to them.

        They are tied to the vector's anew: whoever sets them to None, as Lightning does at the start, unties them.
        """
        self.gradient.zero_()
        for part, gradient in self.stretches:
            part.grad = gradient
