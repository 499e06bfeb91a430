"""An orthographic ray caster: where rays meet the surface of a density, and how light falls there.

The density between voxels is its cubic spline, and all rays run along one axis of it. So the spline is evaluated one
axis at a time, by matrix products.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

VIEW_DEG = (25.0, 30.0)
"""Turn about the vertical axis, then tilt towards the viewer. Straight along an axis of the box hides one."""

BAND_PX = 32  # rows of a picture that are done at once
KEY_LIGHT = (-0.45, -0.65, 0.62)  # from the upper left, in front: x right, y down, z towards the viewer
FILL_LIGHT = (0.7, 0.1, 0.5)


class Hits(NamedTuple):
    """Where rays meet the surface.

    Attributes:
        rows: (n,) of the pixels that see it.
        columns: (n,) likewise.
        points: (3, n) in the view.
        normals: (3, n) outward, of length 1.
    """

    rows: NDArray[np.intp]
    columns: NDArray[np.intp]
    points: Floats
    normals: Floats

    @classmethod
    def none(cls) -> "Hits":
        """No pixel sees anything."""
        nowhere, nothing = np.empty(0, np.intp), np.empty((3, 0), np.float32)
        return cls(nowhere, nowhere, nothing, nothing)

    @classmethod
    def joined(cls, parts: Sequence["Hits"]) -> "Hits":
        """Put the parts of a picture together."""
        return cls(*(np.concatenate(arrays, axis=-1) for arrays in zip(*parts, strict=True)))


@dataclass(frozen=True)
class Scene:
    """A density seen along the view's axis; points are (3, n): z towards the viewer, y down, x right, in voxels.

    Attributes:
        density: (D, D, D) turned into the view.
        spline: its cubic spline's coefficients.
        threshold: of the surface.
        occupancy: how much of the surroundings is inside the surface, on a scale of a few voxels.
    """

    density: Floats
    spline: Floats
    threshold: float
    occupancy: Floats

    @classmethod
    def of(cls, density: Floats, threshold: float) -> "Scene":
        """Turn a density (D, D, D), [z, y, x], into the view."""
        turned = _turned(density)
        spline = ndimage.spline_filter(turned, order=3, output=np.float32)
        inside = np.clip((turned - threshold) / (0.5 * threshold + 1e-12) + 0.5, 0, 1)
        occupancy = ndimage.gaussian_filter(inside, 0.045 * len(density))
        return cls(turned, spline, threshold, occupancy)

    def hits(self, side: int, frame: float) -> Hits:
        """Follow a ray through each of side x side pixels to where it first meets the surface."""
        box, parts = len(self.density), [Hits.none()]
        axis = box // 2 + frame * box / 2 * (2 * (np.arange(side) + 0.5) / side - 1)
        near_surface = ndimage.maximum_filter(self.density, 3) >= self.threshold
        depth, *extent = (np.flatnonzero(near_surface.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1)))
        rows, columns = (np.flatnonzero(np.isin(np.rint(axis), voxels)) for voxels in extent)
        value, slope = _spline_weights(axis[columns], box)
        bottom = max(depth.min(initial=box) - 2, 0)
        slab = slice(bottom, depth.max(initial=bottom) + 4)
        across, x_slope = self.spline[slab] @ value.T, self.spline[slab] @ slope.T  # (z, y, columns)
        for start in range(0, len(rows), BAND_PX):
            band = rows[start : start + BAND_PX]
            value, slope = _spline_weights(axis[band], box)
            may_be = near_surface[slab, np.rint(axis[band]).astype(int)[:, None], np.rint(axis[columns]).astype(int)]
            row, column, z, normals = _crossings(
                value @ across, value @ x_slope, slope @ across, may_be, self.threshold
            )
            row, column = band[row], columns[column]
            parts.append(Hits(row, column, np.stack([bottom + z, axis[row], axis[column]]).astype(np.float32), normals))
        return Hits.joined(parts)

    def shade(self, points: Floats, normals: Floats) -> Floats:
        """Light surface points (3, n): (n, 1) brightness, about 1 where the key light falls."""
        key, fill = (np.asarray(light[::-1], np.float32) for light in (KEY_LIGHT, FILL_LIGHT))
        key, fill = key / np.linalg.norm(key), fill / np.linalg.norm(fill)
        diffuse = 0.5 + 0.5 * (key @ normals)  # wraps around: no hard shadow line
        halfway = key + np.array([1, 0, 0], np.float32)
        gloss = np.clip(halfway @ normals / np.linalg.norm(halfway), 0, 1) ** 28
        facing = np.clip(normals[0], 0, 1)
        light = 0.24 + 0.90 * diffuse**1.5 + 0.18 * np.clip(fill @ normals, 0, 1) + 0.12 * gloss
        light *= 0.62 + 0.38 * np.clip(facing / 0.35, 0, 1)  # a soft outline where the surface turns away
        light *= self._ambient_occlusion(points, normals)
        depth = (points[0] - points[0].min()) / max(np.ptp(points[0]), 1.0)
        light *= 0.86 + 0.14 * depth
        return light[:, None]

    def _ambient_occlusion(self, points: Floats, normals: Floats) -> Floats:
        """Ambient occlusion: 1 on an open surface, less in clefts, by what lies in front of the surface."""
        reach = 0.05 * len(self.density)
        occupancy = ndimage.map_coordinates(self.occupancy, points + reach * normals, order=1)
        return 1 - 0.75 * np.clip(occupancy - 0.12, 0, 1)


def _turned(density: Floats) -> Floats:
    """Return the density as seen: [depth towards the viewer, down, right], about the central voxel."""
    box_of_view = view_of_box().T[::-1, ::-1]  # in [z, y, x] on both sides
    centre = np.full(3, len(density) // 2)
    turned: Floats = ndimage.affine_transform(
        density,
        box_of_view,
        centre - box_of_view @ centre,
        order=3,
        mode="constant",
        cval=float(density.min()),
        output=np.float32,
    )
    return turned


def view_of_box() -> NDArray[np.float64]:
    """Return the matrix that takes x, y, z of the box to right, down and near of the view.

    Before the box is turned, its x is right, its y up and its z towards the viewer, as in ChimeraX.
    """
    turn, tilt = np.radians(VIEW_DEG)
    about_y = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    about_x = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    matrix: NDArray[np.float64] = np.diag([1, -1, 1]) @ about_x @ about_y
    return matrix


def _spline_weights(at: NDArray[np.float64], box: int) -> tuple[Floats, Floats]:
    """Return (n, box) weights of a cubic spline's coefficients: of its values at n points, and of its slopes."""
    below = np.floor(at).astype(int)
    both = np.zeros((2, len(at), box), np.float32)
    for matrix, weights in zip(both, _basis(at - below), strict=True):
        for offset, weight in zip(range(-1, 3), weights, strict=True):
            np.add.at(matrix, (np.arange(len(at)), np.clip(below + offset, 0, box - 1)), weight)
    return both[0], both[1]


