"""cryoDRGN's residual MLP with its backward pass written out: the same values, fewer passes over memory.

A step of the paper's decoder is a handful of matrix products over all pixels of a batch. What lies between them
(residuals, biases, activations, casts) is bound by memory, and costs as much again when every one makes a new
array. Here the residual is the accumulator of the product, and the rest happens in place.
"""

import functools
import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.networks import native_few_rows, native_mlp

ACTIVATIONS = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def matmul_dtype(device: torch.device) -> torch.dtype:
    """Return the type of matrix products: autocast's where it is on, else float32."""
    on = torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else torch.float32


def residual_mlp(network: nn.Module, x: Tensor, z: Tensor | None = None) -> Tensor:
    """Evaluate a network on the rows of x, all joined by the same z within an item of the batch.

    Args:
        network: ``cryodrgn.models.ResidLinearMLP`` of ReLUs or leaky ReLUs.
        x: (B, n, inputs), or (B, n, inputs - zdim) when z is given; in the type of the matrix products.
        z: (B, zdim). It enters the first layer linearly, so its product is taken once per item, not per row.

    Returns:
        (B, n, outputs) float32. Equals the network on (x, z) concatenated.
    """
    network_parts = Parts.of(network)
    if z is not None and network_parts.residual[0]:  # cryoDRGN adds the input to the output where their sizes agree
        x, z = torch.cat([x, z[:, None].expand(-1, x.shape[1], -1).to(x.dtype)], dim=-1), None
    parameters = network_parts.joined(z, x.shape[-1])
    rows, slope, residual = x.flatten(0, 1), network_parts.slope, network_parts.residual
    y: Tensor = _way(rows, parameters, residual).apply(rows, slope, residual, *parameters)
    return y.view(*x.shape[:2], -1)


def _way(rows: Tensor, parameters: list[Tensor], residual: tuple[bool, ...]) -> type[torch.autograd.Function]:
    """Return what evaluates a network fastest here."""
    if native_mlp.takes(rows.dtype, rows.device, parameters[::2], residual, wants_dx=rows.requires_grad):
        return native_mlp.NativeMLP
    return native_few_rows.NativeFewRows if native_few_rows.takes(rows, parameters) else _ResidualMLP


class Parts(NamedTuple):
    """A ``cryodrgn.models.ResidLinearMLP`` of ReLUs or leaky ReLUs, taken apart.

    Attributes:
        linear: its layers.
        residual: whether a layer adds what it is given.
        slope: of the leaky ReLU; 0 is the ReLU.
    """

    linear: list[nn.Linear]
    residual: tuple[bool, ...]
    slope: float

    @classmethod
    def of(cls, network: nn.Module) -> "Parts":
        """Take a network apart."""
        layers = list(network.main)  # type: ignore[arg-type]
        linear = [getattr(layer, "linear", layer) for layer in layers[::2]]
        residual = tuple(hasattr(layer, "linear") for layer in layers[::2])
        return cls(linear, residual, getattr(layers[1], "negative_slope", 0.0))

    def weights(self, n_inputs: int) -> list[Tensor]:
        """Return the weight of each layer, of the first the columns of the ``n_inputs`` inputs that are not z."""
        first, *others = self.linear
        return [first.weight[:, :n_inputs], *(layer.weight for layer in others)]

    def joined(self, z: Tensor | None, n_inputs: int) -> list[Tensor]:
        """Return weight and bias of each layer, z (B, zdim) being part of the first bias: (B, width), or (1, width).

        The weights are those of :meth:`weights`.
        """
        biases = [self.linear[0].bias[None], *(layer.bias for layer in self.linear[1:])]
        if z is not None:
            with torch.autocast(z.device.type, enabled=False):
                biases[0] = biases[0] + z @ self.linear[0].weight[:, n_inputs:].t()
        return [part for pair in zip(self.weights(n_inputs), biases, strict=True) for part in pair]


def _affine(h: Tensor, weight: Tensor, bias: Tensor | None, residual: bool) -> Tensor:
    """Return h W^T [+ b] [+ h]; a bias of shape (B, outputs) holds for a B-th part of the rows each."""
    if residual and _is_cpu_bfloat16(h) and _cpu_fuses():
        joint_bias = None if bias is None else bias.flatten()
        return torch.ops.mkldnn._linear_pointwise.binary(h, h, weight, joint_bias, "add")
    biases = None if bias is None else bias.view(-1, 1, len(weight))
    if biases is not None and not residual and _is_cpu_bfloat16(h):  # where adding is slow: within the product
        parts, transposed = h.view(len(biases), -1, h.shape[1]), weight.t().expand(len(biases), -1, -1)
        return torch.baddbmm(biases, parts, transposed).flatten(0, 1)
    u = torch.addmm(h, h, weight.t()) if residual else torch.mm(h, weight.t())
    if biases is not None:
        u.view(len(biases), -1, u.shape[1]).add_(biases)
    return u


