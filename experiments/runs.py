"""A run: a configuration, and the folder where its results are.

The folder is ``runs/<data>/<name>/<identity>``. ``metrics.json`` is written last: where it is, the run is finished.
Finding a run reads small files alone, and imports neither torch nor Lightning.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from omegaconf import DictConfig, OmegaConf

from experiments import configs
from lightning_modules.errors import InputError

logger = logging.getLogger(__name__)


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
        """Return the run of a configuration as composed."""
        checked = configs.check(config)
        name = f"{checked.data.name}/{checked.name}/{configs.identity(checked)}"
        return cls(checked, Path(checked.paths.runs).resolve() / name)

    @classmethod
    def load(cls, folder: Path) -> "Run":
        """Return the run in a folder.

        Raises:
            InputError: there is no configuration in it, or it cannot be read.
        """
        path = folder / "config.yaml"
        try:
            config = OmegaConf.load(path)
        except FileNotFoundError:
            raise InputError(f"{folder}: not the folder of a run, there is no config.yaml in it") from None
        except Exception as error:
            raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
        assert isinstance(config, DictConfig)
        return cls(config, folder.resolve())

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The final numbers; None while the run is not finished."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text())
        except FileNotFoundError:
            return None
        except ValueError:
            raise InputError(
                f"{self.folder / 'metrics.json'}: not valid JSON; delete the file to have it made again"
            ) from None
        return found

    def source(self) -> "Run | None":
        """Return the run that this one needs, finished or not."""
        found = configs.source_of(self.config)
        if found is None:
            return None
        return Run.load(found) if isinstance(found, Path) else Run.of(found)

    @property
    def checkpoint(self) -> Path:
        """Where the trainer's state is kept."""
        return self.folder / "checkpoints" / "last.ckpt"


def execute(config: DictConfig) -> Run:
    """Carry out the run of a configuration, unless it is finished; then return it.

    The runs that it needs are carried out first. Two processes that want the same run do it once: the second
    waits and finds it finished.

    Args:
        config: as composed.

    Returns:
        The finished run.

    Raises:
        InputError: what the user gave cannot be used.
    """
    run = Run.of(config)
    if run.metrics is not None and not config.overwrite:
        logger.info("already finished, nothing to do; overwrite=true starts over")
        return run
    source = run.source()
    if source is not None and source.metrics is None:
        logger.info("%s needs %s first", run.config.name, source.config.name)
        source = execute(source.config)
    with _alone(run.folder):
        if run.metrics is not None and not config.overwrite:  # finished while this process waited
            return run
        _carry_out(run, source, overwrite=config.overwrite)
    return run


def _carry_out(run: Run, source: Run | None, overwrite: bool) -> None:
    from hydra.utils import instantiate

    if overwrite:
        for path in run.folder.iterdir():
            if path.name != ".lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_atomically(run.folder / "config.yaml", lambda path: OmegaConf.save(run.config, path))
    with _log_file(run.folder / "run.log"):
        logger.info("%s: %s", run.config.name, run.folder)
        task: Callable[[Run, Run | None], dict[str, Any]] = instantiate(run.config.task)
        metrics = task(run, source)
        text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
        write_atomically(run.folder / "metrics.json", lambda path: path.write_text(text))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; leave no empty folder behind when nothing came of it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: the run's folder cannot be made ({error.strerror}); choose another with paths.runs=DIR"
        ) from None
    try:
        with FileLock(folder / ".lock"):
            yield
    finally:
        if {path.name for path in folder.iterdir()} <= {".lock", "config.yaml", "run.log"}:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Copy what is logged into a file, with times; a failure's traceback goes there too."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except BaseException as error:
        record = logging.LogRecord(__name__, logging.ERROR, "", 0, "failed: %s", (error,), None)
        record.exc_info = (type(error), error, error.__traceback__)
        handler.emit(record)
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def write_atomically(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write a file under another name, and give it its own when it is whole.

    Args:
        path: where it belongs.
        write: writes the file at the path that it is given.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        write(unfinished)
        unfinished.chmod(0o666 & ~_umask())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
