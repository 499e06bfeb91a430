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

from lightning_modules.networks.native_library import library
from lightning_modules.networks.native_network import NativeNetwork, gradients_of

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
        network = NativeNetwork.of(x, slope, residual, parameters)
        network.keep(ctx)
        out = x.new_empty(len(x), len(parameters[-1]))
        _call("forward", network, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand out the gradients of the parameters."""
        network, _ = NativeNetwork.kept(ctx)
        gradients, pointers = gradients_of(network, [True] * (2 * len(network.weights)))
        _call("backward", network, grad.contiguous(), *pointers)
        return (None, None, None, *gradients)


def _call(what: str, network: NativeNetwork, given: Tensor, *pointers: Any) -> None:
    sizes = len(network.hidden[0]), len(network.weights), torch.get_num_threads()
    rows, n_layers, threads = map(ctypes.c_int64, sizes)
    array = ctypes.c_void_p(given.data_ptr())
    routine = getattr(library(), f"few_rows_{what}")
    routine(rows, n_layers, network.layers(), ctypes.c_float(network.slope), array, *pointers, threads)
