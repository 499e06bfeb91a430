"""What every VAE of the suite shares: its slots, its loss, its optimizers, its training step, its inference."""

import contextlib
import itertools
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from lightning_modules.elbo import Elbo, reparameterize
from lightning_modules.encoder_inputs.encoder_input import EncoderInput
from lightning_modules.latents.posterior import Posterior
from lightning_modules.latents.table_init import Latents
from lightning_modules.networks.native_library import library, without_native_code
from lightning_modules.optimization.data_parallel import SingleProcess
from lightning_modules.optimization.freed_memory import keep_freed_memory
from lightning_modules.optimization.joined_adam import JoinedAdam
from lightning_modules.optimization.minibatches import MinibatchBlock, generator_of
from lightning_modules.optimization.row_adam import RowAdam
from lightning_modules.optimization.step_inputs import ParticleBatch, StepInputs

# Particles whose centring and CTF are computed together: 26 MB per array at 128 px.
OBSERVED_AT_ONCE = 512


class VAE(pl.LightningModule):
    """x_i -> q(z_i) -> z_i -> y_hat_i, compared with y_i.

    What the encoder sees (``encoder_input``) and what gives q (``latents``) are the paper's manipulations. What
    an image is, how z becomes one, and how two are compared is up to the class below.

    Attributes:
        trains_on: class of the images that it can be trained on.
        decodes_with: class of its decoder.
        loss: the negative ELBO, with the arguments of ``elbo.negative_elbo``.
        each_loss: the same of every particle on its own, as ``elbo.each_negative_elbo``.
        kl_per_pixel: whether the loss divides beta * KL by the number of pixels M.
        latents: gives q(z): an encoder, or a lookup table.
        decoder: turns z into images.
        team: who shares the minibatches; one process alone, unless it is set.
    """

    trains_on: type
    decodes_with: type[nn.Module]
    loss: Callable[..., Elbo]
    each_loss: Callable[..., Elbo]
    kl_per_pixel: bool = True
    latents: Posterior

    def __init__(
        self,
        particles: Any,
        formation: Any,
        encoder_input: EncoderInput,
        latents: Posterior,
        decoder: nn.Module,
        beta: Callable[[int], float],
        beta_control: float | None = None,
        lr: float = 1e-4,
        weight_decay: float = 0.0,
        table_lr: float = 1e-3,
        bfloat16: bool = False,
        seed: int = 0,
        particles_follow: bool = True,
        native: bool = True,
    ) -> None:
        """Put the parts together.

        Args:
            particles: what is trained on.
            formation: what lies between an image and the object that z describes.
            encoder_input: what the encoder sees.
            latents: q(z|x).
            decoder: renders slices.
            beta: weight of the KL, as a function of the particles seen so far.
            beta_control: strength of KL control, or None.
            lr: Adam's learning rate of the networks.
            weight_decay: of the networks.
            table_lr: SparseAdam's learning rate of the lookup table.
            bfloat16: the decoder's matrix products in bfloat16; all else stays float32.
            seed: of the noise in z, the order and the twins.
            particles_follow: the particles move to the device with the model; if not, minibatches do.
            native: on a processor, networks by ``native_mlp`` and ``native_few_rows``, where these can be had.
        """
        super().__init__()
        self.automatic_optimization = False
        self.particles, self.formation, self.encoder_input = particles, formation, encoder_input
        self.latents, self.decoder = latents, decoder
        self.beta, self.beta_control = beta, beta_control
        self.lr, self.weight_decay, self.table_lr = lr, weight_decay, table_lr
        self.in_bfloat16, self.seed, self.particles_follow = bfloat16, seed, particles_follow
        self.native = native
        self.team = SingleProcess()
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

    def take(self, particles: Any) -> None:
        """Be about other particles of the same box from now on; a lookup table knows nothing of them."""
        self.particles, self._prepared_on = particles, None

    def on_fit_start(self) -> None:
        """Prepare once the trainer has chosen the device."""
        keep_freed_memory()
        self.prepare()
        if self.native and self.in_bfloat16 and self.device.type == "cpu":
            library()  # compiled now where it has to be, not within the first step

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the networks; SparseAdam for the rows of a trained table, each row moved when it is seen."""
        table = list(self.latents.table_parameters())
        rows = {id(parameter) for parameter in table}
        networks = [p for p in self.parameters() if p.requires_grad and id(p) not in rows]
        adam = JoinedAdam(networks, lr=self.lr, weight_decay=self.weight_decay)
        return [adam, RowAdam(table, lr=self.table_lr)] if table else [adam]

    @contextlib.contextmanager
    def matmul_precision(self) -> Iterator[None]:
        """Autocast for the decoder's matrix products, or nothing in float32; and whether C++ may do them."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.in_bfloat16), self.native_code():
            yield

    def native_code(self) -> contextlib.AbstractContextManager[None]:
        """C++ where it can be had, or torch's operations alone."""
        return contextlib.nullcontext() if self.native else without_native_code()

    @abstractmethod
    def observe(self, index: Tensor) -> ParticleBatch:
        """Compute what depends on the particles (B,) alone."""

    @abstractmethod
    def render(self, observed: ParticleBatch, z: Tensor) -> Tensor:
        """Render particles from z (B, zdim): (B, M), as the loss takes them."""

    def infer(self, observed: ParticleBatch) -> tuple[Tensor, Tensor]:
        """Infer q(z) from what the encoder sees: mu and logvar, each (B, zdim)."""
        with self.native_code():
            mu, logvar = self.latents(observed.x, observed.index)
        return mu, logvar

    def elbo(self, observed: ParticleBatch, eps: Tensor, beta: float | Tensor) -> Elbo:
        """Compute the loss of a minibatch.

        Args:
            observed: B particles.
            eps: (B, zdim) standard normal.
            beta: weight of the KL.

        Returns:
            The three terms, with their gradients.
        """
        mu, logvar = self.infer(observed)
        z = reparameterize(mu, logvar, eps)
        return self.loss(self.render(observed, z), observed.y, mu, logvar, beta, self.beta_control)

    def training_step(self, block: MinibatchBlock, _: int) -> None:
        """Descend the negative ELBO, minibatch by minibatch; report at the end of an epoch."""
        optimizers = self._optimizers()
        self.encoder_input.start_epoch(block.epoch)
        seen = block.epoch * len(self.particles) + block.so_far.n_seen
        for index, observed, eps in zip(block.rest, self._observed(block), self._noise(block), strict=True):
            seen += len(index)
            inputs = StepInputs(observed, eps, self.beta(seen))
            block.done(len(index), self.team.descend(self.elbo, inputs, index, optimizers))
        self._report(block)

    @torch.no_grad()
    def encode(self, batch_size: int = 256, index: Tensor | None = None) -> Latents:
        """Infer q(z) of every particle from what the encoder was trained on (``train_vae.eval_z``).

        Args:
            batch_size: particles at a time.
            index: (n,) of some particles instead.

        Returns:
            mu and logvar, each (N, zdim) float32 on the CPU.
        """
        self.eval()
        self.prepare()
        self.encoder_input.start_epoch(None)
        index = torch.arange(len(self.particles)) if index is None else index
        inferred = [self.infer(self.observe(some)) for some in index.split(batch_size)]
        mu, logvar = (torch.cat(part).cpu() for part in zip(*inferred, strict=True))
        return Latents(mu, logvar)

    def _observed(self, block: MinibatchBlock) -> Iterator[ParticleBatch]:
        """Observe what is left of a block, many minibatches in one go: a step by itself would be mostly calls.

        Rounding may depend on which particles go together, and that does not depend on where the rest begins.
        """
        at_once = max(1, OBSERVED_AT_ONCE // max(map(len, block.batches)))
        for first in range(block.n_done // at_once * at_once, len(block.batches), at_once):
            some = [self.team.part(index) for index in block.batches[first : first + at_once]]
            observed = self.observe(torch.cat(some)).split([len(index) for index in some])
            yield from itertools.islice(observed, max(0, block.n_done - first), None)

    def _noise(self, block: MinibatchBlock) -> Iterator[Tensor]:
        """Draw eps (B, zdim) for each minibatch that is left of a block, a function of (seed, epoch, block).

        All of it is drawn, whoever does a part: the noise of a particle does not depend on the number of processes.
        """
        generator = generator_of(self.seed, 11, block.epoch, block.seen)
        drawn = [torch.randn(len(index), self.latents.zdim, generator=generator) for index in block.batches]
        rest = [self.team.part(eps) for eps in drawn[block.n_done :]]
        # One copy to the device for all minibatches: a step by itself has none.
        return iter(torch.cat(rest).to(self.device).split([len(eps) for eps in rest]) if rest else ())

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        optimizers = self.optimizers(use_pl_optimizer=False)
        return optimizers if isinstance(optimizers, list) else [optimizers]

    def _report(self, block: MinibatchBlock) -> None:
        means = block.so_far.means()
        if block.is_last:
            names = ("loss/total", "loss/reconstruction", "loss/kl")
            self.log_dict(dict(zip(names, means, strict=True)), on_step=False, on_epoch=True, batch_size=1)
