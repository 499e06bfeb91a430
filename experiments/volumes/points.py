"""Where in latent space a run is looked at: first particles, k-means centres, a principal component, a list."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import load_npy, load_npz

N_FIRST = 6
"""The paper shows the volumes of the first six particles."""

N_CENTRES = 20
"""``cryodrgn analyze`` shows twenty."""


@dataclass(frozen=True)
class Points:
    """n points in latent space.

    Attributes:
        names: a file name's stem for each.
        z: (n, zdim) float32.
        particles: the particle that each is the mu of, counted from 0; None where it is no particle's.
    """

    names: list[str]
    z: NDArray[np.float32]
    particles: list[int | None]

    def __add__(self, other: "Points") -> "Points":
        """Return both, one after the other."""
        z = np.concatenate([self.z, other.z])
        return Points(self.names + other.names, z, self.particles + other.particles)

    def __len__(self) -> int:
        """Return n."""
        return len(self.names)


def first_particles(mu: ArrayLike, n: int = N_FIRST, prefix: str = "first") -> Points:
    """Return the latents of the first particles (paper, Figs. 3, 5, 7 to 11 and 21 to 26).

    Args:
        mu: (N, zdim) means of q(z).
        n: how many; all where there are fewer.
        prefix: of the names, which are counted from 1 as the figures' labels are.
    """
    z = _latents(mu)[:n]
    return Points([f"{prefix}_{i}" for i in range(1, len(z) + 1)], z, list(range(len(z))))


def kmeans_centres(mu: ArrayLike, k: int = N_CENTRES) -> Points:
    """Return the particles nearest to the k-means centres, as ``cryodrgn.analysis.cluster_kmeans`` does.

    The centres are in the order of the leaves of their average-linkage tree, so that alike volumes are near
    each other. Where latents coincide, centres do too, and the same particle comes more than once.

    Args:
        mu: (N, zdim) means of q(z).
        k: how many centres; N where there are fewer particles.

    Returns:
        The particles' own latents, named kmeans_00 and so on.
    """
    import warnings

    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import cdist
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    z = _latents(mu)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different latents than centres
        centres = KMeans(n_clusters=min(k, len(z)), random_state=0, max_iter=10).fit(z).cluster_centers_
    nearest = cdist(centres, z).argmin(axis=1)
    if len(nearest) > 1:
        nearest = nearest[leaves_list(linkage(z[nearest], method="average"))]
    digits = max(2, len(str(len(nearest) - 1)))
    return Points([f"kmeans_{i:0{digits}}" for i in range(len(nearest))], z[nearest], [int(i) for i in nearest])


def principal_component(mu: ArrayLike, component: int = 1, steps: int = 10) -> Points:
    """Walk along a principal component of the latents, as ``cryodrgn analyze`` does.

    Args:
        mu: (N, zdim) means of q(z).
        component: counted from 1.
        steps: points, evenly from the 5th to the 95th percentile; the other components are at their mean.

    Returns:
        Points that are no particle's, named pc1_00 and so on.

    Raises:
        InputError: there is no such component.
    """
    from sklearn.decomposition import PCA

    z = _latents(mu)
    n_components = min(z.shape)
    if not 1 <= component <= n_components:
        raise InputError(f"principal component {component}: expected 1 to {n_components}, as many as the latents have")
    pca = PCA(n_components).fit(z)
    along = pca.transform(z)[:, component - 1]
    places = np.zeros((steps, n_components))
    start, end = np.percentile(along, (5, 95))
    places[:, component - 1] = np.linspace(start, end, steps)
    names = [f"pc{component}_{i:02}" for i in range(steps)]
    return Points(names, pca.inverse_transform(places).astype(np.float32), [None] * steps)


def listed(path: Path, zdim: int) -> Points:
    """Read points from a file.

    Args:
        path: .txt with one z in each row, as ``cryodrgn eval_vol --zfile`` takes it; .npy; or .npz that holds
            ``z``, or ``mu`` as a run's latents.npz does.
        zdim: of the run.

    Returns:
        Points that are no particle's, named z_000 and so on.

    Raises:
        InputError: the file cannot be read, or holds something else.
    """
    z = _read(path)
    if z.ndim <= 1:
        z = z.reshape(-1, zdim) if z.size % zdim == 0 else z.reshape(1, -1)
    if z.ndim != 2 or z.shape[1] != zdim or not len(z):
        raise InputError(f"{path}: holds z of shape {z.shape}, expected (n, {zdim}): the run has zdim={zdim}")
    if not np.isfinite(z).all():
        raise InputError(f"{path}: holds values that are not finite, expected numbers")
    digits = max(3, len(str(len(z) - 1)))
    return Points([f"z_{i:0{digits}}" for i in range(len(z))], z, [None] * len(z))


def _read(path: Path) -> NDArray[np.float32]:
    kinds = (".txt", ".npy", ".npz")
    if path.suffix not in kinds:
        raise InputError(f"{path}: a file of z ends in {', '.join(kinds)}; convert it to one of them")
    try:
        if path.suffix == ".txt":
            return np.loadtxt(path, dtype=np.float32, ndmin=1, encoding="utf-8")
        if path.suffix == ".npy":
            return np.asarray(load_npy(path), dtype=np.float32)
        loaded = load_npz(path)
        key = next((key for key in ("z", "mu") if key in loaded), None)
        if key is None:
            raise InputError(f"{path}: holds {', '.join(loaded) or 'nothing'}, expected z or mu")
        return np.asarray(loaded[key], dtype=np.float32)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path}: z cannot be read ({' '.join(str(error).split())})") from None


def _latents(mu: ArrayLike) -> NDArray[np.float32]:
    z = np.asarray(mu, dtype=np.float32)
    if z.ndim != 2 or z.size == 0 or not np.isfinite(z).all():
        raise ValueError(f"latents must be a finite (N, zdim), found shape {z.shape}")
    return z
