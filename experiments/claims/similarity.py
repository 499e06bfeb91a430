"""How alike two finished runs are, without ground truth: neighbours, CKA, and the volumes of the same particles.

Each similarity has its chance level: the same number with the particles of one run out of order. Both are
functions of two runs, and None where a run lacks what is compared.
"""

import functools
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.claims.comparable_runs import latents_of
from experiments.metrics.agreement import information_imbalance, knn_r2, linear_cka, neighbourhood_overlap
from experiments.metrics.fsc import matched_fsc_auc, spherical_mask
from experiments.metrics.latents import Floats, Indices, checked
from experiments.runs.folders import RunFolder
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.mrc_headers import read_volume
from lightning_modules.files.safe_numpy import load_npz

logger = logging.getLogger(__name__)

# Of the particles, how many count as near: a cluster's inside, where single neighbours would be the noise's.
NEAR = 1 / 20
# The six volumes that the paper shows are too few to tell how alike two runs are; these are decoded anew, and coarser.
N_DECODED, FINEST_PX = 48, 32
N_STORED = 6

Volume = NDArray[np.float32]


def overlap(a: RunFolder, b: RunFolder) -> float | None:
    """Return the mean fraction of a particle's neighbours in one z that are neighbours in the other's."""
    return _of_latents(a, b, _overlap, shuffled=False)


def overlap_by_chance(a: RunFolder, b: RunFolder) -> float | None:
    """Return the same, with the particles of one run out of order."""
    return _of_latents(a, b, _overlap, shuffled=True)


def cka(a: RunFolder, b: RunFolder) -> float | None:
    """Return linear CKA: similarity of two z up to rotation and scale."""
    from experiments.metrics.agreement import linear_cka

    return _of_latents(a, b, linear_cka, shuffled=False)


def cka_by_chance(a: RunFolder, b: RunFolder) -> float | None:
    """Return the same, with the particles of one run out of order."""
    from experiments.metrics.agreement import linear_cka

    return _of_latents(a, b, linear_cka, shuffled=True)


def volumes(a: RunFolder, b: RunFolder) -> float | None:
    """Return the mean area under the FSC between the two runs' volumes of the same particles."""
    areas = _areas(a, b, (0,))
    return float(np.mean(areas)) if areas else None


def volumes_error(a: RunFolder, b: RunFolder) -> float | None:
    """Return the standard error of that mean."""
    areas = _areas(a, b, (0,))
    return float(np.std(areas, ddof=1) / np.sqrt(len(areas))) if len(areas) > 1 else None


def volumes_by_chance(a: RunFolder, b: RunFolder) -> float | None:
    """Return the same between volumes of different particles: all that such volumes have in common anyway."""
    areas = _areas(a, b, range(1, 6))
    return float(np.mean(areas)) if areas else None


def displacement(a: RunFolder, b: RunFolder) -> float | None:
    """Return how far apart the same particles are in two z, one turned and scaled onto the other.

    In units of the distance between two random particles, as an altered image's displacement is.
    """
    from experiments.metrics.latents import displacement_ratio

    return _of_latents(a, b, lambda mu_a, mu_b: displacement_ratio(mu_a, _onto(mu_a, mu_b)), shuffled=False)


def rank(a: RunFolder, b: RunFolder) -> float | None:
    """Return the median fraction of particles that are nearer to a particle's z in the other run than its own z is.

    The other z is turned and scaled onto the one first.
    """
    from experiments.metrics.latents import neighbour_rank

    return _of_latents(a, b, lambda mu_a, mu_b: neighbour_rank(mu_a, _onto(mu_a, mu_b)), shuffled=False)


