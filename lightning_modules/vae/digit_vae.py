"""The VAE of the paper's appendix B: handwritten digits, plain networks, pixels as probabilities."""

import torch
from torch import Tensor, nn

from lightning_modules.elbo import bernoulli_negative_elbo, each_bernoulli_negative_elbo
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.networks.residual_mlp import ACTIVATIONS, matmul_dtype, residual_mlp
from lightning_modules.optimization.step_inputs import ParticleBatch
from lightning_modules.particles.digits import Digits, PlainImages
from lightning_modules.vae.vae import VAE

RENDERED_AT_ONCE = 1024


def mlp(n_inputs: int, layers: int, width: int, n_outputs: int, activation: type[nn.Module]) -> nn.Module:
    """Build a network of hidden layers of one width, without residuals."""
    from cryodrgn.models import MLP

    network: nn.Module = MLP(n_inputs, layers - 1, width, n_outputs, activation)  # it counts the first one apart
    return network


class MlpEncoder(AmortizedEncoder):
    """(mu_i, logvar_i) = f(x_i), without residuals.

    The last layer is the paper's two heads side by side: they share their inputs, and nothing else.
    """

    network = staticmethod(mlp)


class MlpDecoder(nn.Module):
    """z -> the logits of an image's pixels."""

    def __init__(
        self, formation: PlainImages, zdim: int, layers: int = 2, width: int = 256, activation: str = "relu"
    ) -> None:
        """Build the network.

        Args:
            formation: says how many pixels there are.
            zdim: size of z.
            layers: hidden layers.
            width: units of a hidden layer.
            activation: "relu" or "leaky_relu".
        """
        super().__init__()
        self.decoder = mlp(zdim, layers, width, formation.n_pixels, ACTIVATIONS[activation])

    def forward(self, z: Tensor) -> Tensor:
        """Render z (B, zdim) as logits (B, M) float32; their sigmoid is the image."""
        return residual_mlp(self.decoder, z.to(matmul_dtype(z.device))[None])[0]


class DigitVAE(VAE):
    """x_i -> q(z_i) -> z_i -> image, compared with y_i pixel by pixel."""

    particles: Digits
    trains_on, decodes_with = Digits, MlpDecoder
    loss, each_loss = staticmethod(bernoulli_negative_elbo), staticmethod(each_bernoulli_negative_elbo)
    kl_per_pixel = False

    def observe(self, index: Tensor) -> ParticleBatch:
        """Fetch images (B,) and what the encoder sees of them; pictures know of no shift."""
        index = index.to(self.device)
        y = self.particles.images[index]
        return ParticleBatch(index, y, self.encoder_input(y, y.new_zeros(len(y), 2), None, index))

    def render(self, observed: ParticleBatch, z: Tensor) -> Tensor:
        """Render z (B, zdim) as logits (B, M); nothing else about an image is given."""
        with self.matmul_precision():
            logits: Tensor = self.decoder(z)
        return logits

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """Render z (N, zdim) as images (N, M) float32 from 0 to 1, on the CPU."""
        self.eval()
        return torch.cat([self.decoder(part.to(self.device)).sigmoid().cpu() for part in z.split(RENDERED_AT_ONCE)])