def _basis(t: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the four cubic B-splines, (4, n), that overlap at t from 0 to 1 between two voxels; and their slopes."""
    values = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    slopes = np.stack([-((1 - t) ** 2), 3 * t**2 - 4 * t, -3 * t**2 + 2 * t + 1, t**2]) / 2
    return values, slopes


def _crossings(
    along: Floats, x_slope: Floats, y_slope: Floats, may_be: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64], Floats]:
    """Find where each ray first meets the surface, coming from large z.

    Args:
        along: (z, rows, columns) coefficients of the density's spline along each ray.
        x_slope: likewise of its slope from column to column.
        y_slope: likewise of its slope from row to row.
        may_be: likewise, whether a voxel or one beside it is inside. Elsewhere the spline only overshoots.
        threshold: of the surface.

    Returns:
        Row, column and z of each of n crossings, and the normals (3, n) there.
    """
    row, column, step = _first_inside(along, may_be, threshold)
    voxel, is_between = np.divmod(step, 2)
    four = np.clip(voxel + np.arange(-1, 3)[:, None], 0, len(along) - 1), row, column
    t = _refined(along[four], is_between / 2, threshold)
    weights, slopes = _basis(t)
    gradient = np.stack([
        (slopes * along[four]).sum(0), (weights * y_slope[four]).sum(0), (weights * x_slope[four]).sum(0)
    ])  # fmt: skip
    normals = -gradient / np.maximum(np.linalg.norm(gradient, axis=0), 1e-12)
    return row, column, voxel + t, normals.astype(np.float32)


def _first_inside(
    along: Floats, may_be: NDArray[np.bool_], threshold: float
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Return row, column and the number of half voxels up to the last point inside, of the rays that have one."""
    along = np.pad(along, ((1, 2), (0, 0), (0, 0)), mode="edge")
    inside = np.empty((len(along) - 3, 2, *along.shape[1:]), bool)
    density = 4 * along[1:-2]  # at the voxels, times 6
    density += along[:-3]
    density += along[2:-1]
    np.greater_equal(density, 6 * threshold, out=inside[:, 0])
    np.add(along[1:-2], along[2:-1], out=density)  # between them, times 48
    density *= 23
    density += along[:-3]
    density += along[3:]
    np.greater_equal(density, 48 * threshold, out=inside[:, 1])
    inside &= may_be[:, None]
    inside = inside.reshape(-1, *along.shape[1:])
    row, column = np.nonzero(inside.any(axis=0))
    return row, column, len(inside) - 1 - inside[::-1, row, column].argmax(axis=0)


def _refined(coefficients: Floats, inside: NDArray[np.float64], threshold: float) -> NDArray[np.float64]:
    """Bisect the last half voxel of each ray: (4, n) coefficients, where between two voxels it is still inside."""
    outside = inside + 0.5
    for _ in range(8):
        middle = (inside + outside) / 2
        is_in = (_basis(middle)[0] * coefficients).sum(0) >= threshold
        inside, outside = np.where(is_in, middle, inside), np.where(is_in, outside, middle)
    return inside
