"""What lies below a folder: runs that are finished, under way, failed or damaged."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.configuration.compose import to_dict
from experiments.runs.epoch_log import read_log
from experiments.runs.finding import is_run, label_of, run_folders
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_end

FINISHED, UNFINISHED, FAILED, DAMAGED = "finished", "unfinished", "failed", "damaged"
LOG_LINE = re.compile(r"^\d{4}-\d\d-\d\d \S+ (?P<level>[A-Z]+) (?P<text>.*)$")


@dataclass(frozen=True)
class RunFolder:
    """A run as it was found; nothing about it is taken for granted.

    Attributes:
        folder: of the run.
        status: finished, unfinished (under way, or interrupted), failed or damaged.
        config: plain and resolved; empty where it cannot be read.
        metrics: the final numbers; empty until there are any.
        rows: log.csv, one row per epoch; a value that is no number is left out.
        problem: one line on what went wrong; empty where nothing did.
    """

    folder: Path
    status: str
    config: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, float]] = field(default_factory=list)
    problem: str = ""

    @property
    def name(self) -> str:
        """The experiment."""
        return str(self.config.get("name") or self.folder.parent.name)

    @property
    def label(self) -> str:
        """How the run is shown among others."""
        return label_of(self.config, self.name)

    @property
    def seed(self) -> int | None:
        """The run's seed, where it is known."""
        seed = self.config.get("seed")
        return seed if isinstance(seed, int) else None

    def number(self, key: str) -> float | None:
        """Return a final number; None where there is none."""
        value = self.metrics.get(key)
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def find(roots: Iterable[Path]) -> list[RunFolder]:
    """Find every run at or below some folders.

    Args:
        roots: the folders of runs, or any above them.

    Returns:
        The runs, by path, each once.

    Raises:
        InputError: a root is not a folder, or there is no run below any of them.
    """
    roots = list(roots)
    for root in roots:
        if not root.is_dir():
            raise InputError(f"{root}: there is no such folder; name a folder of runs, such as runs")
    folders = {folder.resolve() for root in roots for folder in run_folders(root) if is_run(folder)}
    if not folders:
        names = ", ".join(map(str, roots))
        raise InputError(f"{names}: no run in it, expected folders with a config.yaml; `make grid` makes some")
    return [look(folder) for folder in sorted(folders)]


def look(folder: Path) -> RunFolder:
    """Read a run's folder, whatever its state."""
    try:
        run = Run.load(folder)
        OmegaConf.resolve(run.config)
        config = to_dict(run.config)
    except InputError as error:
        return RunFolder(folder, DAMAGED, problem=str(error))
    except Exception as error:
        return RunFolder(folder, DAMAGED, problem=f"config.yaml: {' '.join(str(error).split())}")
    rows: list[dict[str, float]] = []
    try:
        rows = read_log(folder / "log.csv")
        metrics = run.metrics
    except InputError as error:
        return RunFolder(folder, DAMAGED, config, rows=rows, problem=str(error))
    if metrics is not None:
        return RunFolder(folder, FINISHED, config, metrics, rows)
    problem = last_error(folder / "run.log")
    if problem:
        return RunFolder(folder, FAILED, config, rows=rows, problem=problem)
    of = None if config.get("audit") else (config.get("trainer") or {}).get("max_epochs")
    return RunFolder(folder, UNFINISHED, config, rows=rows, problem=f"{len(rows)} of {of} epochs done" if of else "")


def last_error(path: Path) -> str:
    """Return the failure with which a run's last attempt ended, as one line; empty if it did not fail.

    An attempt that was interrupted from the keyboard did not.
    """
    lines = read_end(path).splitlines()
    starts = [number for number, line in enumerate(lines) if LOG_LINE.match(line)]
    if not starts:
        return ""
    found = LOG_LINE.match(lines[starts[-1]])
    assert found is not None
    if found["level"] not in ("ERROR", "CRITICAL") or lines[-1].startswith("KeyboardInterrupt"):
        return ""
    text = found["text"].removeprefix("failed:").strip()
    return text or lines[-1].strip()
