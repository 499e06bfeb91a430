"""A network as the routines in C++ take it, and as it is kept for the backward pass."""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor


class Layer(ctypes.Structure):
    """As in native/layers.h."""

    _fields_ = (
        ("inputs", ctypes.c_int64),
        ("outputs", ctypes.c_int64),
        ("stride", ctypes.c_int64),
        ("residual", ctypes.c_bool),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("hidden", ctypes.c_void_p),
    )


class NativeNetwork(NamedTuple):
    """Weights and biases, and what each layer is given.

    Attributes:
        slope: of the leaky ReLU.
        residual: whether a layer adds what it is given.
        hidden: (rows, inputs) of each layer; the routines write all but the first.
        weights: (outputs, inputs) of each layer, float32; there may be gaps between their rows, and nowhere else.
        biases: (outputs,) of each layer, the first (items, outputs).
    """

    slope: float
    residual: tuple[bool, ...]
    hidden: Sequence[Tensor]
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, x: Tensor, slope: float, residual: tuple[bool, ...], parameters: Sequence[Tensor]) -> "NativeNetwork":
        """Lay out a network for x (rows, inputs); ``parameters`` are weight and bias of each layer."""
        weights = [weight if weight.stride(1) == 1 else weight.contiguous() for weight in parameters[::2]]
        biases = [bias.contiguous() for bias in parameters[1::2]]
        hidden = [x.contiguous(), *(x.new_empty(len(x), len(weight)) for weight in weights[:-1])]
        return cls(slope, residual, hidden, weights, biases)

    def keep(self, ctx: Any, *others: Tensor) -> None:
        """Keep it, and other tensors, for the backward pass."""
        ctx.slope, ctx.residual = self.slope, self.residual
        ctx.save_for_backward(*self.hidden, *self.weights, *self.biases, *others)

    @classmethod
    def kept(cls, ctx: Any) -> tuple["NativeNetwork", list[Tensor]]:
        """Return what was kept: the network, and the other tensors."""
        n, saved = len(ctx.residual), ctx.saved_tensors
        parts = (saved[i * n : (i + 1) * n] for i in range(3))
        return cls(ctx.slope, ctx.residual, *parts), list(saved[3 * n :])

    def layers(self) -> "ctypes.Array[Layer]":
        """Describe the layers to a routine."""
        each = zip(self.weights, self.biases, self.hidden, self.residual, strict=True)
        return (Layer * len(self.weights))(
            *(
                Layer(w.shape[1], len(w), w.stride(0), adds, w.data_ptr(), b.data_ptr(), h.data_ptr())
                for w, b, h, adds in each
            )
        )


def gradients_of(
    network: NativeNetwork, wanted: Sequence[bool]
) -> tuple[list[Tensor | None], list["ctypes.Array[ctypes.c_void_p]"]]:
    """Make room for gradients.

    Args:
        network: whose.
        wanted: which, of weight and bias of each layer in turn.

    Returns:
        The gradients, None where not wanted, in that order; pointers to those of the weights, and of the biases.
    """
    n = len(network.weights)
    parameters = [part for pair in zip(network.weights, network.biases, strict=True) for part in pair]
    gradients = [part.new_empty(part.shape) if wants else None for part, wants in zip(parameters, wanted, strict=True)]
    pointers = [None if part is None else part.data_ptr() for part in gradients]
    return gradients, [(ctypes.c_void_p * n)(*pointers[first::2]) for first in (0, 1)]
