"""q(z|x, pose, CTF): an encoder that is told what is known, by matched filters at the particle's pose."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import Latents
from lightning_modules.networks.residual_mlp import ACTIVATIONS, residual_mlp
from lightning_modules.networks.slice_decoder import rotate

PRODUCT_GAIN, NORM_GAIN = 30.0, 8.0


class MatchedFilter(Posterior):
    """(mu, logvar) = MLP(<p_1, x>, ..., <p_K, x>, |p_1|^2, ..., |p_K|^2).

    The template T_k is a volume on a grid of the Hartley domain, learned with the rest. Its projection p_k at the
    particle's pose R is the slice of T_k at R, times the CTF's absolute value; x is the centred, phase-flipped image.

    For white noise and volumes that are linear in z these numbers are sufficient statistics of z: nothing else in the
    image tells about it. Images of one state in other orientations give the same ones up to noise, so the network has
    no orientations to learn.

    Attributes:
        templates: (L^3, K), all templates side by side at the points of the grid, x varying slowest.
        encoder: ``cryodrgn.models.ResidLinearMLP``.
    """

    encodes = reads_pose = True
    coords: Tensor
    pixels: Tensor
    corners: Tensor

    def __init__(
        self,
        formation: ImageFormation,
        n_particles: int,
        zdim: int,
        n_templates: int,
        grid: int,
        radius: int,
        layers: int,
        width: int,
        activation: str = "relu",
        template_std: float = 0.03,
        seed: int = 0,
        source: Latents | None = None,
    ) -> None:
        """Build templates and network.

        Args:
            formation: what an image is.
            n_particles: not used: the rule is the same for all particles.
            zdim: size of z.
            n_templates: K.
            grid: L, points along each axis of a template, odd. Neighbours are 2 ``radius`` / (L - 1) apart, in units
                of one period per box: templates are particles of at most (L - 1) / (2 ``radius``) of the box.
            radius: highest frequency that is compared, in periods per box; at most D/2.
            layers: hidden layers of the network.
            width: units of a hidden layer.
            activation: "relu" or "leaky_relu".
            template_std: standard deviation of the random templates at the start.
            seed: not used: the weights come from torch's generator.
            source: not used.

        Raises:
            InputError: an even grid, or images without poses.
        """
        super().__init__(zdim)
        if not isinstance(formation, ImageFormation):
            raise InputError("latents=matched_filter: pictures were found, expected particles with poses")
        if grid % 2 == 0:
            raise InputError(f"latents.grid={grid}: expected an odd number, so that frequency 0 lies on the grid")
        self.grid, radius = grid, min(radius, formation.box_px // 2)
        points = formation.coords[: formation.n_pixels // 2]  # the other half is at their negatives, in reverse order
        extent = radius / formation.box_px
        half = (points.norm(dim=1) <= extent + 1e-6).nonzero()[:, 0]
        self.register_buffer("pixels", half, persistent=False)
        self.register_buffer("coords", points[half] / extent, persistent=False)
        steps = torch.tensor([0, 1])
        corners = (steps[:, None, None] * grid + steps[:, None]) * grid + steps
        self.register_buffer("corners", corners.flatten().int(), persistent=False)
        self.templates = nn.Parameter(template_std * torch.randn(grid**3, n_templates))
        self.encoder = AmortizedEncoder.network(2 * n_templates, layers, width, 2 * zdim, ACTIVATIONS[activation])

    def features(self, image: Tensor, ctf: Tensor | None, rotations: Tensor | None) -> Tensor:
        """Compute where the slice meets the grid, what it is compared with, and the weights of its pixels.

        Args:
            image: (B, M) centred and phase-flipped.
            ctf: (B, M) of that image, or None.
            rotations: (B, 3, 3) pose of that image.

        Returns:
            (B, 6 n): of the n pixels of one half of the slice, three coordinates from -1 to 1, the image times |CTF|
            there and at the negative frequencies, and CTF^2.
        """
        assert rotations is not None
        low = image[:, self.pixels], image.flip(-1)[:, self.pixels]
        weight = torch.ones_like(low[0]) if ctf is None else ctf[:, self.pixels].abs()
        points = rotate(self.coords, rotations).flatten(1)
        return torch.cat([points, *(part * weight for part in low), weight.square()], dim=1)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images at their poses.

        Args:
            x: (B, 6 n) from :meth:`features`.
            index: (B,) ignored.

        Returns:
            mu and logvar, each (B, zdim) float32.
        """
        mu, logvar = residual_mlp(self.encoder, self.statistics(x)[None])[0].split(self.zdim, dim=-1)
        return mu, logvar

    def statistics(self, x: Tensor) -> Tensor:
        """Return inner products and squared norms, brought to the scale of a network's inputs: (B, 2 K)."""
        n = len(self.pixels)
        points, image, squared_ctf = x.split([3 * n, 2 * n, n], dim=1)
        slices = self._slices(points.view(len(x), n, 3))
        products = torch.bmm(image[:, None], slices)[:, 0]
        norms = torch.bmm(squared_ctf.repeat(1, 2)[:, None], slices.square())[:, 0]
        return torch.cat([products * (PRODUCT_GAIN / math.sqrt(2 * n)), norms * (NORM_GAIN / (2 * n))], dim=1)

    def _slices(self, points: Tensor) -> Tensor:
        """Interpolate all templates at points (B, n, 3) and at their negatives, from the eight corners around each."""
        last = self.grid - 1
        at = (points + 1) * (last / 2)
        lowest = at.floor().clamp_(0, last - 1)
        above = at - lowest
        x, y, z = torch.stack([1 - above, above], dim=-1).unbind(2)  # each (B, n, 2)
        weights = (x[..., None, None] * y[..., None, :, None] * z[..., None, None, :]).flatten(2)
        strides = lowest.new_tensor([self.grid**2, self.grid, 1])
        corners = (lowest * strides).sum(-1, keepdim=True).int() + self.corners
        corners = torch.cat([corners, self.grid**3 - 1 - corners], dim=1)
        weights = torch.cat([weights, weights], dim=1)
        slices = Interpolate.apply(self.templates, weights.flatten(0, 1), corners.flatten(0, 1))
        return slices.view(*corners.shape[:2], -1)


