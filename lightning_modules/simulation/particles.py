"""Simulated particles with known conformations: settings, files made once, true volumes.

x_i = CTF_i * shift_i(project(rotation_i V(state_i, hinge_i))) + noise_i, the paper's image model.
"""

import hashlib
import json
import os
import secrets
import shutil
from dataclasses import asdict, dataclass
from math import inf, sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from lightning_modules.files.atomic import UNFINISHED
from lightning_modules.files.lease import lease_to_make, remove_unfinished
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.sources import ParticleSource
from lightning_modules.simulation.assembly import (
    ATOM_SIGMA_ANGSTROM,
    BOX_ANGSTROM,
    STATES,
    atom_positions,
    radius_angstrom,
)
from lightning_modules.simulation.projection import density
from lightning_modules.simulation.stack import FILES, FORMAT_VERSION, write

CHUNK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class SimulatedParticles(ParticleSource):
    """A set of simulated particles: its settings, its files, its true volumes.

    The optics are EMPIAR-10076's. The box is always 419.2 A wide (320 px of 1.31 A), so ``box_px`` sets the
    pixel size. Particles are light on dark, as RELION extracts them. cryoDRGN's commands invert by default;
    an inverted image is cryoDRGN's CTF, negative at low frequency, times the projection of a positive density.

    Attributes:
        n_particles: N.
        box_px: D, even.
        snr: variance of the clean images (CTF applied, no noise; over all pixels of an image, then the mean
            over particles) divided by that of the white Gaussian noise, the same for all. ``inf``: no noise.
        seed: of everything but the complex, which is always the same.
        n_states: the first so many of ``assembly.STATES``, each equally likely.
        hinge_deg: full range of the hinge motion; the angle is uniform in +-hinge_deg / 2.
        shift_px: in-plane shifts x and y are uniform in +-shift_px.
        defocus_angstrom: centre of the defocus distribution (mean of U and V).
        defocus_spread_angstrom: the defocus is uniform in +-defocus_spread_angstrom around that.
        astigmatism_angstrom: U - V is uniform in [0, astigmatism_angstrom], its angle in [0, 180) degrees.
        voltage_kv: accelerating voltage.
        cs_mm: spherical aberration.
        amplitude_contrast: fraction.
        cache_dir: where the files are kept.

    Raises:
        InputError: a setting makes no sense.
    """

    n_particles: int = 2000
    box_px: int = 32
    snr: float = 0.1
    seed: int = 0
    n_states: int = 4
    hinge_deg: float = 120.0
    shift_px: float = 1.0
    defocus_angstrom: float = 15000.0
    defocus_spread_angstrom: float = 5000.0
    astigmatism_angstrom: float = 400.0
    voltage_kv: float = 300.0
    cs_mm: float = 2.7
    amplitude_contrast: float = 0.07
    cache_dir: str = "cache"

    def __post_init__(self) -> None:
        """Refuse settings that make no sense."""
        _check(self)

    @property
    def pixel_size_angstrom(self) -> float:
        """Pixel size at this box."""
        return BOX_ANGSTROM / self.box_px

    @property
    def hinge_range_rad(self) -> tuple[float, float]:
        """Smallest and largest hinge angle in radians."""
        half = float(np.radians(self.hinge_deg / 2))
        return -half, half

    @property
    def folder(self) -> Path:
        """Where the files are, or will be: one folder per set of numbers."""
        decisive = {key: float(value) for key, value in asdict(self).items() if key != "cache_dir"}
        text = json.dumps({"format": FORMAT_VERSION, **decisive}, sort_keys=True)
        return Path(self.cache_dir) / "simulated" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def ensure(self) -> Path:
        """Make the files unless they exist, once even when several processes ask.

        Returns:
            Folder with particles.mrcs (N, D, D) float32; poses.pkl, a tuple of rotations (N, 3, 3) and shifts
            (N, 2) as fractions of the box, as ``cryodrgn.pose.PoseTracker`` reads them; ctf.pkl (N, 9) as
            ``cryodrgn parse_ctf_star`` writes it; labels.npz with ``state`` (N,) and ``hinge_rad`` (N,);
            simulation.json with the settings and the noise level.

        Raises:
            InputError: the cache folder cannot be written or its disk is too small.
        """
        folder = self.folder
        if _is_complete(folder):
            return folder
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lease_to_make(folder):
                if not _is_complete(folder):
                    _make(self, folder)
        except OSError as error:
            raise InputError(
                f"data.cache_dir={self.cache_dir}: the simulated particles cannot be written there"
                f" ({error.strerror or error}); give a folder on a disk that can be written"
            ) from error
        return folder

    def particle_files(self) -> ParticleFiles:
        """Make the files unless they exist, and describe them to the loader that reads a user's particles."""
        folder = self.ensure()
        particles, poses, ctf, labels = (
            str(folder / name) for name in ("particles.mrcs", "poses.pkl", "ctf.pkl", "labels.npz")
        )
        return ParticleFiles(particles, poses=poses, ctf=ctf, labels=labels, invert=True)

    def true_volume(self, state: int, hinge_rad: float, box_px: int | None = None) -> NDArray[np.float32]:
        """Density of one conformation in cryoDRGN's orientation.

        Args:
            state: assembly state, as in labels.npz.
            hinge_rad: hinge angle in radians, as in labels.npz.
            box_px: D, by default that of the images.

        Returns:
            (D, D, D) float32, indexed [z, y, x]; its sum over z is the image of the identity pose.

        Raises:
            InputError: there is no such state, or the box is odd.
        """
        box_px = self.box_px if box_px is None else box_px
        if state not in range(len(STATES)):
            raise InputError(f"state={state}: the complex has the states 0 to {len(STATES) - 1}")
        if box_px < 2 or box_px % 2:
            raise InputError(f"box_px={box_px}: expected an even number of pixels")
        pixel_size = BOX_ANGSTROM / box_px
        atoms = atom_positions(state, hinge_rad) / pixel_size
        return density(atoms, ATOM_SIGMA_ANGSTROM / pixel_size, box_px)


