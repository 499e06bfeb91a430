"""The decoder in bfloat16 on a processor, by a routine in C++.

torch's operations go over memory once each. ``native/residual_mlp.cpp`` takes some rows through all layers while they
are in the cache. Where it cannot be had, or a network is not of its kind, torch's operations do the same.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lightning_modules.networks.native_library import library
from lightning_modules.networks.native_network import NativeNetwork, gradients_of

MOST_LAYERS, MOST_OUTPUTS = 64, 8


class _Slices(ctypes.Structure):
    """As in native/slices.h."""

    _fields_ = (
        ("n_points", ctypes.c_int64),
        ("n_frequencies", ctypes.c_int64),
        ("coords", ctypes.c_void_p),
        ("rotations", ctypes.c_void_p),
        ("frequencies", ctypes.c_void_p),
        ("sides", ctypes.c_void_p),
    )


def takes(
    dtype: torch.dtype,
    device: torch.device,
    weights: Sequence[Tensor],
    residual: Sequence[bool],
    wants_dx: bool = False,
) -> bool:
    """Return whether the routine evaluates a network: bfloat16 on a processor, and sizes that fill its registers.

    Args:
        dtype: of the products.
        device: of everything.
        weights: float32, of each layer, the first without the columns of z.
        residual: whether a layer adds what it is given.
        wants_dx: the gradient of what goes in is needed, too.
    """
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and 2 <= len(weights) <= MOST_LAYERS
        and all(weight.dtype == torch.float32 for weight in weights)
        and weights[0].shape[1] % (16 if wants_dx else 2) == 0
        and all(len(weight) % 16 == 0 for weight in weights[:-1])
        and len(weights[-1]) <= MOST_OUTPUTS
        and not residual[-1]
        and library() is not None
    )


class NativeMLP(torch.autograd.Function):
    """``residual_mlp._ResidualMLP`` in C++; its last layer, of few units, is in float32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, residual: tuple[bool, ...], *parameters: Tensor) -> Tensor:
        """Evaluate (rows, inputs) -> (rows, outputs); arguments as there."""
        network = NativeNetwork.of(x, slope, residual, parameters)
        network.keep(ctx)
        out = torch.empty(len(x), len(parameters[-1]))
        _call("forward", network, None, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand out the gradients of x (if asked for) and of the parameters."""
        dx = torch.empty_like(ctx.saved_tensors[0]) if ctx.needs_input_grad[0] else None
        return (dx, None, None, *_backward(ctx, grad, ctx.needs_input_grad[3:], dx))


class NativeSlices(torch.autograd.Function):
    """``decoder.SliceDecoder.evaluate`` at ``rotate(coords, rotations)``, in the Fourier domain, in C++."""

    @staticmethod
    def forward(
        ctx: Any,
        coords: Tensor,
        rotations: Tensor,
        frequencies: Tensor,
        slope: float,
        residual: tuple[bool, ...],
        *parameters: Tensor,
    ) -> Tensor:
        """Render slices.

        Args:
            ctx: torch's.
            coords: (M/2, 3) one half of the lattice.
            rotations: (B, 3, 3).
            frequencies: (F,) of the positional encoding, along each axis.
            slope: of the leaky ReLU.
            residual: of each layer.
            parameters: weight and bias of each layer, the first bias (B, width).

        Returns:
            (B, M).
        """
        n_rows = len(rotations) * len(coords)
        of_slices = [part.contiguous() for part in (coords, rotations, frequencies)]
        of_slices.append(torch.empty(n_rows))
        x = torch.empty(n_rows, 6 * len(frequencies), dtype=torch.bfloat16)
        network = NativeNetwork.of(x, slope, residual, parameters)
        network.keep(ctx, *of_slices)
        out = torch.empty(len(rotations), 2 * len(coords))
        _call("forward", network, of_slices, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand out the gradients of the parameters."""
        return (None, None, None, None, None, *_backward(ctx, grad, ctx.needs_input_grad[5:]))


def _backward(ctx: Any, grad: Tensor, wanted: Sequence[bool], dx: Tensor | None = None) -> list[Tensor | None]:
    network, of_slices = NativeNetwork.kept(ctx)
    gradients, (dw, db) = gradients_of(network, wanted)
    _call("backward", network, of_slices or None, grad.float().contiguous(), dw, db, dx)
    return gradients


def _call(what: str, network: NativeNetwork, of_slices: list[Tensor] | None, *arrays: Any) -> None:
    slices = None
    if of_slices is not None:
        sizes = len(of_slices[0]), len(of_slices[2])
        slices = ctypes.byref(_Slices(*sizes, *(part.data_ptr() for part in of_slices)))
    pointers = [ctypes.c_void_p(part.data_ptr()) if isinstance(part, Tensor) else part for part in arrays]
    sizes_of = len(network.hidden[0]), len(network.biases[0]), len(network.weights), torch.get_num_threads()
    rows, items, n_layers, threads = map(ctypes.c_int64, sizes_of)
    routine = getattr(library(), f"residual_mlp_{what}")
    routine(rows, items, n_layers, network.layers(), slices, ctypes.c_float(network.slope), *pointers, threads)
