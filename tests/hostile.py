"""Files of every kind that the suite reads, sound ones, and how each is read."""

import json
import os
import pickle
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from omegaconf import OmegaConf

from experiments.runs.run import Run
from experiments.runs.stored_results import read_epochs, read_latents, read_weights
from lightning_modules.particles.particles import load_particles
from tests import particle_sets
from tests.particle_sets import N, dump, particle_set, rotations, shifts, stack
from tests.test_particles import cs, star, star_30
from tests.world import configuration


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: of the file.
        make: writes a sound one.
        read: reads it as the suite does.
    """

    name: str
    make: Callable[[Path], Any]
    read: Callable[[Path], Any]


def _as(key: str) -> Callable[[Path], Any]:
    def read(path: Path) -> Any:
        with np.errstate(all="ignore"):
            return load_particles(particle_set(path.parent, **{key: str(path)}))

    return read


def _npz(**arrays: np.ndarray) -> Callable[[Path], Any]:
    return lambda path: np.savez(path, **arrays)


def star_31(path: Path) -> None:
    """RELION 3.1: an optics table, and the particles'."""
    stack(path.parent / "particles.mrcs")
    rows = "".join(f"{i + 1}@particles.mrcs 1 {i} {2 * i} {3 * i} 0.5 0.5 15000 14000 10\n" for i in range(N))
    path.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
        "_rlnAmplitudeContrast #4\n_rlnImagePixelSize #5\n_rlnImageSize #6\n1 300 2.7 0.1 3.0 16\n\n"
        "data_particles\n\nloop_\n_rlnImageName #1\n_rlnOpticsGroup #2\n_rlnAngleRot #3\n_rlnAngleTilt #4\n"
        "_rlnAnglePsi #5\n_rlnOriginXAngst #6\n_rlnOriginYAngst #7\n_rlnDefocusU #8\n_rlnDefocusV #9\n"
        f"_rlnDefocusAngle #10\n{rows}",
        encoding="utf-8",
    )


def _star_30(path: Path) -> None:
    stack(path.parent / "particles.mrcs")
    star(path, star_30())


def _cs(path: Path) -> None:
    (path.parent / "J1").mkdir(exist_ok=True)
    stack(path.parent / "J1" / "particles.mrcs")
    cs(path)


def _list(path: Path) -> None:
    stack(path.parent / "particles.mrcs")
    path.write_text("particles.mrcs\n", encoding="utf-8")


def epochs_checkpoint(path: Path, **changed: Any) -> None:
    """A checkpoint with the row of one epoch, as training writes it."""
    row = {"epoch": 1, "loss/total": 1.0, "loss/reconstruction": 0.9, "loss/kl": 2.0, "time/epoch_s": 0.5}
    torch.save({"state_dict": {}, "callbacks": {"EpochLog": {"rows": [row | changed]}}}, path)


def config_yaml(path: Path) -> None:
    OmegaConf.save(configuration(), path, resolve=True)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("x.mrcs", stack, _as("particles")),
        Kind("x.mrc", stack, _as("particles")),
        Kind("x.star", _star_30, _as("particles")),
        Kind("x31.star", star_31, _as("particles")),
        Kind("x.cs", _cs, _as("particles")),
        Kind("x.txt", _list, _as("particles")),
        Kind("p.star", star_31, _as("poses")),
        Kind("p.cs", _cs, _as("poses")),
        Kind("p.pkl", lambda path: dump(path, (rotations(), shifts())), _as("poses")),
        Kind("p.npz", _npz(rotations=rotations(), shifts=shifts()), _as("poses")),
        Kind("c.star", star_31, _as("ctf")),
        Kind("c.cs", _cs, _as("ctf")),
        Kind("c.pkl", lambda path: dump(path, particle_sets.ctf()), _as("ctf")),
        Kind("c.npz", _npz(ctf_params=particle_sets.ctf()), _as("ctf")),
        Kind("i.pkl", lambda path: dump(path, np.arange(5)), _as("ind")),
        Kind("i.npy", lambda path: np.save(path, np.arange(5)), _as("ind")),
        Kind("l.npz", _npz(state=np.arange(N) % 3, hinge_rad=np.linspace(0, 1, N)), _as("labels")),
        Kind("config.yaml", config_yaml, lambda path: Run.load(path.parent)),
        Kind(
            "metrics.json",
            lambda path: path.write_text(json.dumps({"loss/total": 1.0, "latents/knn_hinge_r2": None})),
            lambda path: Run(configuration(), path.parent).metrics,
        ),
        Kind(
            "latents.npz",
            _npz(mu=np.ones((N, 2), np.float32), logvar=np.ones((N, 2), np.float32), index=np.arange(N)),
            lambda path: read_latents(path.parent),
        ),
        Kind("last.ckpt", lambda path: torch.save({"state_dict": {"a": torch.ones(3)}}, path), read_weights),
        Kind("epochs.ckpt", epochs_checkpoint, read_epochs),
    )
}


def npy(shape: str, descr: str = "'<f8'", content: bytes = b"") -> bytes:
    """Bytes of an .npy whose header says what it likes."""
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


class Code:
    """Runs code when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def call(function: str, *arguments: Any, protocol: int = 2) -> bytes:
    """Pickle that calls a function, named as in ``module name``, when it is read."""
    body = pickle.dumps(tuple(arguments), protocol)[2:-1]
    return b"\x80" + bytes([protocol]) + f"c{function.replace(' ', chr(10))}\n".encode() + body + b"R."


@contextmanager
def as_somebody() -> Iterator[None]:
    """Be an ordinary user for a while: root may do everything."""
    if os.getuid() != 0:
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
