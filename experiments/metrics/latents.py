"""Latents as numbers: what z knows about the truth, and how far an altered image moves it.

Every function takes the means of q(z), one row per particle, and returns a plain float that can go into
``metrics.json`` under the key given. A number that does not exist (a ratio to a spread of zero, neighbours
of a single particle) is ``None``, which is JSON's ``null``, and never NaN.

All but ``active_dimensions`` are unchanged when z is rotated, shifted or scaled as a whole, so runs with
unlike latent spaces compare. What they say about collapsed latents (all z equal, as with a frozen zero table) is in
each docstring.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

K = 10

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

ACTIVE_VARIANCE = 0.01
LOOKED_AT = 10_000  # particles whose neighbours are looked at: a fraction has a standard error of 0.005 at most

_PAIRS_EXACT_UP_TO = 5_000  # particles: 12.5 million pairs, a fraction of a second
_PAIRS_SAMPLED = 2_000_000  # standard error of the mean distance below 0.1 percent
_DISTANCES_AT_ONCE = 8_000_000  # 64 MB of float64


def knn_class_accuracy(mu: ArrayLike, state: ArrayLike, k: int = 10) -> float | None:
    """Fraction of particles whose true state wins the vote of their nearest neighbours in z.

    Key ``latents/knn_class_accuracy``. Leave-one-out: a particle does not vote for itself. A tied vote goes
    to the smallest label. Range 0 to 1. Compare with ``largest_class_fraction``, the most that latents which
    know nothing can be expected to reach.

    Bit-equal latents are neighbours in a seeded random order. Collapsed latents thus let k random particles
    vote, and the accuracy is what guessing gives (0.25 for four equal classes), in whatever order the
    particles come.

    All particles vote. Where there are more than 10,000, so many are voted about, drawn with a seed: 131,899
    with zdim 8 take 2.5 s on one CPU thread.

    Args:
        mu: (N, zdim) means of q(z).
        state: (N,) true conformational state of every particle.
        k: how many neighbours vote; all others where there are fewer.

    Returns:
        The accuracy, or None with fewer than two particles.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    rows = drawn(len(np.asarray(mu)), LOOKED_AT)
    votes = knn_votes(mu, state, k, rows)
    return None if votes is None else float(np.mean(votes == np.asarray(state)[rows]))


def knn_votes(mu: ArrayLike, state: ArrayLike, k: int = 10, rows: Indices | None = None) -> NDArray | None:
    """Return what the neighbours of each particle vote for.

    Arguments and errors of ``knn_class_accuracy``; of the particles ``rows`` (n,) alone, or of all: (n,) states.
    """
    z = untied(checked(mu))
    labels = _per_particle(state, len(z))
    if len(z) < 2:
        return None
    classes, which = np.unique(labels, return_inverse=True)
    nearest = which[_nearest(z, k, np.arange(len(z)) if rows is None else rows)]
    counts = np.stack([(nearest == i).sum(axis=1) for i in range(len(classes))])
    votes: NDArray = classes[counts.argmax(axis=0)]
    return votes


def largest_class_fraction(state: ArrayLike) -> float:
    """Fraction of particles in the most frequent state: chance for ``knn_class_accuracy``."""
    _, counts = np.unique(np.asarray(state), return_counts=True)
    return float(counts.max() / counts.sum())


def knn_hinge_r2(mu: ArrayLike, hinge_rad: ArrayLike, k: int = 10) -> float | None:
    """R2 of the hinge angle predicted as the mean over the nearest neighbours in z.

    Key ``latents/knn_hinge_r2``. Leave-one-out: a particle's own angle is not in its mean. 1 is perfect and
    0 as good as the overall mean. Latents that know nothing come out slightly below 0, near -1/k: the mean
    of k random angles is noisier than the overall one. Collapsed latents, in random order as above, give
    just that. Of more than 10,000 particles, so many are predicted, as above.

    Args:
        mu: (N, zdim) means of q(z).
        hinge_rad: (N,) true hinge angle in rad; a plain number, not taken modulo a turn.
        k: how many neighbours are averaged; all others where there are fewer.

    Returns:
        R2, or None with fewer than two particles or where all angles are equal.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    from sklearn.metrics import r2_score

    z = untied(checked(mu))
    angle = _per_particle(hinge_rad, len(z)).astype(np.float64)
    if len(z) < 2 or np.ptp(angle) == 0:
        return None
    rows = drawn(len(z), LOOKED_AT)
    nearest = _nearest(z, k, rows)
    return None if np.ptp(angle[rows]) == 0 else float(r2_score(angle[rows], angle[nearest].mean(axis=1)))


def active_dimensions(mu: ArrayLike) -> float:
    """Number of dimensions of z that vary over the particles: Var_i(mu_i) > 0.01.

    Key ``latents/active_dimensions``. Burda, Grosse, Salakhutdinov 2016 (ICLR), section 5.2, with their
    threshold. Range 0 to zdim. A dimension that the decoder does not use is pulled to the prior and has
    mu = 0 everywhere. The prior N(0, 1) is the measure, so this number does change when z is scaled. A table
    that starts at random values has all dimensions active, used or not.

    Args:
        mu: (N, zdim) means of q(z).

    Returns:
        The number.

    Raises:
        ValueError: the array has the wrong shape or holds values that are not finite.
    """
    return float(np.count_nonzero(checked(mu).var(axis=0) > ACTIVE_VARIANCE))


def displacement_ratio(mu: ArrayLike, mu_altered: ArrayLike, seed: int = 0) -> float | None:
    """How far z moves, in units of the distance between two random particles.

    Key ``amortization/displacement_ratio``: mean_i |z'_i - z_i| / mean_(i != j) |z_i - z_j|. 0 is an encoder
    that does not notice, 1 is one that puts the altered image where any other particle might be. Figs. 10
    and 11 of the paper (section 3.4) as a number.

    Args:
        mu: (N, zdim) means of q(z) for the images.
        mu_altered: (N, zdim) means of q(z) for the same images, altered.
        seed: draws the random pairs where there are more than 5,000 particles; below that all pairs are used.

    Returns:
        The ratio, or None where the denominator is zero: fewer than two particles, or collapsed latents.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    each = displacements(mu, mu_altered, seed)
    return None if each is None else float(each.mean())


