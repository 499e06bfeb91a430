"""Decoded volumes against the true ones, where those are known."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.fsc import matched_fsc_auc, spherical_mask
from experiments.metrics.latents import drawn
from experiments.metrics.truth import has_true_volumes
from experiments.volumes.decoder import VolumeDecoder

SAMPLED_PARTICLES = 100  # whose volumes are decoded


def volume_metrics(
    decoder: VolumeDecoder, mu: ArrayLike, labels: Mapping[str, ArrayLike] | None, data: Any, seed: int = 0
) -> dict[str, float | None]:
    """Compare volumes decoded at particles' z with these particles' true volumes, where they are known.

    CryoBench's per-image FSC (Jeon et al. 2024, metrics/fsc). Key ``volumes/per_image_fsc_auc``: the mean over 100
    particles, drawn with the seed and so the same for every run of these particles, of ``fsc.fsc_auc`` (area under
    the FSC up to Nyquist, frequencies in cycles per px) under a soft spherical mask, 1 up to 0.85 of half the box
    and 0 from its faces. At most (D/2 - 1) / D, a little below 0.5; unrelated volumes have 1.5 / D; less is an
    inverted contrast. CryoBench takes the FSC's absolute value. Nothing is aligned, as the poses are given.

    Key ``volumes/per_image_fsc_auc_of_mean``: the same for one volume, the mean of the 100 true ones. A perfect
    reconstruction that knows nothing of heterogeneity has this much, and it is not little: conformations share most
    of their density. With the default simulated particles it is 0.400, of at most 0.469.

    One volume is in memory at a time. Beside decoding, a particle takes 0.02 s at D = 32 and 0.7 s at 128, on one
    CPU thread.

    Args:
        decoder: of the run.
        mu: (N, zdim) means of q(z).
        labels: ``state`` (N,) and ``hinge_rad`` (N,), or what there is of them.
        data: where the particles come from.
        seed: draws the particles.

    Returns:
        Both, each None where no volume has contrast; nothing where the data have no ``true_volume``.
    """
    if labels is None or not has_true_volumes(data, labels):
        return {}
    rows = drawn(len(np.asarray(mu)), SAMPLED_PARTICLES, seed)
    state, hinge_rad = (np.asarray(labels[name])[rows] for name in ("state", "hinge_rad"))

    def true() -> Iterator[NDArray[np.float32]]:
        return (data.true_volume(int(s), float(a), decoder.box_px) for s, a in zip(state, hinge_rad, strict=True))

    mask = spherical_mask(decoder.box_px)
    mean = sum(volume.astype(np.float64) for volume in true()) / len(rows)
    decoded = decoder.decode(np.asarray(mu)[rows], progress=True)
    return {
        "volumes/per_image_fsc_auc": matched_fsc_auc(decoded, true(), mask),
        "volumes/per_image_fsc_auc_of_mean": matched_fsc_auc([mean] * len(rows), true(), mask),
    }
