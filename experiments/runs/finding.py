"""Where runs are, below any folder. Nothing heavy is imported: hundreds are found in well under a second."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from experiments.configuration.safe_yaml import read_yaml
from experiments.runs import state
from lightning_modules.errors import InputError

CONFIG = "config.yaml"
OWN_KEYS = {"task", "latents", "trainer"}  # no other program's config.yaml has one of these


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


def label_of(config: Mapping[str, Any], name: str) -> str:
    """Return how a run is called among others: an audit by the run and epoch that it is about, others by their name.

    Args:
        config: plain, as stored; nothing is taken for granted.
        name: of the experiment.
    """
    audit = config.get("audit")
    if not isinstance(audit, Mapping):
        return name
    audited = "/".join(Path(str(audit.get("run"))).parts[-2:])
    epoch = "last epoch" if audit.get("epoch") is None else f"epoch {audit['epoch']}"
    return f"{name} of {audited}, {epoch}"


def is_run(folder: Path) -> bool:
    """Tell whether a folder with a config.yaml is a run's, damaged or not, and not another program's."""
    path = folder / CONFIG
    try:
        found = read_yaml(path, "the configuration of a run")
    except InputError:
        return os.path.lexists(path)
    return not isinstance(found, dict) or bool(found.keys() & OWN_KEYS)
