"""What latents and volumes know about the truth, where it is known.

With labels: the vote of the neighbours, and a mixture model's classes. With simulated particles also the true
conformations themselves: how well neighbours in z are neighbours in truth, and how well the volume decoded at a
particle's z is that particle's volume. Numbers about z are unchanged when it is rotated, shifted or scaled as a
whole. A number that does not exist is None.

Two conformations are as far apart as their true densities are: the root of the mean squared difference of V and
V' over all voxels. No weight has to be chosen between an assembly state and an angle, and it is what images can
tell: by the projection-slice theorem two conformations differ in their images only as far as their densities do.
CryoBench takes the same distance for its assembly states (its "voxel" embedding).
"""

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.agreement import information_imbalance, neighbourhood_overlaps
from experiments.metrics.latents import (
    Floats,
    checked,
    drawn,
    knn_class_accuracy,
    knn_hinge_r2,
    largest_class_fraction,
    untied,
)

POPULATION = 20_000  # particles among which CryoBench looks for neighbours
FRACTIONS = np.arange(1, 21) / 100  # CryoBench: 200 to 4,000 neighbours of 20,000 particles
CONFORMATION_BOX_PX = 32  # 13.1 A per px, for densities of 8 A standard deviation
HINGE_STEP_RAD = np.radians(6.0)


class TrueVolumes(Protocol):
    """Data whose conformations are known, such as ``SimulatedParticles``."""

    box_px: int

    def true_volume(self, state: int, hinge_rad: float, box_px: int | None = None) -> NDArray[np.float32]:
        """Return the density (D, D, D) of a conformation."""


def truth_metrics(mu: ArrayLike, labels: Mapping[str, ArrayLike] | None, data: Any) -> dict[str, float | None]:
    """Compare latents with the truth, as far as it is known.

    20,000 particles with zdim 8 take about 7 s on one CPU thread, 131,899 about 20 s.

    Args:
        mu: (N, zdim) means of q(z).
        labels: ``state`` (N,) and ``hinge_rad`` (N,), or what there is of them.
        data: where the particles come from; conformations are compared if it has ``true_volume``.

    Returns:
        ``latents/knn_class_accuracy``, ``latents/knn_class_chance`` and ``latents/class_ari`` where states are
        known, ``latents/knn_hinge_r2`` where angles are, and ``latents/neighbourhood_similarity``,
        ``latents/imbalance_to_truth`` and ``latents/imbalance_from_truth`` where true volumes are.
    """
    labels = labels or {}
    metrics: dict[str, float | None] = {}
    if "state" in labels:
        metrics["latents/knn_class_accuracy"] = knn_class_accuracy(mu, labels["state"])
        metrics["latents/knn_class_chance"] = largest_class_fraction(labels["state"])
        metrics["latents/class_ari"] = class_ari(mu, labels["state"])
    if "hinge_rad" in labels:
        metrics["latents/knn_hinge_r2"] = knn_hinge_r2(mu, labels["hinge_rad"])
    if has_true_volumes(data, labels):
        truth = conformations(data, labels["state"], labels["hinge_rad"])
        metrics["latents/neighbourhood_similarity"] = neighbourhood_similarity(truth, mu)
        metrics["latents/imbalance_to_truth"] = information_imbalance(mu, truth)
        metrics["latents/imbalance_from_truth"] = information_imbalance(truth, mu)
    return metrics


def has_true_volumes(data: Any, labels: Mapping[str, ArrayLike] | None) -> bool:
    """Tell whether the true volume of every particle is known."""
    return hasattr(data, "true_volume") and {"state", "hinge_rad"} <= (labels or {}).keys()


