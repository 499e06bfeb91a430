"""The particles of a run of cryoDRGN: found where its configuration says, or where the user says."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from experiments.audit.settings import Settings
from lightning_modules.errors import InputError
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.files.image_stacks import inspect
from lightning_modules.particles.particle_files import ParticleFiles
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
        particles = found.pop("particles")
        if particles is None or found["poses"] is None:
            raise InputError(f"{settings.said_by}: names no particles or no poses, expected both; say audit.poses=PATH")
        if data.get("do_pose_sgd") and self.poses is None and folder.poses is not None:
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
class Taken:
    """Which of the particles are looked at.

    Attributes:
        trained: how to read those that the encoder was trained on.
        positions: (n,) of these among all that it was trained on: rows of z.pkl.
        n_trained: how many there are in all.
        unseen: how to read those of the stack that it never saw; None where there are too few.
        n_unseen: how many there are in all.
    """

    trained: ParticleFiles
    positions: NDArray[np.int64]
    n_trained: int
    unseen: ParticleFiles | None
    n_unseen: int


FEWEST_UNSEEN = 20


def take(files: ParticleFiles, most: int, most_unseen: int, seed: int) -> Taken:
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
    return Taken(trained, positions, len(selection.rows), unseen, len(others))


def _draw(rows: NDArray[np.int64], most: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return np.sort(rng.permutation(rows)[:most])
