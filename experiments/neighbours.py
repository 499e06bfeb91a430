"""Which class a place in latent space belongs to, by a vote of the nearest particles there."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

K = 10


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
