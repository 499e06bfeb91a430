"""What a model makes of single particles: their images beside its own, in real space."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_modules.files.atomic import write_atomically

if TYPE_CHECKING:
    from lightning_modules.vae.cryo_vae import CryoVAE

N_SHOWN = 6


class Reconstructions(NamedTuple):
    """Images of n particles, each (n, D, D) float32, in standard deviations of the normalized images."""

    images: NDArray[np.float32]
    reconstructions: NDArray[np.float32]


def reconstruct(model: "CryoVAE", n: int = N_SHOWN) -> Reconstructions:
    """Compare the first particles with what the model renders from the mean of q(z).

    Both are what the loss compares: centred, windowed, within the mask's frequencies; the rendered slice at the
    particle's pose, with its CTF.

    Args:
        model: with its weights.
        n: how many particles, or all where there are fewer.

    Returns:
        Images and reconstructions.
    """
    import torch

    model.eval()
    model.prepare()
    model.encoder_input.begin(None)
    with torch.no_grad():
        observed = model.observe(torch.arange(min(n, len(model.particles))))
        y_hat = model.render(observed, model.infer(observed)[0])
    images, reconstructions = (model.formation.image(y.float()).cpu().numpy() for y in (observed.y, y_hat))
    return Reconstructions(images, reconstructions)


def write_reconstructions(path: Path, found: Reconstructions) -> Path:
    """Write images and reconstructions as a .npz file; returns ``path``."""
    return write_atomically(path, lambda unfinished: np.savez(unfinished, **found._asdict()))