def class_ari(mu: ArrayLike, state: ArrayLike, seed: int = 0) -> float | None:
    """Adjusted Rand index between the true states and the components of a Gaussian mixture fitted to z.

    Key ``latents/class_ari``. Unlike a vote of neighbours, it is what one gets who does not know the states and
    clusters z. Hubert and Arabie 1985, by ``sklearn.metrics.adjusted_rand_score``. 1: the same classes; 0: what
    chance gives; at least -0.5. The mixture has as many components as there are states, each with its full
    covariance, the best of five seeded starts. A state that a continuous motion stretches into a curved cloud
    may be split, and another merged: 1 is not reached by every z that tells the states apart. The true
    conformations of the default simulated particles have 0.65.

    Fitted to at most 20,000 particles drawn with the seed; all are classified. Collapsed latents give 0.

    Args:
        mu: (N, zdim) means of q(z).
        state: (N,) true state of every particle.
        seed: of the starts.

    Returns:
        The index, or None where all particles are in one state.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.metrics import adjusted_rand_score
    from sklearn.mixture import GaussianMixture

    z, states = untied(checked(mu)), np.asarray(state)
    if states.shape != (len(z),):
        raise ValueError(f"expected one state for each of {len(z)} particles, found shape {states.shape}")
    n_states = len(np.unique(states))
    if n_states < 2:
        return None
    # The mixture's floor for a variance is absolute: z gets a spread of 1, the same in all directions.
    z = (z - z.mean(axis=0)) / np.sqrt(z.var(axis=0).mean())
    mixture = GaussianMixture(n_states, n_init=5, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(z[drawn(len(z), POPULATION, seed)])
    return float(adjusted_rand_score(states, mixture.predict(z)))


def neighbourhood_similarity(truth: ArrayLike, mu: ArrayLike, seed: int = 0) -> float | None:
    """CryoBench's neighbourhood similarity, averaged over its range of radii.

    Key ``latents/neighbourhood_similarity``. The mean of ``neighbourhood_curve`` over k = 1, 2, ... 20 percent
    of the particles: CryoBench draws it from k = 200 to 4,000, in steps of 200, among 20,000 particles. Range 0
    to 1: 1 where z orders the particles around each as the truth does, 0.105 by chance.

    Args and raises as there; None with fewer than four particles.
    """
    found = neighbourhood_curve(truth, mu, seed)
    return None if found is None else float(np.mean(found[1]))


def neighbourhood_curve(
    truth: ArrayLike, mu: ArrayLike, seed: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Fraction of a particle's k nearest neighbours in truth that are so in z, against k.

    Jeon et al. 2024 (CryoBench, after Boggust et al. 2022), metrics/neighborhood_similarity. Like there, it is
    computed among 20,000 particles, here drawn with the seed, where there are more. Unlike there, a particle is
    not its own neighbour, and the mean is over at most 4,000 of them.

    Args:
        truth: (N, dimensions) true conformations, as from ``conformations``.
        mu: (N, zdim) means of q(z).
        seed: draws the particles.

    Returns:
        k (20,) and the fraction (20,), or None with fewer than four particles.

    Raises:
        ValueError: an array has the wrong shape or holds values that are not finite.
    """
    true, z = checked(truth), checked(mu)
    if len(true) != len(z):
        raise ValueError(f"expected one true conformation for each of {len(z)} particles, found {len(true)}")
    rows = drawn(len(z), POPULATION, seed)
    k = np.maximum(1, np.rint(FRACTIONS * len(rows)).astype(np.int64))
    found = neighbourhood_overlaps(true[rows], z[rows], k, seed)
    return None if found is None else (k, found)


def conformations(data: TrueVolumes, state: ArrayLike, hinge_rad: ArrayLike) -> Floats:
    """Place true conformations in space so that their distances are those of their true densities.

    Densities are sampled every 6 degrees of the hinge in a box of 32 px, and turned into coordinates by
    classical scaling (their principal components, all but a millionth of the variance); angles between are
    interpolated: distances are right to a percent. Half a second, whatever N is.

    Args:
        data: knows the volumes.
        state: (N,) of every particle.
        hinge_rad: (N,) of every particle, in rad.

    Returns:
        (N, dimensions), in units of the distances' root mean square.
    """
    states, which = np.unique(np.asarray(state), return_inverse=True)
    angle = np.asarray(hinge_rad, dtype=np.float64)
    n_angles = int(np.ceil(np.ptp(angle) / HINGE_STEP_RAD)) + 1
    grid = np.linspace(angle.min(), angle.max(), n_angles)
    volumes = np.stack(
        [data.true_volume(int(s), float(a), CONFORMATION_BOX_PX).ravel() for s in states for a in grid]
    ).astype(np.float64)
    places = _principal_coordinates(volumes).reshape(len(states), n_angles, -1)
    if n_angles == 1:
        return places[which, 0]
    at = (angle - grid[0]) / (grid[1] - grid[0])
    before = np.clip(at.astype(np.int64), 0, n_angles - 2)
    share = (at - before)[:, None]
    return (1 - share) * places[which, before] + share * places[which, before + 1]


def _principal_coordinates(vectors: Floats) -> Floats:
    """Coordinates (n, few) with the distances of the vectors (n, many), scaled to a mean square distance of 1."""
    centred = vectors - vectors.mean(axis=0)
    variance, axes = np.linalg.eigh(centred @ centred.T)
    kept = np.flatnonzero(np.cumsum(variance.clip(min=0)) > 1e-6 * variance.sum())
    if variance[-1] <= 1e-12 * np.sum(vectors**2):
        return np.zeros((len(vectors), 1))
    coordinates: Floats = axes[:, kept] * np.sqrt(variance[kept])
    return coordinates / np.sqrt(2 * variance.sum() / len(vectors))
