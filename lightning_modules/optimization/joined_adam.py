"""Adam on all small parameters at once: one operation a step, not one call for every matrix and bias."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

# Elements of a matrix from which on a step is bound by memory, not by calls.
LARGE = 1 << 16
# Moments below this are nothing: even divided by Adam's epsilon of 1e-8, they change no weight. In so many steps they
# decay by a factor of 1e-3, which leaves them above float32's smallest normal number, 1e-38.
NOTHING, EVERY = 1e-34, 64


class JoinedAdam(torch.optim.Adam):
    """``torch.optim.Adam``, its small parameters laid end to end in one vector, and their gradients in another.

    The parameters stay what they are to the modules that own them: each becomes a view of its stretch. To be made
    after the module has been moved to its device, for a move would part them again. Large matrices stay by
    themselves: autograd hands them a gradient where it would have to add one to a vector's stretch, which reads and
    writes it twice more.

    Attributes:
        vector: (n,) float32, what Adam sees of the small ones.
        large: what it sees as it is.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        """Join the parameters; their values stay.

        Args:
            parameters: float32, on one device.
            lr: learning rate.
            weight_decay: as ``torch.optim.Adam`` has it.
        """
        everything = list(parameters)
        self.large = [part for part in everything if part.numel() >= LARGE]
        parts = [part for part in everything if part.numel() < LARGE]
        self.vector = nn.Parameter(torch.cat([part.detach().flatten() for part in parts]))
        self.gradient = self.vector.grad = torch.zeros_like(self.vector)
        sizes = [part.numel() for part in parts]
        for part, values in zip(parts, self.vector.detach().split(sizes), strict=True):
            part.data = values.view_as(part)
        self.stretches = [(part, g.view_as(part)) for part, g in zip(parts, self.gradient.split(sizes), strict=True)]
        super().__init__([self.vector, *self.large], lr=lr, weight_decay=weight_decay, fused=True)
        self.n_steps = 0

    def zero_grad(self, set_to_none: bool = False) -> None:
        """Zero the gradients, to be called before a backward pass, which adds to them.

        They are tied to the vector's anew: whoever sets them to None, as Lightning does at the start, unties them.
        """
        self.gradient.zero_()
        for part, gradient in self.stretches:
            part.grad = gradient
        for part in self.large:
            part.grad = None

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; on a processor, forget moments that have died away.

        A unit that is never active has no gradient. Its moments decay until float32 can hardly hold them, and a
        processor is slow with such numbers: after some thousand steps they take half of a step's time.
        """
        result = super().step(closure)
        self.n_steps += 1
        if self.n_steps % EVERY == 0 and self.vector.device.type == "cpu":
            for state in self.state.values():
                for name in ("exp_avg", "exp_avg_sq"):
                    state[name].copy_(torch.nn.functional.hardshrink(state[name], NOTHING))
        return result

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue, counting from the step that the state was saved after."""
        super().load_state_dict(state_dict)
        self.n_steps = max((int(state["step"]) for state in self.state.values()), default=0)
