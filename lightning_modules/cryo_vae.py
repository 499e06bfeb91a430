"""The cryo-EM VAE of the paper, with its encoder side as slots."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.blocks import Block, generator_of
from lightning_modules.elbo import Elbo, negative_elbo, reparameterize
from lightning_modules.encoder_inputs import EncoderInput, fetch
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latent_inits import Latents
from lightning_modules.memory import keep_freed_memory
from lightning_modules.particles import Particles


class CryoVAE(pl.LightningModule):
    """x_i -> q(z_i) -> z_i -> CTF_i * slice of V(z_i) at pose i, compared with y_i.

    The decoder, the data and the loss are cryoDRGN's (``cryodrgn.commands.train_vae``). What the encoder sees
    (``encoder_input``) and what gives q (``latents``) are the paper's manipulations.

    Attributes:
        latents: AmortizedEncoder or LookupTable.
        decoder: SliceDecoder.
    """

    latents: Any  # torch's modules do not say which methods they have beside forward

    def __init__(
        self,
        particles: Particles,
        formation: ImageFormation,
        encoder_input: EncoderInput,
        latents: nn.Module,
        decoder: nn.Module,
        beta: Callable[[int], float],
        beta_control: float | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        table_lr: float = 1e-3,
        bfloat16: bool = False,
        seed: int = 0,
        particles_follow: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            particles: what is trained on.
            formation: centring and CTF.
            encoder_input: what the encoder sees.
            latents: q(z|x).
            decoder: renders slices.
            beta: weight of the KL, as a function of the particles seen so far.
            beta_control: strength of KL control, or None.
            lr: Adam's learning rate of the networks.
            weight_decay: of the networks.
            table_lr: SparseAdam's learning rate of the lookup table.
            bfloat16: matrix products in bfloat16; all else stays float32.
            seed: of the noise in z, the order and the twins.
            particles_follow: the particles move to the device with the model; if not, minibatches do.
        """
        super().__init__()
        self.automatic_optimization = False
        self.particles, self.formation, self.encoder_input = particles, formation, encoder_input
        self.latents, self.decoder = latents, decoder
        self.beta, self.beta_control = beta, beta_control
        self.lr, self.weight_decay, self.table_lr = lr, weight_decay, table_lr
        self.in_bfloat16, self.seed, self.particles_follow = bfloat16, seed, particles_follow
        self._prepared_on: torch.device | None = None

    def prepare(self) -> None:
        """Bring the particles to the device, unless they are to stay on disk; fix what the encoder will see."""
        if self._prepared_on == self.device:
            return
        if self.particles_follow:
            self.particles = self.particles.to(self.device)
        self.encoder_input.prepare(self.particles, self.formation, self.seed)
        self._prepared_on = self.device

    def see(self, encoder_input: EncoderInput) -> None:
        """Show the encoder something else from now on."""
        self.encoder_input, self._prepared_on = encoder_input, None

    def on_fit_start(self) -> None:
        """Prepare once the trainer has chosen the device."""
        keep_freed_memory()
        self.prepare()

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the networks; SparseAdam for the rows of a trained table, each row moved when it is seen."""
        table = list(self.latents.table_parameters())
        rows = {id(parameter) for parameter in table}
        networks = [p for p in self.parameters() if p.requires_grad and id(p) not in rows]
        adam = torch.optim.Adam(networks, lr=self.lr, weight_decay=self.weight_decay, fused=True)
        return [adam, torch.optim.SparseAdam(table, lr=self.table_lr)] if table else [adam]

    def matmul_precision(self) -> contextlib.AbstractContextManager[Any]:
        """Autocast for the networks' matrix products, or nothing in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16)

    def infer(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Infer q(z) of particles, from what the encoder sees of them.

        Args:
            index: (B,) particles.

        Returns:
            mu (B, zdim), logvar (B, zdim), the centred images (B, M), the CTF (B, M) or None.
        """
        index = index.to(self.device)
        y, shift_px, ctf_params = self._fetch(index)
        x = self.encoder_input(y, shift_px, index)
        ctf = None if ctf_params is None else self.formation.ctf(ctf_params)
        if ctf is not None:
            x = self.formation.phase_flip(x, ctf)
        with self.matmul_precision():
            mu, logvar = self.latents(x, index)
        return mu, logvar, self.formation.centre(y, shift_px), ctf

    def render(self, index: Tensor, z: Tensor, ctf: Tensor | None) -> Tensor:
        """Render particles at their poses from z (B, zdim), CTF applied: (B, M)."""
        rotations = fetch(self.particles.rotations, index, z)
        with self.matmul_precision():
            y_hat = self.decoder(rotations, z)
        return y_hat if ctf is None else y_hat * ctf

    def elbo(self, index: Tensor, eps: Tensor, beta: float | Tensor) -> Elbo:
        """Compute the loss of a minibatch: ``run_batch`` and ``loss_function`` of ``train_vae``.

        Args:
            index: (B,) particles.
            eps: (B, zdim) standard normal.
            beta: weight of the KL.

        Returns:
            The three terms, with their gradients.
        """
        mu, logvar, y, ctf = self.infer(index)
        z = reparameterize(mu, logvar, eps)
        return negative_elbo(self.render(index, z, ctf), y, mu, logvar, beta, self.beta_control)

    def training_step(self, block: Block, _: int) -> None:
        """Descend the negative ELBO, minibatch by minibatch; report once for the whole block."""
        optimizers = self._optimizers()
        noise = generator_of(self.seed, 11, block.epoch, block.seen)
        seen = block.epoch * len(self.particles) + block.seen
        sums = torch.zeros(3, device=self.device)
        for index in block.batches:
            eps = torch.randn(len(index), self.latents.zdim, generator=noise).to(self.device)
            seen += len(index)
            terms = self.elbo(index, eps, self.beta(seen))
            terms.total.backward()
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            sums += len(index) * torch.stack(terms).detach()
        self._report(sums, sum(map(len, block.batches)))

    @torch.no_grad()
    def encode(self, batch_size: int = 256) -> Latents:
        """Infer q(z) of every particle from what the encoder was trained on (``train_vae.eval_z``).

        Args:
            batch_size: particles at a time.

        Returns:
            mu and logvar, each (N, zdim) float32 on the CPU.
        """
        self.eval()
        self.prepare()
        inferred = [self.infer(index)[:2] for index in torch.arange(len(self.particles)).split(batch_size)]
        mu, logvar = (torch.cat(part).cpu() for part in zip(*inferred, strict=True))
        return Latents(mu, logvar)

    def _fetch(self, index: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        particles, like = self.particles, self.formation.coords
        ctf_params = particles.ctf_params
        return (
            fetch(particles.images, index, like),
            fetch(particles.shifts_px, index, like),
            None if ctf_params is None else fetch(ctf_params, index, like),
        )

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = self.optimizers(use_pl_optimizer=False)
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _report(self, sums: Tensor, n_particles: int) -> None:
        means = (sums / n_particles).tolist()
        if not all(map(torch.isfinite, torch.tensor(means))):
            raise InputError(
                f"the loss became {means[0]} in epoch {self.current_epoch + 1}; the last good checkpoint is kept. "
                "Lower lr (or table_lr), or use precision=float32"
            )
        names = ("loss/total", "loss/reconstruction", "loss/kl")
        self.log_dict(dict(zip(names, means, strict=True)), on_step=False, on_epoch=True, batch_size=n_particles)
