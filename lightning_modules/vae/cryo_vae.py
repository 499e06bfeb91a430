"""The cryo-EM VAE of the paper, with its encoder side as slots."""

from torch import Tensor

from lightning_modules.elbo import each_negative_elbo, negative_elbo
from lightning_modules.encoder_inputs.encoder_input import fetch
from lightning_modules.image_formation import ImageFormation
from lightning_modules.networks.slice_decoder import SliceDecoder
from lightning_modules.optimization.step_inputs import ParticleBatch
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.vae import VAE


class CryoVAE(VAE):
    """x_i -> q(z_i) -> z_i -> CTF_i * slice of V(z_i) at pose i, compared with y_i.

    The decoder, the data and the loss are cryoDRGN's (``cryodrgn.commands.train_vae``: ``run_batch`` and
    ``loss_function``).

    Attributes:
        formation: centring and CTF.
    """

    particles: Particles
    formation: ImageFormation
    decoder: SliceDecoder
    trains_on, decodes_with = Particles, SliceDecoder
    loss, each_loss = staticmethod(negative_elbo), staticmethod(each_negative_elbo)

    def observe(self, index: Tensor) -> ParticleBatch:
        """Compute what depends on the particles alone: centred images, what the encoder sees, CTF, poses.

        Args:
            index: (B,) particles.
        """
        index = index.to(self.device)
        y, shift_px, ctf_params = self._fetch(index)
        ctf = None if ctf_params is None else self.formation.ctf(ctf_params)
        rotations = fetch(self.particles.rotations, index, y)
        x = self.encoded(y, shift_px, ctf, rotations, index)
        return ParticleBatch(index, self.formation.centre(y, shift_px), x, ctf, rotations)

    def encoded(self, y: Tensor, shift_px: Tensor, ctf: Tensor | None, rotations: Tensor, index: Tensor) -> Tensor:
        """Return what q(z) of particles (B,) is inferred from, (B, F); the other arguments are the particles' own."""
        image = self.encoder_input(y, shift_px, ctf, index)
        if not self.latents.reads_pose:
            return image
        return self.latents.features(image, *self.encoder_input.imaged_with(ctf, rotations, index))

    def render(self, observed: ParticleBatch, z: Tensor) -> Tensor:
        """Render particles at their poses from z (B, zdim), CTF applied: (B, M)."""
        with self.matmul_precision():
            y_hat = self.decoder(observed.rotations, z)
        return y_hat if observed.ctf is None else y_hat * observed.ctf

    def linearize(self, observed: ParticleBatch, z: Tensor) -> tuple[Tensor, Tensor]:
        """Render particles as :meth:`render` does, with the derivative by z: (B, M) and (B, zdim, M). No gradients."""
        assert observed.rotations is not None
        with self.matmul_precision():
            y_hat, jacobian = self.decoder.linearize(observed.rotations, z)
        return (y_hat, jacobian) if observed.ctf is None else (y_hat * observed.ctf, jacobian * observed.ctf[:, None])

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        particles, like = self.particles, self.formation.coords
        ctf_params = particles.ctf_params
        return (
            fetch(particles.images, index, like),
            fetch(particles.shifts_px, index, like),
            None if ctf_params is None else fetch(ctf_params, index, like),
        )
