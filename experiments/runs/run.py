"""A run: a checked configuration, and the folder where its results are.

The folder is ``runs/<data>/<name>/<identity>``. ``metrics.json`` is written last: where it is, the run is finished.
Finding a run reads small files alone, and imports neither torch nor Lightning.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.configuration import validation
from experiments.configuration.identity import identities, source_of
from experiments.configuration.stored import read_config
from experiments.runs import state
from experiments.runs.metrics_file import read_metrics
from lightning_modules.errors import InputError


@dataclass(frozen=True)
class Run:
    """A checked configuration and its folder.

    Attributes:
        config: resolved.
        folder: holds everything the run writes.
    """

    config: DictConfig
    folder: Path

    @classmethod
    def of(cls, config: DictConfig) -> "Run":
        """Return the run of a configuration as composed, in the folder that an earlier version made for it, if any."""
        checked = validation.check(config)
        beside = Path(checked.paths.runs).resolve() / checked.data.name / checked.name
        folder, earlier = (beside / name for name in identities(checked))
        return cls(checked, earlier if earlier.is_dir() and not folder.is_dir() else folder)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Return the run in a folder.

        Raises:
            InputError: there is no configuration in it, or it cannot be read.
        """
        path = folder / "config.yaml"
        if not os.path.lexists(path):
            raise InputError(f"{folder}: not the folder of a run, there is no config.yaml in it")
        config = read_config(path)
        return cls(config, folder.resolve())

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The final numbers; None while the run is not finished."""
        return read_metrics(self.folder)

    def source(self) -> "Run | None":
        """Return the run that this one needs, finished or not."""
        found = source_of(self.config)
        if found is None:
            return None
        return Run.load(found) if isinstance(found, Path) else Run.of(found)

    @property
    def checkpoint(self) -> Path:
        """Where the trainer's state is kept."""
        return self.folder / "checkpoints" / "last.ckpt"


def start_over(run: Run) -> None:
    """Remove all that a run has written."""
    keep = {state.LEASE, state.JOB}
    for path in run.folder.iterdir() if run.folder.is_dir() else ():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
