"""Simulated particles, one by one and as cryoDRGN's files.

Particle i is a function of (seed, i) alone: neither the chunk size nor the number of particles changes it,
and a larger set begins with the smaller one.
"""

import json
import pickle
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import lru_cache
from math import inf, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from tqdm import tqdm

from lightning_modules.simulation.assembly import ATOM_SIGMA_ANGSTROM, STATES, atom_positions
from lightning_modules.simulation.projection import ctf, image, spectrum

if TYPE_CHECKING:
    from lightning_modules.simulation.particles import SimulatedParticles

FORMAT_VERSION = 2
"""Part of the cache key: raise it when the numbers change for the same settings."""

FILES = ("particles.mrcs", "poses.pkl", "ctf.pkl", "labels.npz", "simulation.json")

NOISE_REFERENCE_PARTICLES = 512
"""The noise level comes from the first so many particles of the seed, whatever ``n_particles`` is."""


class Particle(NamedTuple):
    """The truth about one particle.

    Attributes:
        state: assembly state, an index into ``assembly.STATES``.
        hinge_rad: angle of the stalk in radians.
        rotation: (3, 3) as in poses.pkl.
        shift_px: (2,) translation x, y that centres the image, in px.
        ctf_params: (9,) row of ctf.pkl.
    """

    state: int
    hinge_rad: float
    rotation: NDArray[np.float32]
    shift_px: NDArray[np.float32]
    ctf_params: NDArray[np.float32]


def draw(data: "SimulatedParticles", index: int) -> tuple[Particle, np.random.Generator]:
    """Draw particle ``index``; the generator that is returned goes on to its noise."""
    rng = np.random.default_rng([data.seed, index])
    state = int(rng.integers(data.n_states))
    hinge_rad = np.float32(rng.uniform(*data.hinge_range_rad))
    # A normal quaternion has no preferred direction: the rotation is uniform (Haar).
    rotation = Rotation.from_quat(rng.standard_normal(4)).as_matrix().astype(np.float32)
    shift_px = rng.uniform(-data.shift_px, data.shift_px, 2).astype(np.float32)
    defocus = data.defocus_angstrom + data.defocus_spread_angstrom * rng.uniform(-1, 1)
    astigmatism = rng.uniform(0, data.astigmatism_angstrom)
    ctf_params = np.array(
        [
            data.box_px,
            data.pixel_size_angstrom,
            defocus + astigmatism / 2,
            defocus - astigmatism / 2,
            rng.uniform(0, 180),
            data.voltage_kv,
            data.cs_mm,
            data.amplitude_contrast,
            0.0,
        ],
        dtype=np.float32,
    )
    return Particle(state, float(hinge_rad), rotation, shift_px, ctf_params), rng


def clean_image(data: "SimulatedParticles", particle: Particle, with_ctf: bool = True) -> NDArray[np.float32]:
    """Noise-free image (D, D) of a particle, shifted and with its CTF; dark on light, before inversion."""
    pixel_size = data.pixel_size_angstrom
    atoms = atom_positions(particle.state, particle.hinge_rad) / pixel_size
    # shift_px moves the image back to the centre, so the particle lies on the other side.
    seen = atoms @ particle.rotation[:2].T - particle.shift_px
    transform = spectrum(seen, ATOM_SIGMA_ANGSTROM / pixel_size, data.box_px)
    return image(transform * ctf(particle.ctf_params) if with_ctf else transform)


def noise_std(data: "SimulatedParticles") -> float:
    """Standard deviation of the noise that gives ``data.snr``."""
    if data.snr == inf:
        return 0.0
    return sqrt(_signal_variance(replace(data, n_particles=1, snr=inf, cache_dir="")) / data.snr)


@lru_cache(maxsize=16)
def _signal_variance(data: "SimulatedParticles") -> float:
    """Mean variance of the reference particles' clean images; the settings that cannot matter are fixed."""
    clean = (clean_image(data, draw(data, index)[0]) for index in range(NOISE_REFERENCE_PARTICLES))
    return float(np.mean([one.var() for one in clean]))


def chunks(
    data: "SimulatedParticles", std: float, chunk_size: int
) -> Iterator[tuple[list[Particle], NDArray[np.float32]]]:
    """Yield the particles in order, ``chunk_size`` at a time, with their noisy images (B, D, D)."""
    for start in range(0, data.n_particles, chunk_size):
        particles, images = [], []
        for index in range(start, min(start + chunk_size, data.n_particles)):
            particle, rng = draw(data, index)
            noise = rng.standard_normal((data.box_px, data.box_px), dtype=np.float32)
            particles.append(particle)
            # Light on dark, as RELION extracts particles and cryoDRGN expects them before it inverts.
            images.append(np.float32(std) * noise - clean_image(data, particle))
        yield particles, np.stack(images)


def write(data: "SimulatedParticles", folder: Path, chunk_size: int) -> None:
    """Write all files into an existing folder, holding ``chunk_size`` images in memory at a time."""
    from cryodrgn.mrcfile import MRCHeader

    n, box_px = data.n_particles, data.box_px
    std = noise_std(data)
    header = MRCHeader.make_default_header(
        nz=n, ny=box_px, nx=box_px, dtype="float32", is_vol=False, Apix=data.pixel_size_angstrom
    )
    truth: list[Particle] = []
    bar = tqdm(total=n, desc="simulating particles", unit="img", delay=3)
    with (folder / "particles.mrcs").open("wb") as stack, bar:
        header.write(stack)
        for particles, images in chunks(data, std, chunk_size):
            stack.write(images.tobytes())
            truth += particles
            bar.update(len(particles))
    _write_truth(data, truth, folder)
    about: dict[str, Any] = {
        "settings": {key: value for key, value in asdict(data).items() if key != "cache_dir"},
        "pixel_size_angstrom": data.pixel_size_angstrom,
        "noise_std": std,
        "hinge_range_rad": data.hinge_range_rad,
        "optional_domains_of_state": STATES[: data.n_states],
        "format": FORMAT_VERSION,
    }
    (folder / "simulation.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


def _write_truth(data: "SimulatedParticles", truth: list[Particle], folder: Path) -> None:
    """Write poses.pkl, ctf.pkl and labels.npz."""
    rotations = np.stack([particle.rotation for particle in truth])
    # PoseTracker.load multiplies by the lattice's side D + 1, so the shift in px is exact after it.
    fractions = np.stack([particle.shift_px for particle in truth]) / np.float32(data.box_px + 1)
    _dump(folder / "poses.pkl", (rotations, fractions))
    _dump(folder / "ctf.pkl", np.stack([particle.ctf_params for particle in truth]))
    np.savez(
        folder / "labels.npz",
        state=np.array([particle.state for particle in truth], dtype=np.int64),
        hinge_rad=np.array([particle.hinge_rad for particle in truth], dtype=np.float32),
    )


def _dump(path: Path, content: object) -> None:
    with path.open("wb") as file:
        pickle.dump(content, file)
