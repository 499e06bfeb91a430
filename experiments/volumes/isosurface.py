"""Isosurfaces of volumes as pictures, without a display or a GL library: an orthographic ray caster.

Every picture has the same view and the same frame, so volumes of one report compare at a glance; they are to
be drawn at one threshold (:func:`threshold_of`). For display alone, a volume is low-passed by a Gaussian of
half a voxel, islands far smaller than the particle are left out, and the density between voxels is its cubic spline.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from experiments.metrics.fsc import spherical_mask
from experiments.volumes.ray_caster import Scene, view_of_box

Volume = NDArray[np.float32]
Floats = NDArray[np.float32]

STEEL = (0.66, 0.76, 0.88)
SMOOTHING_PX = 0.5
NOISE_FLOOR = 4.0
"""The surface lies at least so many standard deviations of the solvent above it."""

DUST = 0.01
"""Islands of less than this fraction of the largest one are dust."""

FRAME = 0.85
"""Half the picture's side over half the box's: the sphere in which the images were windowed."""

EDGE = 0.92
"""Beyond this fraction of D/2 there is no density: every surface is closed inside the box."""

SUPERSAMPLING = 2


def threshold_of(volumes: Iterable[Volume]) -> float:
    """Return one density at which all volumes of a report are drawn.

    It is half way between solvent and particle: Otsu's threshold of a volume's voxels inside the window's sphere
    (which is where the means of the voxels below and above it are equally far), and of these the median over
    the volumes. One threshold for all shows a domain that is partly there as partly there; a volume that is
    all solvent does not move it.

    Args:
        volumes: (D, D, D) each, of the same particles; taken one by one.

    Returns:
        The threshold; 0 of no volumes.
    """
    each = (_threshold_of(_smoothed(volume)[_sphere(len(volume), FRAME)]) for volume in volumes)
    found = [threshold for threshold in each if threshold is not None]
    return float(np.median(found)) if found else 0.0


def frame_of(volumes: Iterable[Volume], threshold: float) -> float:
    """Return the tightest frame that shows all surfaces whole, a fraction of the box's side for :func:`render`."""
    largest = 0.0
    for volume in volumes:
        shown = displayed(volume, threshold)
        if shown is not None:
            centre = len(shown) // 2
            inside = view_of_box() @ (np.argwhere(shown >= threshold)[:, ::-1] - centre).T
            largest = max(largest, (np.abs(inside[:2]).max() + 1.5) / (len(shown) / 2))
    return min(FRAME, largest) or FRAME


def render(
    volume: Volume,
    threshold: float,
    size_px: int = 256,
    colour: Sequence[float] = STEEL,
    frame: float = FRAME,
) -> NDArray[np.uint8]:
    """Draw the isosurface of a volume.

    Args:
        volume: (D, D, D), [z, y, x].
        threshold: density of the surface.
        size_px: side of the picture.
        colour: red, green, blue from 0 to 1.
        frame: how much of the box's side the picture shows; the same for all that are to be compared.

    Returns:
        (size_px, size_px, 4) red, green, blue and opacity; transparent where there is no surface, and
        everywhere where no density reaches the threshold.
    """
    side = size_px * SUPERSAMPLING
    picture = np.zeros((side, side, 4), np.float32)
    shown = displayed(volume, threshold)
    if shown is not None:
        scene = Scene.of(shown, threshold)
        hits = scene.hits(side, frame)
        if len(hits.rows):
            lit = scene.shade(hits.points, hits.normals) * np.asarray(colour, np.float32)
            picture[hits.rows, hits.columns, :3] = lit
            picture[hits.rows, hits.columns, 3] = 1
    return _downsampled(picture, size_px)


