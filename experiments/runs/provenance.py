"""Where a run's numbers come from: provenance.json in its folder.

Versions, hardware, git state, command and times of every attempt, and checksums of the data. None of it decides a
number that the configuration does not, and none is part of a run's identity.
"""

import importlib.metadata
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.configuration.compose import REPOSITORY
from experiments.machine.hardware import processor
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes

if TYPE_CHECKING:
    from experiments.runs.run import Run

PROVENANCE = "provenance.json"
PACKAGES = ("amortize-or-memorize", "cryodrgn", "torch", "pytorch-lightning", "numpy", "hydra-core")


@contextmanager
def recorded(run: "Run") -> Iterator[None]:
    """Record an attempt at a run: its start and the data at once, its end when the block is over.

    An attempt that was killed has no end. The duration is that of a clock which nobody sets.
    """
    path = run.folder / PROVENANCE
    attempts = [*_earlier(path), _attempt(run)]
    _write(path, {"attempts": attempts})
    started = time.monotonic()
    data = _data(run)
    _write(path, {"attempts": attempts, **data})
    yield
    attempts[-1] |= {"ended": _now(), "duration_s": round(time.monotonic() - started, 3), **_of_torch()}
    _write(path, {"attempts": attempts, **data})


def _data(run: "Run") -> dict[str, Any]:
    """Return the data's files and checksums, taken before anything is read for the run."""
    from experiments.runs.changed_data import stamps_of
    from experiments.runs.checksums import checksums_of, files_of

    try:
        files = files_of(run.config)
        return {"files": stamps_of(files or {}), "data": checksums_of(run.config, files)}
    except (InputError, OSError):  # who reads the data next says so
        return {"data": None}


def read(folder: Path) -> dict[str, Any] | None:
    """Return what is recorded in a run's folder; None where nothing is, as in runs of earlier versions.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / PROVENANCE
    if not os.path.lexists(path):
        return None
    content = read_bytes(path, "the provenance of a run")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("attempts"), list):
        raise InputError(f"{path}: expected the attempts at a run as JSON; delete the file to do without")
    return found


def _earlier(path: Path) -> list[dict[str, Any]]:
    try:
        found = read(path.parent)
    except InputError:  # it must not stop the run
        return []
    return [] if found is None else found["attempts"]


def _write(path: Path, content: dict[str, Any]) -> None:
    from lightning_modules.files.atomic import write_atomically

    text = json.dumps(content, indent=2) + "\n"
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def _attempt(run: "Run") -> dict[str, Any]:
    return {
        "started": _now(),
        "ended": None,
        "command": shlex.join(sys.argv),
        "overrides": _overrides(),
        "seed": run.config.seed,
        "versions": versions(),
        "git": git_state(),
        "hardware": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
            "system": platform.platform(),
        },
    }


def _of_torch() -> dict[str, Any]:
    """Return what only torch knows, once the run has imported it."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    gpus = (
        [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    native = sys.modules.get("lightning_modules.networks.native_library")
    return {"threads": torch.get_num_threads(), "gpus": gpus, "native_code": bool(native and native.is_loaded())}


def _overrides() -> list[str] | None:
    """Return what Hydra was told; None where it was not asked."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that decide the numbers; None: not installed as a package."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def git_state(folder: Path = REPOSITORY) -> dict[str, Any] | None:
    """Return the suite's commit, and whether its files have changed since; None outside its own repository."""
    try:
        if Path(_git(folder, "rev-parse", "--show-toplevel")).resolve() != folder.resolve():
            return None
        return {"commit": _git(folder, "rev-parse", "HEAD"), "dirty": bool(_git(folder, "status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(
        command, capture_output=True, encoding="utf-8", errors="replace", check=True, timeout=20
    ).stdout.strip()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