def _check(data: SimulatedParticles) -> None:
    """Raise InputError for the first setting that makes no sense."""
    spread, n_states = data.defocus_spread_angstrom, len(STATES)
    rules: list[tuple[str, bool, str]] = [
        ("n_particles", data.n_particles >= 1, "at least 1"),
        ("box_px", data.box_px >= 16 and data.box_px % 2 == 0, "an even number of pixels, at least 16"),
        ("snr", data.snr > 0, "a positive number (inf for no noise)"),
        ("seed", data.seed >= 0, "0 or more"),
        ("n_states", data.n_states in range(1, n_states + 1), f"1 to {n_states}, what the complex offers"),
        ("hinge_deg", 0 <= data.hinge_deg <= 360, "0 to 360 degrees"),
        ("shift_px", 0 <= data.shift_px < inf, "0 or more"),
        ("defocus_angstrom", 0 < data.defocus_angstrom < inf, "a positive underfocus in angstrom"),
        ("defocus_spread_angstrom", 0 <= spread < data.defocus_angstrom, "0 to below the defocus"),
        ("astigmatism_angstrom", 0 <= data.astigmatism_angstrom < inf, "0 or more"),
        ("voltage_kv", 0 < data.voltage_kv < inf, "a positive number, such as 300"),
        ("cs_mm", 0 <= data.cs_mm < inf, "0 or more, such as 2.7"),
        ("amplitude_contrast", 0 <= data.amplitude_contrast <= 1, "a fraction between 0 and 1"),
    ]
    for key, holds, expected in rules:
        if not holds:
            raise InputError(f"data.{key}={getattr(data, key)}: expected {expected}")
    radius_px = radius_angstrom(np.radians(data.hinge_deg)) / data.pixel_size_angstrom
    room_px = (data.box_px / 2 - radius_px) / sqrt(2)
    if data.shift_px > room_px:
        raise InputError(
            f"data.shift_px={data.shift_px}: particles would leave the box, expected at most {room_px:.2f} px"
            f" at data.box_px={data.box_px}"
        )


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in FILES)


def _make(data: SimulatedParticles, folder: Path) -> None:
    """Build the files in a folder beside and move it into place; the caller holds the lease."""
    needed = data.n_particles * data.box_px**2 * 4
    free = shutil.disk_usage(folder.parent).free
    if needed > free:
        raise InputError(
            f"data.cache_dir={data.cache_dir}: the stack needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB"
            " are free; make room, or lower data.n_particles or data.box_px"
        )
    remove_unfinished(folder)
    partial = folder.with_name(f"{UNFINISHED}{folder.name}-{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        write(data, partial, max(1, CHUNK_BYTES // (data.box_px**2 * 4)))
        if not _is_complete(folder):  # somebody else's, whose lease this one took over
            shutil.rmtree(folder, ignore_errors=True)  # a user may have deleted single files
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
