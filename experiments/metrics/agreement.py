"""How alike the latent spaces of two runs on the same particles are.

The paper "resorted to a qualitative examination"; these are numbers for it that need no ground truth. The mean
mu_i of q(z_i) is compared with the other run's. All are unchanged when either z is rotated, shifted or scaled
as a whole, and z may differ in size. Bit-equal latents are neighbours in a random order, another one in either
run, so that collapsed latents agree with nothing.

Large sets: neighbours are sought among all particles, for at most 4,000 particles drawn with a seed. The means
over these then have a standard error of about 0.01 at most. One measure with zdim 8 takes about a second for
20,000 particles and 4 s for 131,899, on one CPU thread, in less than 300 MB.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.latents import Floats, Indices, checked, drawn, untied

REFERENCES = 4_000  # particles whose neighbours are looked at
_DISTANCES_AT_ONCE = 4_000_000  # 32 MB of float64


def neighbourhood_overlap(mu_a: ArrayLike, mu_b: ArrayLike, k: int = 50, seed: int = 0) -> float | None:
    """Mean fraction of a particle's k nearest neighbours in one z that are so in the other.

    Range 0 to 1. Equal latents have 1; unrelated ones k / (N - 1), chance. The measure of CryoBench's
    neighbourhood similarity (Jeon et al. 2024; Boggust et al. 2022) at one k, between two runs.

    Args:
        mu_a: (N, zdim) means of q(z) of one run.
        mu_b: (N, any zdim) means of q(z) of the other, same particles in the same order.
        k: how many neighbours; fewer than a third of the particles, whatever is asked for.
        seed: draws the particles whose neighbours are compared, where there are more than 4,000.

    Returns:
        The overlap, or None with fewer than four particles.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    found = neighbourhood_overlaps(mu_a, mu_b, [k], seed)
    return None if found is None else float(found[0])


