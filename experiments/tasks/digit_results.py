"""What is made of a VAE of digits and its latents: numbers in the paper's units, and images to look at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from experiments.figures import run_figures
from experiments.figures.digits import Row, side_by_side
from experiments.figures.latent_maps import LatentMap
from experiments.metrics.digits import APART, MIXED, DigitReader, accuracy_of_digits
from experiments.runs.run import Run
from experiments.tasks.particle_results import TaskResults
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.digit_vae import DigitVAE

PAPERS_BATCH = 128  # the paper's losses are sums over a batch
LOSSES = ("loss/total", "loss/reconstruction", "loss/kl")
N_SHOWN = 8


class DigitResults:
    """For digits: the losses per batch of 128, how well images are reconstructed, and who could still read them."""

    def after_training(self, run: Run, model: DigitVAE, latents: Latents, rows: list[dict[str, Any]]) -> TaskResults:
        """Compare the images with their reconstructions."""
        digit = model.particles.labels["state"]
        images, seen = originals_and_seen(model)
        reader = DigitReader(images, digit)
        reconstructed = model.decode(latents.mu)
        read = reader.read(reconstructed)
        losses = {f"{name}_per_batch_of_{PAPERS_BATCH}": PAPERS_BATCH * rows[-1][name] for name in LOSSES}
        metrics: dict[str, float | None] = {
            **losses,
            "latents/knn_accuracy_0_1": accuracy_of_digits(latents.mu, digit, APART),
            "latents/knn_accuracy_4_6_8_9": accuracy_of_digits(latents.mu, digit, MIXED),
            "reconstructions/class_accuracy": reader.accuracy(read),
            "reconstructions/class_accuracy_of_images": reader.accuracy(reader.read(images)),
        }
        return TaskResults(metrics, [draw_images(run, model, images, seen, reconstructed, read)])

    def after_altering(self, run: Run, model: DigitVAE, original: Latents, altered: Latents) -> TaskResults:
        """Compare altered images with what is made of them, as originals with what is made of those."""
        digit = model.particles.labels["state"]
        images, seen = originals_and_seen(model)
        reader = DigitReader(images, digit)
        reconstructed, altered_images = model.decode(original.mu), model.decode(altered.mu)
        read = reader.read(altered_images)
        metrics: dict[str, float | None] = {
            "amortization/reconstruction_of_images": cross_entropy(reconstructed, images),
            "amortization/reconstruction_of_altered": cross_entropy(altered_images, seen),
            "amortization/reconstruction_of_altered_as_image": cross_entropy(altered_images, images),
            "reconstructions/class_accuracy": reader.accuracy(read),
            "reconstructions/class_accuracy_unaltered": reader.accuracy(reader.read(reconstructed)),
            "reconstructions/class_accuracy_of_images": reader.accuracy(reader.read(images)),
        }
        latent_map = LatentMap(altered.mu.numpy(), run.config.seed)
        plane = run_figures.latent_space(
            latent_map.xy,
            run.folder / "figures" / "latent_space.png",
            f"{run.config.name}, seed {run.config.seed}: altered images",
            latent_map.axis_labels,
            digit,
        )
        return TaskResults(metrics, [draw_images(run, model, images, seen, altered_images, read), plane])


def originals_and_seen(model: DigitVAE) -> tuple[Tensor, Tensor]:
    """Return the images and what the encoder sees of them, each (N, M) on the CPU."""
    observed = model.observe(torch.arange(len(model.particles)))
    return observed.y.cpu(), observed.x.cpu()


def cross_entropy(reconstructed: Tensor, images: Tensor) -> float:
    """Return the cross-entropy of images (N, M) with reconstructions (N, M), in nats per image."""
    return float(F.binary_cross_entropy(reconstructed, images, reduction="sum") / len(images))


def draw_images(
    run: Run, model: DigitVAE, images: Tensor, seen: Tensor, reconstructed: Tensor, read: NDArray[np.int64]
) -> Path:
    """Draw the first eight images above their reconstructions, and what the encoder saw where that is another."""

    def row(label: str, pixels: Tensor) -> Row:
        return Row(label, pixels[:N_SHOWN].view(-1, model.particles.box_px, model.particles.box_px))

    rows = [row("image", images)]
    if model.latents.encodes and not seen.equal(images):
        rows.append(row("encoder saw", seen.clamp(0, 1)))
    rows.append(row("reconstruction", reconstructed)._replace(read_as=read[:N_SHOWN]))
    path = run.folder / "figures" / "reconstructions.png"
    return side_by_side(rows, model.particles.labels["state"][:N_SHOWN], path, run.config.name)