class Interpolate(torch.autograd.Function):
    """(n, K) values between the points of a grid: rows of a (L^3, K) table, added up by weights (n, 8).

    A product with a sparse matrix; its transpose brings gradients back to the grid. On a processor it is scipy's,
    whose transposed product is ten times as fast as torch's.
    """

    @staticmethod
    def forward(ctx: Any, table: Tensor, weights: Tensor, corners: Tensor) -> Tensor:
        """Interpolate at points whose corners are the rows (n, 8) of the table."""
        ctx.n_rows = len(table)
        if table.device.type == "cpu":
            ctx.matrix = _sparse(weights, corners, len(table))
            return torch.from_numpy(ctx.matrix @ table.detach().numpy())
        ctx.save_for_backward(weights, corners)
        return nn.functional.embedding_bag(corners, table, per_sample_weights=weights, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        """Hand out the gradient of the table."""
        if grad.device.type == "cpu":
            return torch.from_numpy(ctx.matrix.T @ grad.numpy()), None, None
        weights, corners = ctx.saved_tensors
        spread = (weights[..., None] * grad[:, None]).flatten(0, 1)
        return grad.new_zeros(ctx.n_rows, grad.shape[1]).index_add_(0, corners.flatten(), spread), None, None


def _sparse(weights: Tensor, corners: Tensor, n_columns: int) -> Any:
    from scipy.sparse import csr_matrix

    row_starts = np.arange(0, weights.numel() + 1, weights.shape[1], dtype=np.int32)
    return csr_matrix((weights.flatten().numpy(), corners.flatten().numpy(), row_starts), (len(weights), n_columns))