def _onto(mu_a: NDArray[np.float32], mu_b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Turn, scale and shift one z to lie as near to the other as it can (orthogonal Procrustes)."""
    from scipy.linalg import orthogonal_procrustes

    centre_a, centre_b = mu_a.mean(axis=0, dtype=float), mu_b.mean(axis=0, dtype=float)
    centred = mu_b - centre_b
    rotation, scale = orthogonal_procrustes(centred, mu_a - centre_a)
    moved: NDArray[np.float64] = centre_a + centred @ rotation * (scale / (np.sum(centred**2) or 1.0))
    return moved


def _overlap(mu_a: NDArray[np.float32], mu_b: NDArray[np.float32]) -> float | None:
    from experiments.metrics.agreement import neighbourhood_overlap

    return neighbourhood_overlap(mu_a, mu_b, k=max(1, round(NEAR * len(mu_a))))


def _of_latents(
    a: RunFolder,
    b: RunFolder,
    compare: Callable[[NDArray[np.float32], NDArray[np.float32]], float | None],
    shuffled: bool,
) -> float | None:
    mu_a, mu_b = latents_of(a), latents_of(b)
    if mu_a is None or mu_b is None or len(mu_a) != len(mu_b):
        return None
    return compare(mu_a, np.random.default_rng(0).permutation(mu_b) if shuffled else mu_b)


def _areas(a: RunFolder, b: RunFolder, shifts: Iterable[int]) -> list[float]:
    """Return areas under the FSC between particle i's volume in one run and particle i + shift's in the other."""
    from experiments.metrics.fsc import fsc_auc, spherical_mask

    of_a, of_b = _decoded(a.folder), _decoded(b.folder)
    if not of_a or not of_b:  # without weights there are the volumes that the paper shows
        of_a, of_b = _stored(a.folder), _stored(b.folder)
    if not of_a or len(of_a) != len(of_b) or of_a[0].shape != of_b[0].shape:
        return []
    n, mask = len(of_a), spherical_mask(len(of_a[0]))
    areas = (fsc_auc(of_a[i], of_b[(i + shift) % n], mask) for shift in shifts for i in range(n))
    return [area for area in areas if area is not None]


@functools.lru_cache(maxsize=64)
def _decoded(folder: Path) -> list[Volume]:
    """Decode volumes of some particles, the same ones for every run; none where a run has no weights."""
    from experiments.runs.stored_results import read_latents
    from experiments.volumes.run_volumes import decoder_of

    try:
        mu = read_latents(folder).mu.numpy()
        rows = np.sort(np.random.default_rng(0).permutation(len(mu))[:N_DECODED])
        decoder = decoder_of(Run.load(folder))
        return list(decoder.decode(mu[rows], min(decoder.box_px, FINEST_PX)))
    except Exception as error:  # no weights, or those of another version of the suite: many kinds
        logger.info("%s: its volumes are not decoded anew (%s)", folder, error)
        return []


@functools.lru_cache(maxsize=64)
def _stored(folder: Path) -> list[Volume]:
    """Read the volumes of the first six particles; none unless they are all there."""
    from lightning_modules.files.mrc_headers import read_volume

    paths = [folder / "volumes" / f"first_{i + 1}.mrc" for i in range(N_STORED)]
    try:
        return [read_volume(path) for path in paths]
    except InputError:
        return []


def agreement(run_a: Run, run_b: Run) -> dict[str, float | None]:
    """Compare two finished runs of the same particles.

    Args:
        run_a: one run; its latents.npz is read, and its volumes/first_*.mrc where both runs have them.
        run_b: the other. The runs may hold different selections of the particles: those in both are compared.

    Returns:
        ``agreement/neighbourhood_overlap``, ``agreement/cka``, ``agreement/knn_r2_ab``, ``agreement/knn_r2_ba``,
        ``agreement/imbalance_ab``, ``agreement/imbalance_ba`` and ``agreement/matched_volume_fsc_auc`` (mean
        ``fsc_auc`` under a soft sphere between the volumes at the z of the same first particles). ``ab`` is
        what run_a tells of run_b.

    Raises:
        InputError: a run is not finished, its latents or volumes cannot be read, or the particles differ.
    """
    mu_a, mu_b = same_latents(run_a, run_b)
    return {
        "agreement/neighbourhood_overlap": neighbourhood_overlap(mu_a, mu_b),
        "agreement/cka": linear_cka(mu_a, mu_b),
        "agreement/knn_r2_ab": knn_r2(mu_a, mu_b),
        "agreement/knn_r2_ba": knn_r2(mu_b, mu_a),
        "agreement/imbalance_ab": information_imbalance(mu_a, mu_b),
        "agreement/imbalance_ba": information_imbalance(mu_b, mu_a),
        "agreement/matched_volume_fsc_auc": _first_volumes_auc(run_a.folder, run_b.folder),
    }


def same_latents(run_a: Run, run_b: Run) -> tuple[Floats, Floats]:
    """Read the means of q(z) of the particles that two finished runs have in common, in the same order.

    Raises:
        InputError: as for ``agreement``.
    """
    from experiments.runs.stored_results import same_particles

    for run in (run_a, run_b):
        if run.metrics is None:
            raise InputError(f"{run.folder}: this run is not finished, expected one with metrics.json; finish it first")
    same_particles(run_a.config, run_b.config, said_by=str(run_b.folder))
    (index_a, mu_a), (index_b, mu_b) = (_means(run.folder) for run in (run_a, run_b))
    common, rows_a, rows_b = np.intersect1d(index_a, index_b, assume_unique=True, return_indices=True)
    if len(common) == 0:
        raise InputError(f"{run_b.folder}: none of its particles is in {run_a.folder}; name runs of the same particles")
    return mu_a[rows_a], mu_b[rows_b]


def _means(folder: Path) -> tuple[Indices, Floats]:
    """The particles' index (N,) and mu (N, zdim) of a run."""
    from experiments.runs.stored_results import read_latents

    mu = checked(read_latents(folder).mu)
    stored = load_npz(folder / "latents.npz")
    return stored["index"] if "index" in stored else np.arange(len(mu)), mu


def _first_volumes_auc(folder_a: Path, folder_b: Path) -> float | None:
    """Mean FSC area over the volumes/first_*.mrc that both runs have."""
    names = sorted({path.name for path in (folder_a / "volumes").glob("first_*.mrc")})
    names = [name for name in names if (folder_b / "volumes" / name).is_file()]
    if not names:
        return None
    sides = ([read_volume(folder / "volumes" / name) for name in names] for folder in (folder_a, folder_b))
    volumes_a, volumes_b = sides
    return matched_fsc_auc(volumes_a, volumes_b, spherical_mask(len(volumes_a[0])))