def mesh(volume: Volume, threshold: float, max_faces: int = 12_000) -> tuple[Floats, NDArray[np.int32]]:
    """Triangulate the isosurface that :func:`render` draws, by marching cubes (scikit-image).

    The grid is as fine as ``max_faces`` allows, up to half a voxel; a coarser one sees a low-passed density.

    Args:
        volume: (D, D, D), [z, y, x].
        threshold: density of the surface.
        max_faces: of the mesh.

    Returns:
        Vertices (V, 3), x, y, z in px from the central voxel, and triangles (F, 3) into them,
        counter-clockwise seen from outside; both empty where no density reaches the threshold.
    """
    from skimage.measure import marching_cubes

    shown = displayed(volume, threshold)
    if shown is None:
        return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
    low, centre = float(shown.min()), len(shown) // 2
    occupied = np.argwhere(shown >= threshold)
    first, last = occupied.min(axis=0) - 2, occupied.max(axis=0) + 2
    spacing_px = max(0.5, len(shown) / 128)
    while True:
        # The smoothing of a coarse grid is what the finer one would have averaged away.
        density = ndimage.gaussian_filter(shown, 0.4 * spacing_px) if spacing_px > 1 else shown
        shape = tuple(np.ceil((last - first) / spacing_px).astype(int) + 1)
        grid = ndimage.affine_transform(
            density, np.full(3, spacing_px), first, shape, order=3, mode="constant", cval=low, output=np.float32
        )
        if grid.max() <= threshold:
            return np.empty((0, 3), np.float32), np.empty((0, 3), np.int32)
        vertices, faces, _, _ = marching_cubes(grid, threshold)
        if len(faces) <= max_faces:
            break
        spacing_px *= max(1.05, 1.02 * float(np.sqrt(len(faces) / max_faces)))
    xyz = (first + spacing_px * vertices - centre)[:, ::-1]
    return np.ascontiguousarray(xyz, np.float32), np.asarray(faces, np.int32)


def displayed(volume: Volume, threshold: float) -> Volume | None:
    """Return a volume as it is drawn: low-passed, without dust; None where nothing reaches the threshold.

    Outside the sphere of the window it fades out, so that every surface is closed.
    """
    density = _smoothed(volume)
    low = float(density.min())
    if not np.isfinite(density).all() or density.max() < threshold or low >= threshold:
        return None
    within = _sphere(len(density), EDGE)
    height = threshold - float(np.median(density[within]))
    density[~within] = low
    if not (density >= threshold).any():
        return None
    return _dusted(density, threshold - 0.15 * height, threshold - 0.25 * height)


def _dusted(density: Floats, joined: float, limit: float) -> Floats:
    """Lower what is no part of the particle, even at a density somewhat below the surface's.

    Args:
        density: is changed.
        joined: density at which parts count as one.
        limit: what the rest is cut off at, so low that the spline between two voxels does not reach the surface's.
    """
    labels, _ = ndimage.label(density >= joined)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    large = sizes[labels] >= DUST * sizes.max()
    dust = ndimage.binary_dilation((labels > 0) & ~large) & ~ndimage.binary_dilation(large)
    rest = dust | ~ndimage.binary_dilation(large, iterations=2)
    density[rest] = np.minimum(density[rest], limit)
    return density


def _smoothed(volume: Volume) -> Floats:
    smoothed: Floats = ndimage.gaussian_filter(np.asarray(volume, np.float32), SMOOTHING_PX)
    return smoothed


def _downsampled(picture: Floats, size_px: int) -> NDArray[np.uint8]:
    """Average k x k pixels, the colour weighted by opacity so that edges do not darken."""
    k = len(picture) // size_px
    picture[..., :3] *= picture[..., 3:]
    mean = picture.reshape(size_px, k, size_px, k, 4).mean(axis=(1, 3))
    mean[..., :3] /= np.maximum(mean[..., 3:], 1e-6)
    return np.rint(255 * np.clip(mean, 0, 1)).astype(np.uint8)


def _threshold_of(values: Floats) -> float | None:
    """Return a volume's own threshold; None of a constant."""
    low, high = np.percentile(values, (0.01, 99.99))
    if not high > low:
        return None
    median = np.median(values)
    noise = 1.4826 * np.median(np.abs(values - median))
    return max(_otsu(values, low, high), float(median + NOISE_FLOOR * noise))


def _otsu(values: Floats, low: float, high: float) -> float:
    """Return the threshold with the largest variance between classes (Otsu 1979)."""
    counts, edges = np.histogram(values, 512, (low, high))
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (sums[:-1] / below - (sums[-1] - sums[:-1]) / above) ** 2
    return float(edges[1:-1][np.nanargmax(between)])


def _sphere(box_px: int, radius: float) -> NDArray[np.bool_]:
    """Return the voxels within a fraction of D/2 of the central one."""
    mask: NDArray[np.bool_] = spherical_mask(box_px, radius, edge=0) > 0
    return mask
