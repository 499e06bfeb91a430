"""The Variational Lookup Table (paper, section 3.2): a row of mu and logvar for each particle."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import LatentInit, Latents


class LookupTable(Posterior):
    """(mu_i, logvar_i) = row i of a table: the paper's Variational Lookup Table (section 3.2).

    Attributes:
        table: embedding of N rows, (mu, logvar) side by side; always float32.
    """

    def __init__(
        self,
        formation: ImageFormation,
        n_particles: int,
        zdim: int,
        init: LatentInit,
        frozen: bool = False,
        seed: int = 0,
        source: Latents | None = None,
    ) -> None:
        """Build the table.

        Args:
            formation: not used: the table never sees an image.
            n_particles: N, rows of the table.
            zdim: size of z.
            init: where the rows start.
            frozen: the rows stay as they start; z is still sampled from them.
            seed: of the random starts.
            source: latents of another run, for the starts that need them.

        Raises:
            InputError: the start gives latents of another shape.
        """
        super().__init__(zdim)
        self.table = nn.Embedding(n_particles, 2 * zdim, sparse=True)
        mu, logvar = init(n_particles, zdim, seed, source)
        if mu.shape != (n_particles, zdim) or logvar.shape != (n_particles, zdim):
            raise InputError(
                f"latents.init: a start of shape {tuple(mu.shape)} was found, expected {(n_particles, zdim)} for "
                f"{n_particles} particles and zdim={zdim}; use a run of the same particles and zdim"
            )
        with torch.no_grad():
            self.table.weight.copy_(torch.cat([mu, logvar], dim=1))
        self.table.weight.requires_grad_(not frozen)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Look rows up.

        Args:
            x: ignored.
            index: (B,) particles.

        Returns:
            mu and logvar, each (B, zdim) float32.
        """
        mu, logvar = self.table(index).split(self.zdim, dim=-1)
        return mu, logvar

    def table_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters that are trained row by row, unless frozen."""
        return (parameter for parameter in self.parameters() if parameter.requires_grad)
