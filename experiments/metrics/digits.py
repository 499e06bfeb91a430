"""Numbers about digits: which are told apart in z, and which are still read right when they are reconstructed."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.metrics.latents import knn_votes

# The paper's remark on its latent plane (appendix B.1.2): these stand alone, and those run into each other.
APART, MIXED = (0, 1), (4, 6, 8, 9)


def accuracy_of_digits(mu: ArrayLike, digit: ArrayLike, of: tuple[int, ...], k: int = 10) -> float | None:
    """Fraction of the images of some digits whose own digit wins the vote of their nearest neighbours in z.

    Keys ``latents/knn_accuracy_0_1`` and ``latents/knn_accuracy_4_6_8_9``. Each digit counts alike, however many
    images it has. Ties and equal latents as in ``metrics.knn_class_accuracy``.

    Args:
        mu: (N, zdim) means of q(z).
        digit: (N,) the true ones.
        of: which digits are asked about; all others vote.
        k: how many neighbours vote.

    Returns:
        From 0 to 1; None where there is no image of one of them, or a single image in all.
    """
    truth, votes = np.asarray(digit), knn_votes(mu, digit, k)
    if votes is None or not np.isin(of, truth).all():
        return None
    return float(np.mean([np.mean(votes[truth == one] == one) for one in of]))


class DigitReader:
    """A classifier of digits that no run has a part in: it is trained on the images alone, and always the same.

    A support vector machine on the 40 largest principal components. It comes in two halves: the images at even
    positions are read by what was trained on those at odd ones, and the other way round, so that nothing is read by
    heart.
    """

    def __init__(self, images: ArrayLike, digit: ArrayLike) -> None:
        """Train it.

        Args:
            images: (N, M), from 0 to 1.
            digit: (N,) what they show.
        """
        self.digit = np.asarray(digit)
        self.halves = [self._trained(np.asarray(images)[half::2], self.digit[half::2]) for half in (0, 1)]

    @staticmethod
    def _trained(images: NDArray[np.float32], digit: NDArray[np.int64]) -> Any:
        from sklearn.decomposition import PCA
        from sklearn.dummy import DummyClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import SVC

        if len(np.unique(digit)) < 2:  # nothing to tell apart
            return DummyClassifier(strategy="most_frequent").fit(images, digit)
        components = min(40, *images.shape)
        return make_pipeline(PCA(components, svd_solver="full"), SVC(C=5)).fit(images, digit)

    def read(self, images: ArrayLike) -> NDArray[np.int64]:
        """Read images (N, M): originals, or what became of them, in the order of training. Returns (N,) digits."""
        seen = np.asarray(images)
        found = np.empty(len(seen), dtype=np.int64)
        for half in (0, 1):
            found[half::2] = self.halves[1 - half].predict(seen[half::2])
        return found

    def accuracy(self, read: NDArray[np.int64]) -> float:
        """Return the fraction of (N,) readings that are the digits of the originals."""
        return float(np.mean(read == self.digit))
