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

ATOM_SIGMA_ANGSTROM = 8.0
"""Standard deviation of one pseudo-atom's Gaussian density."""

ATOM_SPACING_ANGSTROM = 12.5
"""One pseudo-atom of unit mass per cube of this side: the same density everywhere."""

STRUCTURE_SEED = 10076
"""Places the atoms. Fixed, so that every data set shows the same complex."""


@dataclass(frozen=True)
class Ellipsoid:
    """A solid filled with pseudo-atoms; centre and semi-axes along x, y, z in angstrom."""

    center: tuple[float, float, float]
    semi_axes: tuple[float, float, float]

    def fill(self, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Positions (K, 3) in angstrom, one drawn in every cube whose middle lies inside.

        Drawn this way and not independently, atoms leave no clumps and holes: at low resolution a domain is
        its shape, and what tells the states apart is not drowned by the texture of the core.
        """
        reach = np.ceil(np.asarray(self.semi_axes) / ATOM_SPACING_ANGSTROM)
        grids = np.meshgrid(*(np.arange(-n, n + 1) for n in reach), indexing="ij")
        middles = np.stack(grids, axis=-1).reshape(-1, 3) * ATOM_SPACING_ANGSTROM
        inside = np.square(middles / np.asarray(self.semi_axes)).sum(axis=1) <= 1
        jitter = rng.uniform(-0.5, 0.5, middles[inside].shape) * ATOM_SPACING_ANGSTROM
        atoms: NDArray[np.float64] = np.asarray(self.center) + middles[inside] + jitter
        return atoms


@dataclass(frozen=True)
class Hinge:
    """Axis of the continuous motion: a point on it (angstrom) and its direction."""

    pivot: tuple[float, float, float]
    axis: tuple[float, float, float]


# The layout has no mirror plane, so that a reconstruction of the wrong hand is told apart.
DOMAINS: dict[str, tuple[Ellipsoid, ...]] = {
    "core": (Ellipsoid((0, -2, 0), (70, 60, 50)),),
    "stalk": (Ellipsoid((68, 44, -12), (36, 20, 20)), Ellipsoid((92, 56, -18), (34, 34, 34))),
    "base": (Ellipsoid((34, -76, 26), (48, 42, 40)),),
    "central_protuberance": (Ellipsoid((-8, 82, 10), (46, 44, 40)),),
    "shoulder": (Ellipsoid((-88, -4, 36), (42, 46, 42)),),
}

HINGE = Hinge(pivot=(44, 30, -8), axis=(0.2, 0.1, 1.0))

# The first four are like EMPIAR-10076's major classes: base and central protuberance join in either order.
STATES: tuple[tuple[str, ...], ...] = (
    (),
    ("base", "shoulder"),
    ("central_protuberance", "shoulder"),
    ("base", "central_protuberance", "shoulder"),
    ("shoulder",),
    ("base",),
    ("central_protuberance",),
    ("base", "central_protuberance"),
)
"""Optional domains present in each assembly state; a state is its index here."""


@lru_cache(maxsize=1)
def _domain_atoms() -> dict[str, NDArray[np.float64]]:
    """Atom positions (K, 3) of every domain with the hinge at rest."""
    # RandomState's stream never changes between versions of numpy: the complex is the same everywhere.
    rng = np.random.RandomState(STRUCTURE_SEED)
    return {name: np.concatenate([solid.fill(rng) for solid in solids]) for name, solids in DOMAINS.items()}


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
    full = STATES.index(max(STATES, key=len))
    angles = np.linspace(-hinge_range_rad / 2, hinge_range_rad / 2, 37)
    return max(float(np.linalg.norm(atom_positions(full, angle), axis=1).max()) for angle in angles)