def _is_cpu_bfloat16(h: Tensor) -> bool:
    return h.dtype == torch.bfloat16 and h.device.type == "cpu"


def _activate(u: Tensor, slope: float) -> Tensor:
    """Return the leaky ReLU of u, in place.

    torch's ReLU turns bfloat16 into float32 and back. Read as integers, bfloat16 numbers below zero are those up to
    -128; above, up to -1, are NaNs with a sign, which stay NaNs. It takes a third of the time.
    """
    if slope:
        return nn.functional.leaky_relu_(u, slope)
    if not _is_cpu_bfloat16(u):
        return torch.relu_(u)
    nn.functional.threshold(u.view(torch.int16), -128, 0, inplace=True)
    return u


def _activate_backward(g: Tensor, h: Tensor, slope: float) -> Tensor:
    """Return the gradient with respect to u from that with respect to h = f(u), in place."""
    if _is_cpu_bfloat16(g) and not slope:
        bits = g.view(torch.int16)
        torch.ops.aten.threshold_backward.grad_input(bits, h.view(torch.int16), 0, grad_input=bits)
        return g
    return torch.ops.aten.leaky_relu_backward.grad_input(g, h, slope, True, grad_input=g)


def _sum_of_products(g: Tensor, h: Tensor) -> Tensor:
    """Return g^T h in float32.

    In bfloat16 on a CPU a second thread hardly helps the product with a transposed g. So each thread is given some of
    the rows, and the sums are added up.
    """
    parts = math.gcd(len(g), torch.get_num_threads()) if _is_cpu_bfloat16(g) else 1
    if parts == 1:
        return torch.mm(g.t(), h).float()
    g, h = g.view(parts, -1, g.shape[1]), h.view(parts, -1, h.shape[1])
    return torch.bmm(g.transpose(1, 2), h).sum(0, dtype=torch.float32)


@functools.cache
def _cpu_fuses() -> bool:
    """Return whether oneDNN adds bias and residual while it writes the product: what torch.compile calls, too."""
    try:
        torch.ops.mkldnn._linear_pointwise.binary  # noqa: B018
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    except (AttributeError, RuntimeError):
        return False


class _ResidualMLP(torch.autograd.Function):
    """h_l+1 = f(u_l), u_l = h_l W_l^T + b_l [+ h_l], l = 0 .. n, with no f after the last.

    f is the leaky ReLU of a given slope; slope 0 is the ReLU. With g_l the gradient of the loss with respect to
    u_l, the chain rule reads

        dW_l = g_l^T h_l,   db_l = sum of g_l over rows,   dh_l = g_l W_l [+ g_l],   g_l-1 = dh_l * f'(u_l-1).

    f'(u) is 1 where f(u) > 0 and the slope elsewhere, so the h_l are all that is kept. Products are of the type
    of x; the gradients handed out are float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, residual: tuple[bool, ...], *parameters: Tensor) -> Tensor:
        """Evaluate (rows, inputs) -> (rows, outputs).

        ``parameters`` are weight and bias of each layer. The first bias is (B, width): one for each B-th part
        of the rows.
        """
        weights = [weight.to(x.dtype) for weight in parameters[::2]]
        biases = [bias.to(x.dtype) for bias in parameters[1::2]]
        hidden = [x]
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            u = _affine(hidden[-1], weight, bias, residual[layer])
            hidden.append(_activate(u, slope) if layer + 1 < len(weights) else u)
        ctx.save_for_backward(*hidden[:-1], *weights)
        ctx.slope, ctx.residual, ctx.items = slope, residual, len(biases[0])
        return hidden[-1].float()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Hand out the gradients of x (if asked for) and of the parameters."""
        n_layers = len(ctx.residual)
        hidden, weights = ctx.saved_tensors[:n_layers], ctx.saved_tensors[n_layers:]
        g = grad.to(hidden[0].dtype)
        gradients: list[Tensor | None] = []
        for layer in reversed(range(n_layers)):
            h, weight = hidden[layer], weights[layer]
            wants_dw, wants_db = ctx.needs_input_grad[3 + 2 * layer : 5 + 2 * layer]
            items = 1 if layer else ctx.items
            db = g.view(items, -1, g.shape[1]).sum(1).float() if wants_db else None
            dw = _sum_of_products(g, h) if wants_dw else None
            gradients[:0] = [dw, db[0] if layer and db is not None else db]
            if layer or ctx.needs_input_grad[0]:
                dh = _affine(g, weight.t(), None, ctx.residual[layer])
            if layer:
                g = _activate_backward(dh, h, ctx.slope)
        return (dh if ctx.needs_input_grad[0] else None, None, None, *gradients)
