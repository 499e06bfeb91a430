"""The particles of a run of cryoDRGN: found where its configuration says, or where the user says."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from experiments.audit.settings import Settings
from lightning_modules.errors import InputError
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.files.image_stacks import inspect
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.particles.poses_and_ctf import read_poses
from lightning_modules.particles.selection import read_selection
from lightning_modules.particles.sources import ParticleSource
from lightning_modules.particles.split import Some


@dataclass(frozen=True)
class AuditedData(ParticleSource):
    """The slot ``data`` of an audit.

    Attributes:
        run: output folder of ``cryodrgn train_vae``.
        epoch: N of weights.N.pkl; None: the last.
        particles: instead of the file that the run's configuration names; None: that one. So are the next four.
        poses: likewise.
        ctf: likewise.
        ind: likewise.
        datadir: likewise.
    """

    run: str
    epoch: int | None = None
    particles: str | None = None
    poses: str | None = None
    ctf: str | None = None
    ind: str | None = None
    datadir: str | None = None

    def particle_files(self) -> ParticleFiles:
        """Find the files, and how cryoDRGN read the images in them.

        Raises:
            InputError: a file is missing; the message names the key that says where it is.
        """
        folder = Folder.find(self.run, self.epoch)
        settings = Settings.read(folder.config)
        data = settings.data
        datadir = self._datadir(data.get("datadir"))
        found = {key: self._find(key, data.get(key), folder, datadir) for key in ("particles", "poses", "ctf", "ind")}
        if settings.preprocessed and self.particles is None:
            raise InputError(
                f"{settings.said_by}: trained with --preprocessed, on the transforms in {found['particles']}, expected "
                "images; say where they are with audit.particles=<original stack>"
            )
        particles = found.pop("particles")
        if particles is None or found["poses"] is None:
            raise InputError(f"{settings.said_by}: names no particles or no poses, expected both; say audit.poses=PATH")
        if data.get("do_pose_sgd") and folder.poses is not None:
            found["poses"] = str(folder.poses)
        window_r = data.get("window_r", 0.85)
        return ParticleFiles(
            particles,
            poses=found["poses"],
            ctf=found["ctf"],
            ind=found["ind"],
            datadir=datadir,
            invert=bool(data.get("invert_data", True)),
            window=bool(data.get("window", True)),
            window_r=float(window_r) if isinstance(window_r, int | float) else 0.85,
        ).checked()

    def poses_of_encoder(self) -> Path | None:
        """Return the file of ``--poses`` where training refined the poses; None where it did not.

        ``train_vae`` renders with refined poses, and encodes with the shifts that it was given
        (``train_vae.eval_z`` is called with ``posetracker.trans``).
        """
        folder = Folder.find(self.run, self.epoch)
        data = Settings.read(folder.config).data
        if not data.get("do_pose_sgd") or folder.poses is None:
            return None
        found = self._find("poses", data.get("poses"), folder, self._datadir(data.get("datadir")))
        return None if found is None else Path(found)

    def _datadir(self, named: object) -> str | None:
        if self.datadir is not None:
            return self.datadir
        return named if isinstance(named, str) and Path(named).is_dir() else None

    def _find(self, key: str, named: object, folder: Folder, datadir: str | None) -> str | None:
        """Return the path of a file: what the user says, or the first place where the named one is."""
        if (told := getattr(self, key)) is not None:
            if not os.path.lexists(told):
                raise InputError(f"audit.{key}={told}: there is no such file; relative paths start at {Path.cwd()}")
            return str(told)
        if named is None:
            return None
        name = str(named)
        near = [folder.path, folder.path.parent, *([Path(datadir)] if datadir else [])]
        places = [Path(name), *(place / name for place in near), *(place / Path(name).name for place in near)]
        for place in places:
            if os.path.lexists(place):
                return str(place)
        looked = ", ".join(dict.fromkeys(str(place) for place in near))
        raise InputError(
            f"{folder.config}: {key}={name}: there is no such file (nor one of its name in {looked}); say where it is "
            f"with audit.{key}=PATH"
        )


@dataclass(frozen=True, eq=False)
class Sample:
    """Which of the particles are looked at.

    Attributes:
        trained: how to read those that the encoder was trained on.
        positions: (n,) of these among all that it was trained on: rows of z.pkl.
        n_trained: how many there are in all.
        unseen: how to read those of the stack that it never saw; None where there are too few.
        n_unseen: how many there are in all.
        why_not: why unseen particles cannot be looked at though there are enough; empty where they can.
    """

    trained: ParticleFiles
    positions: NDArray[np.int64]
    n_trained: int
    unseen: ParticleFiles | None
    n_unseen: int
    why_not: str = ""


FEWEST_UNSEEN = 20


def take(files: ParticleFiles, most: int, most_unseen: int, seed: int) -> Sample:
    """Draw particles that were trained on, and others of the stack.

    Args:
        files: of the run.
        most: of the first.
        most_unseen: of the second.
        seed: of the draw.
    """
    selection = read_selection(files, inspect(Path(files.particles), files.datadir).n_images)
    rng = np.random.default_rng((seed, 21))
    positions = _draw(np.arange(len(selection.rows)), most, rng)
    others = np.setdiff1d(np.arange(selection.n_file), selection.rows)
    unseen = None
    if len(others) >= FEWEST_UNSEEN:
        unseen = dataclasses.replace(files, ind=None, split=Some(_draw(others, most_unseen, rng)))
    trained = dataclasses.replace(files, split=Some(positions))
    return Sample(trained, positions, len(selection.rows), unseen, len(others))


def read_unseen(taken: Sample, norm: tuple[float, float] | None) -> tuple[Sample, Particles | None]:
    """Read the unseen particles before anything takes long.

    Poses are often those of the indexed particles alone: of filtered poses, of poses refined in training, of a folder
    that this suite has written. Then the others cannot be rendered, and turned images decide.

    Args:
        taken: which particles.
        norm: of the run.

    Returns:
        What is taken after all, and the unseen particles; None where there are none that can be used.
    """
    if taken.unseen is None:
        return taken, None
    try:
        return taken, load_particles(taken.unseen, norm=norm)
    except InputError as error:
        return dataclasses.replace(taken, unseen=None, why_not=str(error)), None


def shifts_of_encoder(poses: Path | None, trained: ParticleFiles) -> Tensor | None:
    """Return the (n, 2) shifts in px of the lattice with which the encoder saw particles; None: those of their poses.

    Args:
        poses: ``AuditedData.poses_of_encoder``.
        trained: how to read the particles.

    Raises:
        InputError: no poses of these particles.
    """
    if poses is None:
        return None
    files = dataclasses.replace(trained, poses=str(poses)).checked()
    images = inspect(Path(files.particles), files.datadir)
    return torch.from_numpy(read_poses(files, images, read_selection(files, images.n_images))[1])


def _draw(rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(rows)[:most])