def neighbourhood_overlaps(
    mu_a: ArrayLike, mu_b: ArrayLike, ks: ArrayLike, seed: int = 0
) -> NDArray[np.float64] | None:
    """Return ``neighbourhood_overlap`` for several numbers of neighbours (len(ks),), in one go."""
    a, b = _pair(mu_a, mu_b)
    n = len(a)
    if n < 4:
        return None
    k = np.clip(ks, 1, n // 3)
    shared = np.zeros(len(k))
    rows = drawn(n, REFERENCES, seed)
    for _, from_a, from_b in distances(a, b, rows):
        farthest_a, farthest_b = (np.partition(d, np.unique(k - 1), axis=1)[:, k - 1] for d in (from_a, from_b))
        for i in range(len(k)):
            both = (from_a <= farthest_a[:, i : i + 1]) & (from_b <= farthest_b[:, i : i + 1])
            shared[i] += np.count_nonzero(both)
    return shared / (len(rows) * k)


def information_imbalance(mu_a: ArrayLike, mu_b: ArrayLike, seed: int = 0) -> float | None:
    """How little distances in A tell of distances in B: 2/N times the mean rank in B of the neighbour in A.

    Delta(A -> B) of Glielmo, Zeni, Cheng, Csanyi, Laio 2022 (PNAS Nexus 1, pgac039), with k = 1 as there and
    in CryoBench. 0 (2/N exactly): the nearest neighbour in A is the nearest in B, A tells all of B. 1: A tells
    nothing of B. Not symmetric: where A knows more than B, only Delta(A -> B) is small. Slightly above 1 is
    chance too. Distances that are equal come in a random order.

    Args:
        mu_a: (N, dimensions) of A.
        mu_b: (N, any dimensions) of B, same particles in the same order.
        seed: draws the particles over which the mean is taken, where there are more than 4,000.

    Returns:
        The imbalance, or None with fewer than three particles.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    a, b = _pair(mu_a, mu_b)
    n = len(a)
    if n < 3:
        return None
    ranks = []
    for _, from_a, from_b in distances(a, b, drawn(n, REFERENCES, seed)):
        neighbour = np.take_along_axis(from_b, from_a.argmin(axis=1)[:, None], axis=1)
        ranks.append(np.count_nonzero(from_b <= neighbour, axis=1))
    return float(2 / n * np.mean(np.concatenate(ranks)))


def linear_cka(mu_a: ArrayLike, mu_b: ArrayLike) -> float | None:
    """Linear centred kernel alignment: |A'B|^2 / (|A'A| |B'B|), columns centred, Frobenius norms.

    Kornblith, Norouzi, Lee, Hinton 2019 (ICML), eq. 5. Range 0 to 1. 1: one z is the other rotated, shifted
    and scaled. Unrelated latents have about zdim / N. It sees the large, linear structure of z, where
    neighbours see the local one: a z bent into another shape agrees in its neighbours but less in its CKA.

    Args:
        mu_a: (N, zdim) means of q(z) of one run.
        mu_b: (N, any zdim) means of q(z) of the other, same particles in the same order.

    Returns:
        The similarity, or None where a z is collapsed to one point.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    a, b = _alike(mu_a, mu_b)
    if len(a) < 2 or not (np.ptp(a, axis=0).any() and np.ptp(b, axis=0).any()):
        return None
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    alignment = np.linalg.norm(a.T @ b) ** 2 / (np.linalg.norm(a.T @ a) * np.linalg.norm(b.T @ b))
    return min(1.0, float(alignment))


def knn_r2(mu_a: ArrayLike, mu_b: ArrayLike, k: int = 10, seed: int = 0) -> float | None:
    """R2 of one run's z predicted as the mean over the nearest neighbours in the other's z.

    Leave-one-out, all dimensions of B weighted by their variance. 1: A tells where a particle is in B; 0: no
    better than the mean of B; unrelated latents come out near -1/k, as the mean of k random points is noisier.

    Args:
        mu_a: (N, zdim) means of q(z) of the run that predicts.
        mu_b: (N, any zdim) means of q(z) of the run that is predicted.
        k: how many neighbours are averaged; all others where there are fewer.
        seed: draws the particles that are predicted, where there are more than 4,000.

    Returns:
        R2, or None with fewer than three particles or where B is collapsed.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    a, b = _pair(mu_a, mu_b)
    n, k = len(a), min(k, len(a) - 1)
    if n < 3 or not np.ptp(checked(mu_b), axis=0).any():
        return None
    residual = total = 0.0
    for rows, from_a, _ in distances(a, b, drawn(n, REFERENCES, seed)):
        nearest = np.argpartition(from_a, k - 1, axis=1)[:, :k]
        residual += float(np.sum((b[rows] - b[nearest].mean(axis=1)) ** 2))
        total += float(np.sum((b[rows] - b.mean(axis=0)) ** 2))
    return 1 - residual / total if total > 0 else None


def distances(a: Floats, b: Floats, rows: Indices) -> Iterator[tuple[Indices, Floats, Floats]]:
    """Yield particles of ``rows``, some at a time, with their squared distances to all N in a and in b.

    A particle is infinitely far from itself. At most 64 MB at a time.
    """
    from scipy.spatial.distance import cdist

    for some in np.array_split(rows, -(-len(rows) * len(a) // _DISTANCES_AT_ONCE)):
        from_a, from_b = (cdist(z[some], z, "sqeuclidean") for z in (a, b))
        from_a[np.arange(len(some)), some] = from_b[np.arange(len(some)), some] = np.inf
        yield some, from_a, from_b


def _pair(mu_a: ArrayLike, mu_b: ArrayLike) -> tuple[Floats, Floats]:
    """Two sets of latents with bit-equal rows set apart, independently in either."""
    a, b = _alike(mu_a, mu_b)
    return untied(a, seed=0), untied(b, seed=1)


def _alike(mu_a: ArrayLike, mu_b: ArrayLike) -> tuple[Floats, Floats]:
    """Two sets of latents, checked to have as many rows."""
    a, b = checked(mu_a), checked(mu_b)
    if len(a) != len(b):
        raise ValueError(f"latents must be of the same particles, found {len(a)} and {len(b)} of them")
    return a, b
