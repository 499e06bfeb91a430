"""What altering its image does to every particle: how far z goes, whose neighbour it becomes, which class it joins."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.latents import displacements, neighbour_ranks, vote_of_others

N_CLUSTERS = 20  # cryoDRGN's number of k-means centres (``cryodrgn analyze``)
QUANTILES = (10, 50, 90)

Table = dict[str, NDArray[Any]]


def table_of(mu: ArrayLike, mu_altered: ArrayLike, state: ArrayLike | None, index: ArrayLike, seed: int) -> Table:
    """Tabulate what became of every particle.

    Classes are those of the originals' latents. Where true states are known, a place in z has the class that most of
    the ten nearest particles have, the particle itself not among them. Else it is the nearest of twenty k-means
    centres.

    Args:
        mu: (N, zdim) of the images.
        mu_altered: (N, zdim) of the same images, altered.
        state: (N,) true states, or None.
        index: (N,) positions of the particles in the data.
        seed: of k-means, and of the pairs that give the unit of displacement.

    Returns:
        Columns (N,): ``particle``; ``displacement``, in units of the mean distance of two particles, NaN where that
        is 0; ``neighbour_rank``, see ``metrics.neighbour_ranks``; ``class_original``, ``class_altered``,
        ``class_kept``; ``true_state`` where it is known.
    """
    n = len(np.asarray(index))
    if state is None:
        original, altered = _clusters(mu, mu_altered, seed)
    else:
        original, altered = (vote_of_others(mu, state, at) for at in (mu, mu_altered))
    displacement = displacements(mu, mu_altered, seed)
    columns: Table = {
        "particle": np.asarray(index),
        "displacement": np.full(n, np.nan) if displacement is None else displacement,
        "neighbour_rank": neighbour_ranks(mu, mu_altered) if n > 1 else np.full(n, np.nan),
        "class_original": original,
        "class_altered": altered,
        "class_kept": original == altered,
    }
    return columns if state is None else {**columns, "true_state": np.asarray(state)}


def _clusters(mu: ArrayLike, mu_altered: ArrayLike, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the nearest of the originals' k-means centres, before and after."""
    from sklearn.cluster import KMeans

    z, moved = np.asarray(mu, dtype=np.float64), np.asarray(mu_altered, dtype=np.float64)
    n_clusters = min(N_CLUSTERS, len(np.unique(z, axis=0)))
    centres = KMeans(n_clusters, n_init=3, random_state=seed).fit(z)
    return centres.predict(z), centres.predict(moved)


def summarize(table: Mapping[str, NDArray[Any]]) -> dict[str, float | None]:
    """Summarize a table.

    Returns:
        - ``amortization/displacement_ratio`` and ``amortization/neighbour_rank``, the mean and the median, and
          quantiles of both, such as ``amortization/displacement_q90``;
        - ``amortization/class_kept``: fraction of particles that stay in their class, and
          ``amortization/class_kept_chance``, what that would be if z' had nothing to do with z;
        - with true states ``amortization/class_accuracy_original`` and ``..._altered``: fraction whose class is right.

        None where a number does not exist.
    """
    displacement, rank = table["displacement"], table["neighbour_rank"]
    metrics = {
        "amortization/displacement_ratio": _finite(displacement.mean()),
        "amortization/neighbour_rank": _finite(np.median(rank)),
        "amortization/class_kept": _finite(table["class_kept"].mean()),
        "amortization/class_kept_chance": _kept_by_chance(table["class_original"], table["class_altered"]),
    }
    for name, values in (("displacement", displacement), ("neighbour_rank", rank)):
        for percent in QUANTILES:
            metrics[f"amortization/{name}_q{percent}"] = _finite(np.percentile(values, percent))
    if "true_state" in table:
        for name in ("original", "altered"):
            right = table[f"class_{name}"] == table["true_state"]
            metrics[f"amortization/class_accuracy_{name}"] = _finite(right.mean())
    return metrics


def _kept_by_chance(original: NDArray[Any], altered: NDArray[Any]) -> float:
    classes = np.unique(np.concatenate([original, altered]))
    return float(sum((original == each).mean() * (altered == each).mean() for each in classes))


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None
