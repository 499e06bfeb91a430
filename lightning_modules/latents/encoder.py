"""q(z|x) by an amortized encoder; it interchanges with the lookup table, which has the same call signature."""

from torch import Tensor, nn

from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import Latents
from lightning_modules.networks.residual_mlp import ACTIVATIONS, residual_mlp


class AmortizedEncoder(Posterior):
    """(mu_i, logvar_i) = f(x_i): cryoDRGN's residual MLP (``cryodrgn.models.HetOnlyVAE.encode``), always in float32.

    It sees an image once where the decoder computes every pixel: it has a small part of a step's products, and reading
    its weights takes longer than using them. A copy of them in bfloat16 would have to be made in every step.

    Attributes:
        encoder: ``cryodrgn.models.ResidLinearMLP``, its parameters named as in cryoDRGN's checkpoints.
    """

    encodes = True

    def __init__(
        self,
        formation: ImageFormation,
        n_particles: int,
        zdim: int,
        layers: int,
        width: int,
        activation: str = "relu",
        seed: int = 0,
        source: Latents | None = None,
    ) -> None:
        """Build the network.

        Args:
            formation: what an image is; its M pixels are the network's inputs.
            n_particles: not used: the rule is the same for all particles.
            zdim: size of z.
            layers: hidden layers.
            width: units of a hidden layer.
            activation: "relu" or "leaky_relu".
            seed: not used: the weights come from torch's generator.
            source: not used.
        """
        super().__init__(zdim)
        self.encoder = self.network(formation.n_pixels, layers, width, 2 * zdim, ACTIVATIONS[activation])

    @staticmethod
    def network(n_inputs: int, layers: int, width: int, n_outputs: int, activation: type[nn.Module]) -> nn.Module:
        """Build the layers."""
        from cryodrgn.models import ResidLinearMLP

        return ResidLinearMLP(n_inputs, layers, width, n_outputs, activation)

    def forward(self, x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images.

        Args:
            x: (B, M) what the encoder sees.
            index: (B,) ignored.

        Returns:
            mu and logvar, each (B, zdim) float32.
        """
        mu, logvar = residual_mlp(self.encoder, x.float()[None])[0].split(self.zdim, dim=-1)
        return mu, logvar
