"""cryoDRGN's decoder, evaluated where the loss needs it.

Same class, same parameters, same values as ``cryodrgn.models``; less work. Only half of the masked lattice is
computed, the other half is its conjugate. z enters the first layer linearly: one product per image, not per pixel.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.networks import native_mlp
from lightning_modules.networks.native_mlp import NativeSlices
from lightning_modules.networks.residual_mlp import ACTIVATIONS, Parts, matmul_dtype, residual_mlp
from lightning_modules.networks.tangents import mlp_and_tangents

PE_TYPES = ("geom_ft", "geom_full", "geom_lowf", "geom_nohighf", "linear_lowf", "gaussian", "none")
DOMAINS = ("fourier", "hartley")
CACHED_ROWS = 16384  # of one layer's activations: 8 MB in bfloat16


class SliceDecoder(nn.Module):
    """Renders the central slice of V(z) at a pose, on the M masked pixels of the lattice.

    Attributes:
        decoder: the cryoDRGN decoder (``cryodrgn.models.get_decoder``), named as in cryoDRGN's checkpoints.
    """

    coords: Tensor

    def __init__(
        self,
        formation: ImageFormation,
        zdim: int,
        layers: int = 3,
        width: int = 256,
        pe_type: str = "geom_lowf",
        pe_dim: int | None = None,
        domain: str = "fourier",
        activation: str = "relu",
        feat_sigma: float = 0.5,
    ) -> None:
        """Build the decoder.

        Args:
            formation: the lattice.
            zdim: size of z.
            layers: hidden layers.
            width: units of a hidden layer.
            pe_type: positional encoding, one of cryoDRGN's.
            pe_dim: frequencies of the positional encoding; None: D/2.
            domain: "fourier" or "hartley".
            activation: "relu" or "leaky_relu".
            feat_sigma: scale of the "gaussian" encoding.

        Raises:
            InputError: an encoding or domain that cryoDRGN does not have.
        """
        from cryodrgn.models import get_decoder

        super().__init__()
        for key, value, known in (("pe_type", pe_type, PE_TYPES), ("domain", domain, DOMAINS)):
            if value not in known:
                raise InputError(f"decoder.{key}={value}: expected one of {', '.join(known)}")
        self.lattice_px, self.zdim = formation.box_px + 1, zdim
        self.decoder = get_decoder(
            3 + zdim,
            self.lattice_px,
            layers,
            width,
            domain,
            pe_type,
            pe_dim,
            ACTIVATIONS[activation],
            feat_sigma,
        )
        self.encoding = PositionalEncoding(self.decoder, self.lattice_px, pe_type, pe_dim)
        self.is_fourier = domain == "fourier"
        half = formation.n_pixels // 2
        self.register_buffer("coords", formation.coords[: half if self.is_fourier else None], persistent=False)

    def forward(self, rotations: Tensor, z: Tensor) -> Tensor:
        """Render slices.

        Args:
            rotations: (B, 3, 3).
            z: (B, zdim).

        Returns:
            (B, M) Hartley transforms, before the CTF. Equals ``cryodrgn.models.HetOnlyVAE.decode``.
        """
        rendered = self._by_native_code(rotations, z)
        return self.evaluate(rotate(self.coords, rotations), z) if rendered is None else rendered

    @torch.no_grad()
    def linearize(self, rotations: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Render slices, with their derivative by z.

        Args:
            rotations: (B, 3, 3).
            z: (B, zdim).

        Returns:
            (B, M) as :meth:`forward`, and (B, zdim, M). Neither has a gradient.
        """
        at_once = max(1, CACHED_ROWS // (len(self.coords) * (1 + self.zdim))) if z.device.type == "cpu" else len(z)
        pieces = [
            self._linearize(rotate(self.coords, r), some)
            for r, some in zip(rotations.split(at_once), z.split(at_once), strict=True)
        ]
        slices, jacobians = (torch.cat(part) for part in zip(*pieces, strict=True))
        return slices, jacobians

    def _linearize(self, coords: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        points, sign = self._below(coords)
        value, tangents = mlp_and_tangents(self._mlp, self.encoding(points, matmul_dtype(z.device)), z)
        return self._both_halves(value, sign), self._both_halves(tangents, sign[:, None])

    def _by_native_code(self, rotations: Tensor, z: Tensor) -> Tensor | None:
        """Render slices in C++; None: it is not to be had, or not made for this network."""
        parts, frequencies = Parts.of(self._mlp), self.encoding.frequencies
        is_its_kind = self.is_fourier and len(frequencies) > 0 and not parts.residual[0]
        if not is_its_kind or rotations.requires_grad or not rotations.dtype == z.dtype == torch.float32:
            return None
        n_inputs = 6 * len(frequencies)
        if not native_mlp.takes(matmul_dtype(z.device), z.device, parts.weights(n_inputs), parts.residual):
            return None
        weight, bias, *others = parts.joined(z, n_inputs)
        settings = frequencies, parts.slope, parts.residual
        # Where no gradient will be asked for, what the layers write need not be kept for all images.
        at_once = len(z) if torch.is_grad_enabled() else max(1, CACHED_ROWS // len(self.coords))
        pieces = zip(rotations.split(at_once), bias.split(at_once), strict=True)
        return torch.cat([NativeSlices.apply(self.coords, r, *settings, weight, b, *others) for r, b in pieces])

    @property
    def _mlp(self) -> nn.Module:
        return getattr(self.decoder, "decoder", self.decoder)

    def evaluate(self, coords: Tensor, z: Tensor) -> Tensor:
        """Evaluate V(z) on one half of a centred slice, and fill the other half by symmetry.

        Args:
            coords: (B, M/2, 3) in the Fourier domain, (B, M, 3) in the Hartley domain.
            z: (B, zdim).

        Returns:
            (B, M).
        """
        points, sign = self._below(coords)
        return self._both_halves(self._network(points, z), sign)

    def _below(self, coords: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points at which the network is asked, those at z <= 0 alone, and which were turned about: (B, n).

        The other side is the complex conjugate; in the Hartley domain all points are asked for.
        """
        sign = torch.where(coords[..., 2] > 0, -1.0, 1.0) if self.is_fourier else torch.ones_like(coords[..., 2])
        return (coords * sign[..., None] if self.is_fourier else coords), sign

    def _both_halves(self, outputs: Tensor, sign: Tensor) -> Tensor:
        """Return slices (..., M) from the network's outputs (..., n, 2) on one half, or (..., M, 1) on the whole."""
        if not self.is_fourier:
            return outputs[..., 0]
        real, imaginary = outputs.unbind(-1)
        imaginary = imaginary * sign
        return torch.cat([real - imaginary, (real + imaginary).flip(-1)], dim=-1)

    def _network(self, coords: Tensor, z: Tensor) -> Tensor:
        """Evaluate the residual MLP at (B, n, 3) points; returns (B, n, outputs) float32."""
        # A few images at a time on a CPU: what one layer writes is then still in its cache for the next.
        network, dtype = self._mlp, matmul_dtype(coords.device)
        images = max(1, CACHED_ROWS // coords.shape[1]) if coords.device.type == "cpu" else len(coords)
        parts = zip(coords.split(images), z.split(images), strict=True)
        return torch.cat([residual_mlp(network, self.encoding(some, dtype), z_some) for some, z_some in parts])


def rotate(coords: Tensor, rotations: Tensor) -> Tensor:
    """Return coords @ rotation in float32, whatever autocast says: (M, 3), (B, 3, 3) -> (B, M, 3)."""
    return (coords[None, :, :, None] * rotations[:, None]).sum(dim=2)


class PositionalEncoding(nn.Module):
    """Sines and cosines of a point's coordinates, in the order of ``cryodrgn.models``."""

    frequencies: Tensor

    def __init__(self, decoder: nn.Module, lattice_px: int, pe_type: str, pe_dim: int | None) -> None:
        """Take the frequencies from the formula, or from the decoder where it holds random ones."""
        super().__init__()
        self.pe_type = pe_type
        self.decoder_half_px = lattice_px // 2
        self._decoder: tuple[Any] = (decoder,)  # a tuple, so that its parameters are not registered twice
        frequencies = axis_frequencies(pe_type, lattice_px // 2, pe_dim or lattice_px // 2)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, coords: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Encode (B, n, 3) points as (B, n, features), computed in float32, given in ``dtype``."""
        if self.pe_type == "none":
            return coords.to(dtype)
        if self.pe_type == "gaussian":
            directions = self._decoder[0].rand_freqs * self.decoder_half_px
            phase = (coords[..., None, :] * directions).sum(-1)
        else:
            phase = coords[..., None] * self.frequencies
        n = phase.shape[-1]
        waves = phase.new_empty(*phase.shape[:-1], 2 * n, dtype=dtype)
        waves[..., :n] = torch.sin(phase)
        waves[..., n:] = torch.cos(phase)
        return waves if self.pe_type == "gaussian" else waves.flatten(-2)


def axis_frequencies(pe_type: str, half_px: int, pe_dim: int) -> Tensor:
    """Return the frequencies along each axis (``cryodrgn.models.FTPositionalDecoder.positional_encoding_geom``).

    Args:
        pe_type: one of :data:`PE_TYPES`.
        half_px: half of the lattice side, rounded down.
        pe_dim: number of frequencies.

    Returns:
        (pe_dim,), or an empty tensor for "gaussian" and "none".
    """
    k, d = torch.arange(pe_dim, dtype=torch.float) / max(pe_dim - 1, 1), 2 * half_px
    geometric = {
        "geom_ft": (d * math.pi, 2.0 / d),
        "geom_full": (d * math.pi, 1.0 / d / math.pi),
        "geom_lowf": (half_px, 1.0 / half_px),
        "geom_nohighf": (half_px, 2.0 * math.pi / half_px),
    }
    if pe_type in geometric:
        highest, ratio = geometric[pe_type]
        return highest * ratio**k
    if pe_type == "linear_lowf":
        return torch.arange(1, half_px + 1, dtype=torch.float)
    return torch.empty(0)
