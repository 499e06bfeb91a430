"""q(z) of particles by the model's own encoder, in the place of a search."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.vae import VAE


@dataclass(frozen=True)
class EncoderPosterior:
    """q(z_i) = what the encoder makes of particle i: one pass, and as good as the encoder is for new particles."""

    needs_encoder: ClassVar[bool] = True

    def __call__(self, model: VAE, beta: float, seed: int, index: Tensor | None = None) -> Latents:
        """Encode.

        Args:
            model: has a trained encoder.
            beta: not used.
            seed: not used.
            index: (n,) particles; None: all.

        Returns:
            mu and logvar, each (n, zdim) float32 on the CPU.
        """
        return model.encode(index=index)
