"""An orthographic ray caster: where rays meet the surface of a density, and how light falls there."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Floats = NDArray[np.float32]

VIEW_DEG = (25.0, 30.0)
"""Turn about the vertical axis, then tilt towards the viewer. Straight along an axis of the box hides one."""

STEP_PX = 0.5  # of a ray, before the crossing is refined
KEY_LIGHT = (-0.45, -0.65, 0.62)  # from the upper left, in front: x right, y down, z towards the viewer
FILL_LIGHT = (0.7, 0.1, 0.5)


@dataclass(frozen=True)
class Scene:
    """A density seen along the view's axis; points are (3, n): z towards the viewer, y down, x right, in voxels.

    Attributes:
        density: (D, D, D) turned into the view.
        spline: its cubic spline's coefficients.
        threshold: of the surface.
        crowd: how much of the surroundings is inside the surface, on a scale of a few voxels.
    """

    density: Floats
    spline: Floats
    threshold: float
    crowd: Floats

    @classmethod
    def of(cls, density: Floats, threshold: float) -> "Scene":
        """Turn a density (D, D, D), [z, y, x], into the view."""
        turned = _turned(density)
        spline = ndimage.spline_filter(turned, order=3, output=np.float32)
        inside = np.clip((turned - threshold) / (0.5 * threshold + 1e-12) + 0.5, 0, 1)
        crowd = ndimage.gaussian_filter(inside, 0.045 * len(density))
        return cls(turned, spline, threshold, crowd)

    def hits(self, side: int, frame: float) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        """Follow a ray through each of side x side pixels to where it first meets the surface.

        Returns:
            Rows and columns of the pixels that see it, and the points (3, n).
        """
        near, far = self._bracket()
        box = len(self.density)
        centre, half = box // 2, frame * box / 2
        axis = (centre + half * (2 * (np.arange(side) + 0.5) / side - 1)).astype(np.float32)
        nearest = np.clip(np.rint(axis).astype(int), 0, box - 1)
        rows, columns = np.nonzero(near[np.ix_(nearest, nearest)] >= 0)
        yx = np.stack([axis[rows], axis[columns]])
        at = near[nearest[rows], nearest[columns]].astype(np.float32)
        end = far[nearest[rows], nearest[columns]]
        alive, hit = np.arange(len(rows)), np.zeros(len(rows), bool)
        while len(alive):
            inside = self._density(at[alive], yx[:, alive]) >= self.threshold
            hit[alive[inside]] = True
            alive = alive[~inside]
            at[alive] -= STEP_PX
            alive = alive[at[alive] >= end[alive]]
        found = np.flatnonzero(hit)
        yx = yx[:, found]
        at = self._refined(at[found], yx)
        return rows[found], columns[found], np.vstack([at, yx])

    def shade(self, points: Floats) -> Floats:
        """Light surface points (3, n): (n, 1) brightness, about 1 where the key light falls."""
        normals = self._normals(points)
        key, fill = (np.asarray(light[::-1], np.float32) for light in (KEY_LIGHT, FILL_LIGHT))
        key, fill = key / np.linalg.norm(key), fill / np.linalg.norm(fill)
        diffuse = 0.5 + 0.5 * (key @ normals)  # wraps around: no hard shadow line
        halfway = key + np.array([1, 0, 0], np.float32)
        gloss = np.clip(halfway @ normals / np.linalg.norm(halfway), 0, 1) ** 28
        facing = np.clip(normals[0], 0, 1)
        light = 0.24 + 0.90 * diffuse**1.5 + 0.18 * np.clip(fill @ normals, 0, 1) + 0.12 * gloss
        light *= 0.62 + 0.38 * np.clip(facing / 0.35, 0, 1)  # a soft outline where the surface turns away
        light *= self._openness(points, normals)
        depth = (points[0] - points[0].min()) / max(np.ptp(points[0]), 1.0)
        light *= 0.86 + 0.14 * depth
        return light[:, None]

    def _bracket(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Where along each voxel column surface can begin, and end; -1 where there is none."""
        box = len(self.density)
        occupied = ndimage.maximum_filter(self.density, 3) >= self.threshold
        some = occupied.any(axis=0)
        near = np.where(some, box - 1 - occupied[::-1].argmax(axis=0), -1)
        far = np.where(some, occupied.argmax(axis=0), box)
        return near, far

    def _density(self, z: Floats, yx: Floats) -> Floats:
        return _sample(self.spline, np.vstack([z, yx]))

    def _refined(self, at: Floats, yx: Floats) -> Floats:
        """Bisect the last step of each ray."""
        inside, outside = at, at + STEP_PX
        for _ in range(6):
            middle = np.asarray((inside + outside) / 2, np.float32)
            is_in = self._density(middle, yx) >= self.threshold
            inside, outside = np.where(is_in, middle, inside), np.where(is_in, outside, middle)
        return inside

    def _normals(self, points: Floats) -> Floats:
        """Outward unit normals (3, n), down the gradient of the spline."""
        shift = 0.35 * np.eye(3, dtype=np.float32)[:, :, None]
        gradient = np.stack([_sample(self.spline, points - s) - _sample(self.spline, points + s) for s in shift])
        length = np.linalg.norm(gradient, axis=0)
        return gradient / np.maximum(length, 1e-12)

    def _openness(self, points: Floats, normals: Floats) -> Floats:
        """Ambient occlusion: 1 on an open surface, less in clefts, by what lies in front of the surface."""
        reach = 0.05 * len(self.density)
        crowd = ndimage.map_coordinates(self.crowd, points + reach * normals, order=1)
        return 1 - 0.75 * np.clip(crowd - 0.12, 0, 1)


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


def _sample(spline: Floats, points: Floats) -> Floats:
    values: Floats = ndimage.map_coordinates(
        spline, points, order=3, prefilter=False, mode="nearest", output=np.float32
    )
    return values