def displacements(mu: ArrayLike, mu_altered: ArrayLike, seed: int = 0) -> Floats | None:
    """How far the z of every particle moves: (N,), of which ``displacement_ratio`` is the mean.

    Arguments and errors as there; None where that is None.
    """
    z, moved = checked(mu), checked(mu_altered)
    _check_partners(z, moved)
    between = _mean_pair_distance(z, seed)
    return np.linalg.norm(moved - z, axis=1) / between if between > 0 else None


def neighbour_rank(mu: ArrayLike, mu_altered: ArrayLike) -> float | None:
    """Median over particles of ``neighbour_ranks``: 0 is perfect, 0.5 is chance.

    Key ``amortization/neighbour_rank``. Arguments and errors as there; None with fewer than two particles. Of
    more than 10,000 particles, so many are looked at, drawn with a seed.
    """
    n = len(np.asarray(mu))
    return float(np.median(neighbour_ranks(mu, mu_altered, drawn(n, LOOKED_AT)))) if n > 1 else None


def neighbour_ranks(mu: ArrayLike, mu_altered: ArrayLike, rows: Indices | None = None) -> Floats:
    """Fraction of the other particles whose z lies nearer to z'_i than z_i does.

    A particle exactly as far away as z_i counts one half, so collapsed latents give 0.5, chance, and not 0.
    Exact over all pairs in blocks of 64 MB. All of 131,899 particles with zdim 8 take half a minute to a
    minute and a half on a CPU core, 10,000 of them 2.6 s.

    Args:
        mu: (N, zdim) means of q(z) for the images, N at least 2.
        mu_altered: (N, zdim) means of q(z) for the same images, altered.
        rows: (n,) particles that are looked at; None: all.

    Returns:
        (n,) fractions from 0 to 1.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite, or N is 1.
    """
    z, moved = checked(mu), checked(mu_altered)
    _check_partners(z, moved)
    if len(z) < 2:
        raise ValueError("a neighbour rank needs at least two particles, found one")
    rows = np.arange(len(z)) if rows is None else rows
    centre = np.median(z, axis=0)
    z, moved, itself = z - centre, moved[rows] - centre, z[rows] - centre
    # |z_j - z'_i|^2 < |z_i - z'_i|^2 means |z_j|^2 - 2 z_j z'_i < |z_i|^2 - 2 z_i z'_i: one matrix product.
    norm2 = np.sum(z**2, axis=1)
    points = np.vstack([z.T, norm2])
    probes = np.column_stack([-2 * moved, np.ones(len(rows))])
    own = norm2[rows] - 2 * np.sum(itself * moved, axis=1)
    # Ten times the rounding of the product: distances that agree to float32 count as equal.
    slack = 1e-14 * (norm2.max() + 2 * np.sqrt(norm2.max() * np.sum(moved**2, axis=1)))
    ranks = np.empty(len(rows))
    at_once = max(1, _DISTANCES_AT_ONCE // len(z))
    for start in range(0, len(rows), at_once):
        for i, distances in enumerate(probes[start : start + at_once] @ points, start):
            nearer = np.count_nonzero(distances < own[i] - slack[i])
            not_farther = np.count_nonzero(distances <= own[i] + slack[i])  # z_i itself among them
            ranks[i] = nearer + 0.5 * (not_farther - 1 - nearer)
    return ranks / (len(z) - 1)


def drawn(n: int, most: int, seed: int = 0) -> Indices:
    """Return all of n particles (n,), or a random choice of ``most`` in order."""
    if n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


def _nearest(z: Floats, k: int, rows: Indices) -> Indices:
    """The k particles nearest to each of some (n,), itself left out: (n, k); all others where there are fewer."""
    from sklearn.neighbors import NearestNeighbors

    k = min(k, len(z) - 1)
    found = NearestNeighbors(n_neighbors=k + 1).fit(z).kneighbors(z[rows], return_distance=False)
    others = found != rows[:, None]
    others[others.all(axis=1), -1] = False  # rounding has pushed the particle itself off the end
    nearest: Indices = found[others].reshape(len(rows), k)
    return nearest


def _mean_pair_distance(z: Floats, seed: int) -> float:
    """Mean distance between two different particles; 0 where there is only one."""
    from scipy.spatial.distance import pdist

    n = len(z)
    if n < 2:
        return 0.0
    if n <= _PAIRS_EXACT_UP_TO:
        return float(pdist(z).mean())
    rng = np.random.default_rng(seed)
    first = rng.integers(n, size=_PAIRS_SAMPLED)
    second = (first + rng.integers(1, n, size=_PAIRS_SAMPLED)) % n
    return float(np.linalg.norm(z[first] - z[second], axis=1).mean())


def untied(z: Floats, seed: int = 0) -> Floats:
    """Z with bit-equal rows set apart in a random but fixed order, by a billionth of the spread."""
    z = z - np.median(z, axis=0)
    spread = np.abs(z).max() or 1.0
    return z + 1e-9 * spread * np.random.default_rng(seed).standard_normal(z.shape)


def checked(mu: ArrayLike) -> Floats:
    """Mu as float64, checked to be a finite (N, zdim)."""
    z = np.asarray(mu, dtype=np.float64)
    if z.ndim != 2 or z.size == 0:
        raise ValueError(f"latents must be (N, zdim), found shape {z.shape}")
    finite = np.isfinite(z).all(axis=1)
    if not finite.all():
        raise ValueError(f"{np.count_nonzero(~finite)} of {len(z)} latents are not finite")
    return z


def _per_particle(values: ArrayLike, n: int) -> NDArray:
    """Values as an array, checked to hold one per particle."""
    array = np.asarray(values)
    if array.shape != (n,):
        raise ValueError(f"expected one label for each of {n} particles, found shape {array.shape}")
    return array


def _check_partners(z: Floats, moved: Floats) -> None:
    if z.shape != moved.shape:
        raise ValueError(f"latents and altered latents must be alike, found {z.shape} and {moved.shape}")


def vote(mu: ArrayLike, labels: ArrayLike, at: ArrayLike, k: int = K) -> NDArray[Any]:
    """Return the class that most of the k nearest particles have.

    Args:
        mu: (N, zdim) of the particles that vote.
        labels: (N,) their classes.
        at: (n, zdim) where to ask, in the same space; other particles than those that vote.
        k: voters; all where there are fewer. A tie goes to the smallest label.

    Returns:
        (n,) classes.
    """
    from sklearn.neighbors import KNeighborsClassifier

    voters = np.asarray(mu, dtype=np.float64)
    classifier = KNeighborsClassifier(n_neighbors=min(k, len(voters))).fit(voters, np.asarray(labels))
    winners: NDArray[Any] = classifier.predict(np.asarray(at, dtype=np.float64))
    return winners


def vote_of_others(mu: ArrayLike, labels: ArrayLike, at: ArrayLike, k: int = K) -> NDArray[Any]:
    """Return the same where place i belongs to particle i, which does not vote on it.

    Args:
        mu: (N, zdim) of the particles, N at least 2.
        labels: (N,) their classes.
        at: (N, zdim), a place for each.
        k: voters; all others where there are fewer. A tie goes to the smallest label.

    Returns:
        (N,) classes.
    """
    from sklearn.neighbors import NearestNeighbors

    voters, places = np.asarray(mu, dtype=np.float64), np.asarray(at, dtype=np.float64)
    classes, number = np.unique(np.asarray(labels), return_inverse=True)
    k = min(k, len(voters) - 1)
    nearest = NearestNeighbors(n_neighbors=k + 1).fit(voters).kneighbors(places, return_distance=False)
    is_self = nearest == np.arange(len(voters))[:, None]
    is_self[~is_self.any(axis=1), -1] = True  # it is not among them: the farthest of the k + 1 goes
    voting = number[nearest[~is_self].reshape(-1, k)]
    votes = np.stack([(voting == each).sum(axis=1) for each in range(len(classes))], axis=1)
    winners: NDArray[Any] = classes[votes.argmax(axis=1)]
    return winners


def accuracy_elsewhere(mu: ArrayLike, labels: ArrayLike, at: ArrayLike, true_labels: ArrayLike, k: int = K) -> float:
    """Fraction of particles whose class the nearest ones of another set tell: 0 to 1.

    ``latents/knn_class_accuracy`` is the same within one set, where nobody votes for itself.
    """
    return float(np.mean(vote(mu, labels, at, k) == np.asarray(true_labels)))
