"""A ribosome-like complex of pseudo-atoms: a core, optional domains, and a stalk on a hinge.

It stands in for the L17-depleted 50S intermediates of EMPIAR-10076 (Davis et al. 2016): domains are present
or absent as the subunit assembles, and one domain moves continuously. Every conformation is known exactly.
All lengths are in angstrom, the origin is the centre of the box.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

BOX_ANGSTROM = 320 * 1.31
"""Side of the box: EMPIAR-10076's 320 px of 1.31 A, whatever the number of pixels it is sampled with."""

ATOM_SIGMA_ANGSTROM = 6.0
"""Standard deviation of one pseudo-atom's Gaussian density."""

VOLUME_PER_ATOM = 2000.0
"""Cubic angstrom of a domain per pseudo-atom of unit mass: the same density everywhere."""

STRUCTURE_SEED = 10076
"""Places the atoms. Fixed, so that every data set shows the same complex."""


@dataclass(frozen=True)
class Ellipsoid:
    """A solid filled with pseudo-atoms; centre and semi-axes along x, y, z in angstrom."""

    center: tuple[float, float, float]
    semi_axes: tuple[float, float, float]

    @property
    def n_atoms(self) -> int:
        """Number of pseudo-atoms at the common density."""
        return round(4 / 3 * np.pi * float(np.prod(self.semi_axes)) / VOLUME_PER_ATOM)


@dataclass(frozen=True)
class Hinge:
    """Axis of the continuous motion: a point on it (angstrom) and its direction."""

    pivot: tuple[float, float, float]
    axis: tuple[float, float, float]


# The layout has no mirror plane, so that a reconstruction of the wrong hand is told apart.
DOMAINS: dict[str, tuple[Ellipsoid, ...]] = {
    "core": (Ellipsoid((0, -8, 0), (92, 80, 62)),),
    "stalk": (Ellipsoid((80, 55, -12), (40, 18, 18)), Ellipsoid((108, 68, -18), (26, 26, 26))),
    "base": (Ellipsoid((40, -86, 30), (44, 30, 34)),),
    "central_protuberance": (Ellipsoid((5, 92, 12), (38, 34, 30)),),
    "shoulder": (Ellipsoid((-88, 10, 48), (34, 40, 30)),),
}

HINGE = Hinge(pivot=(52, 40, -8), axis=(0.2, 0.1, 1.0))

ALWAYS_PRESENT = ("core", "stalk")

# First the main assembly path, each state one domain richer, then the parallel paths.
STATES: tuple[tuple[str, ...], ...] = (
    (),
    ("base",),
    ("base", "central_protuberance"),
    ("base", "central_protuberance", "shoulder"),
    ("central_protuberance",),
    ("shoulder",),
    ("base", "shoulder"),
    ("central_protuberance", "shoulder"),
)
"""Optional domains present in each assembly state; a state is its index here."""


@lru_cache(maxsize=1)
def _domain_atoms() -> dict[str, NDArray[np.float64]]:
    """Atom positions (K, 3) of every domain with the hinge at rest, uniform in its ellipsoids."""
    # RandomState's stream never changes between versions of numpy: the complex is the same everywhere.
    rng = np.random.RandomState(STRUCTURE_SEED)
    atoms = {}
    for name, ellipsoids in DOMAINS.items():
        parts = []
        for solid in ellipsoids:
            direction = rng.standard_normal((solid.n_atoms, 3))
            direction /= np.linalg.norm(direction, axis=1, keepdims=True)
            radius = rng.uniform(size=(solid.n_atoms, 1)) ** (1 / 3)
            parts.append(np.asarray(solid.center) + direction * radius * np.asarray(solid.semi_axes))
        atoms[name] = np.concatenate(parts)
    return atoms


def atom_positions(state: int, hinge_rad: float) -> NDArray[np.float64]:
    """Pseudo-atoms of one conformation, all of unit mass.

    Args:
        state: index into ``STATES``.
        hinge_rad: angle of the stalk about the hinge axis in radians, 0 at rest.

    Returns:
        (K, 3) positions x, y, z in angstrom; K depends on the state.
    """
    domains = _domain_atoms()
    axis = np.asarray(HINGE.axis) / np.linalg.norm(HINGE.axis)
    pivot = np.asarray(HINGE.pivot, dtype=np.float64)
    swing = Rotation.from_rotvec(hinge_rad * axis).as_matrix()
    stalk = (domains["stalk"] - pivot) @ swing.T + pivot
    return np.concatenate([domains["core"], stalk, *(domains[name] for name in STATES[state])])


def radius_angstrom(hinge_range_rad: float) -> float:
    """Largest distance of an atom from the centre over all states and angles in +-hinge_range_rad / 2."""
    full = STATES.index(("base", "central_protuberance", "shoulder"))
    angles = np.linspace(-hinge_range_rad / 2, hinge_range_rad / 2, 37)
    return max(float(np.linalg.norm(atom_positions(full, angle), axis=1).max()) for angle in angles)
