"""How different the volume of an altered image is: V(z) against V(z'), for some particles."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.fsc import correlation, fsc_auc, spherical_mask
from experiments.volumes.decoder import Volume, VolumeDecoder

Floats = NDArray[np.float64]


class VolumeAgreement(NamedTuple):
    """How alike the volumes of n pairs are, each (n,); NaN where a volume is constant.

    Attributes:
        correlation: of the voxels inside ``fsc.spherical_mask``, 1 if they are equal.
        fsc_auc: area under their Fourier shell correlation with that mask, just below 0.5 if they are equal.
    """

    correlation: Floats
    fsc_auc: Floats


def compare(decoder: VolumeDecoder, z: ArrayLike, z_altered: ArrayLike) -> tuple[VolumeAgreement, VolumeAgreement]:
    """Decode pairs of volumes and compare them, few in memory at a time.

    Args:
        decoder: of a run.
        z: (n, zdim), in random order.
        z_altered: (n, zdim) of the same particles.

    Returns:
        V(z_i) with V(z'_i); and the yardstick, V(z_i) with V(z_j) of the next particle in the list, which is any other
        one. Of a single particle, the second is empty.
    """
    points = np.stack([np.asarray(z), np.asarray(z_altered)], axis=1)
    mask = spherical_mask(decoder.box_px)
    pairs, others = [], []
    volumes = decoder.decode(points.reshape(-1, points.shape[-1]), progress=True) if len(points) else iter(())
    first = previous = None
    for original in volumes:
        altered = next(volumes)
        pairs.append(_alike(original, altered, mask))
        if previous is not None:
            others.append(_alike(previous, original, mask))
        first, previous = original if first is None else first, original
    if len(pairs) > 2 and first is not None and previous is not None:
        others.append(_alike(previous, first, mask))
    return _columns(pairs), _columns(others)


def _alike(a: Volume, b: Volume, mask: Floats) -> tuple[float | None, float | None]:
    return correlation(a, b, mask), fsc_auc(a, b, mask)


def _columns(rows: list[tuple[float | None, float | None]]) -> VolumeAgreement:
    return VolumeAgreement(*np.array(rows, dtype=np.float64).reshape(-1, 2).T)


def metrics_of(pairs: VolumeAgreement, others: VolumeAgreement) -> dict[str, float | None]:
    """Summarize: ``amortization/volume_correlation`` and ``amortization/volume_fsc_auc``.

    Means over the particles, with the lower tenth as ``..._q10``, and the mean over two unrelated particles as
    ``..._of_others``. None where there is none.
    """
    metrics: dict[str, float | None] = {}
    for name in VolumeAgreement._fields:
        key, values, unrelated = f"amortization/volume_{name}", getattr(pairs, name), getattr(others, name)
        values, unrelated = values[np.isfinite(values)], unrelated[np.isfinite(unrelated)]
        metrics[key] = float(values.mean()) if len(values) else None
        metrics[f"{key}_q10"] = float(np.percentile(values, 10)) if len(values) else None
        metrics[f"{key}_of_others"] = float(unrelated.mean()) if len(unrelated) else None
    return metrics
