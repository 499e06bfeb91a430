"""The encoder's network on a minibatch in float32 on a processor, by a routine in C++.

Of a few rows, torch's products read a matrix at a third of the memory's speed, or less. ``native/few_rows.cpp`` reads
each once forward, and once backward for both gradients. Where it cannot be had, torch's operations do the same.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.native_library import library
from lightning_modules.native_mlp import layers_of

MOST_ROWS = 32  # torch is as fast from there on


def takes(rows: Tensor, parameters: Sequence[Tensor]) -> bool:
    """Return whether the routine evaluates a network on rows.

    Args:
        rows: (rows, inputs); their gradient is not handed out.
        parameters: weight and bias of each layer.
    """
    return (
        len(rows) <= MOST_ROWS
        and not rows.requires_grad
        and all(part.dtype == torch.float32 and part.device.type == "cpu" for part in (rows, *parameters))
        and len(parameters[1]) == 1  # one bias for all rows
        and library() is not None
    )


class NativeFewRows(torch.autograd.Function):
    """``residual_mlp._ResidualMLP`` in float32, in C++, for few rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, residual: tuple[bool, ...], *parameters: Tensor) -> Tensor:
        """Evaluate (rows, inputs) -> (rows, outputs); arguments as there."""
        weights = [weight if weight.stride(1) == 1 else weight.contiguous() for weight in parameters[::2]]
        biases = [bias.contiguous() for bias in parameters[1::2]]
        hidden = [x.contiguous(), *(x.new_empty(len(x), len(weight)) for weight in weights[:-1])]
        out = x.new_empty(len(x), len(weights[-1]))
        ctx.slope, ctx.residual = slope, residual
        ctx.save_for_backward(*hidden, *weights, *biases)
        _call("forward", slope, residual, hidden, weights, biases, ctypes.c_void_p(out.data_ptr()))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand out the gradients of the parameters."""
        n = len(ctx.residual)
        hidden, weights, biases = (ctx.saved_tensors[i * n : (i + 1) * n] for i in range(3))
        dw, db = ([part.new_empty(part.shape) for part in parts] for parts in (weights, biases))
        pointers = [(ctypes.c_void_p * n)(*(part.data_ptr() for part in parts)) for parts in (dw, db)]
        grad = grad.contiguous()
        given = ctypes.c_void_p(grad.data_ptr())
        _call("backward", ctx.slope, ctx.residual, hidden, weights, biases, given, *pointers)
        return (None, None, None, *(part for pair in zip(dw, db, strict=True) for part in pair))


def _call(
    what: str,
    slope: float,
    residual: Sequence[bool],
    hidden: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *arrays: Any,
) -> None:
    layers = layers_of(residual, hidden, weights, biases)
    rows, n_layers, threads = map(ctypes.c_int64, (len(hidden[0]), len(weights), torch.get_num_threads()))
    routine = getattr(library(), f"few_rows_{what}")
    routine(rows, n_layers, layers, ctypes.c_float(slope), *arrays, threads)
