"""Where runs are, below any folder. Nothing heavy is imported: hundreds are found in well under a second."""

import os
from collections.abc import Iterator
from pathlib import Path

import yaml

from experiments.configuration.safe_yaml import checked_text
from experiments.runs import state
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes

CONFIG = "config.yaml"
OWN_KEYS = {"task", "latents", "trainer"}  # no other program's config.yaml has one of these
SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def run_folders(top: Path) -> Iterator[Path]:
    """Yield the folders of runs below a folder, in the order of their names: those with a config.yaml or a job.

    What lies inside of a run's folder is the run's, whatever it is called. A link that leads back is followed once.
    """
    yield from _below(top, set())


def _below(top: Path, seen: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        found = top.stat()
        if (found.st_dev, found.st_ino) in seen:
            return
        seen.add((found.st_dev, found.st_ino))
        entries = sorted(os.scandir(top), key=lambda entry: entry.name)
    except OSError:
        return
    if {CONFIG, state.JOB} & {entry.name for entry in entries}:
        yield top
        return
    for entry in entries:
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _below(Path(entry.path), seen)


def is_run(folder: Path) -> bool:
    """Tell whether a folder with a config.yaml is a run's, damaged or not, and not another program's."""
    path = folder / CONFIG
    try:
        found = yaml.load(checked_text(path, read_bytes(path, "a configuration")), SafeLoader)
    except (InputError, ValueError, yaml.YAMLError, RecursionError):
        return os.path.lexists(path)
    return not isinstance(found, dict) or bool(found.keys() & OWN_KEYS)
