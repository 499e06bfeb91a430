"""Forward mode through a residual MLP: how its outputs change with z, beside the outputs themselves."""

import torch
from torch import Tensor, nn

from lightning_modules.networks.residual_mlp import Parts


def mlp_and_tangents(network: nn.Module, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """Evaluate a network on (x, z), and its derivative with respect to z. Gives no gradients.

    With u_l = h_l W_l^T + b_l [+ h_l] and h_l+1 = f(u_l), the derivative in direction d is

        du_0 = column of W_0 that belongs to z_d [+ the unit vector],
        dh_l+1 = f'(u_l) du_l,  du_l = dh_l W_l^T [+ dh_l].

    Args:
        network: ``cryodrgn.models.ResidLinearMLP`` of ReLUs or leaky ReLUs.
        x: (B, n, inputs - zdim), in the type of the matrix products.
        z: (B, zdim).

    Returns:
        (B, n, outputs) and (B, zdim, n, outputs), both float32.
    """
    parts, n_x, dtype = Parts.of(network), x.shape[-1], x.dtype
    first, *others = parts.linear
    inputs = torch.cat([x, z[:, None].expand(-1, x.shape[1], -1).to(dtype)], dim=-1)
    u = _affine(first, inputs, parts.residual[0], first.bias)
    columns = first.weight[:, n_x:].t()
    if parts.residual[0]:
        columns = columns + torch.eye(len(first.weight), device=z.device)[n_x:]
    tangents = columns.to(dtype)[None, :, None].expand(len(z), -1, x.shape[1], -1)
    for layer, residual in zip(others, parts.residual[1:], strict=True):
        slope = torch.where(u > 0, 1.0, parts.slope).to(dtype)
        u = _affine(layer, u * slope, residual, layer.bias)
        tangents = _affine(layer, tangents * slope[:, None], residual, None)
    return u.float(), tangents.float()


def _affine(layer: nn.Linear, h: Tensor, residual: bool, bias: Tensor | None) -> Tensor:
    u = nn.functional.linear(h, layer.weight.to(h.dtype), None if bias is None else bias.to(h.dtype))
    return u + h if residual else u
