"""What the files in a run's folder say: somebody is at it, it waits for its turn, it failed, it is finished.

Small files alone are read, and nothing heavy is imported: two hundred runs are looked at in well under a second.
"""

import json
import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import SoftFileLease

from experiments.machine.slurm import OVER, end, state_of, this_job
from lightning_modules.errors import InputError
from lightning_modules.files.lease import LEASE_S
from lightning_modules.files.lease import lease as lease_of_file
from lightning_modules.files.regular_files import is_regular, read_bytes

LEASE = ".running"
JOB, FAILURE = "job.json", "failed.json"


def lease(folder: Path, if_lost: Callable[[Any], None] | None = None) -> SoftFileLease:
    """Return the lease of a folder: who holds it is at work there.

    Args:
        folder: it must exist.
        if_lost: called, in another thread, when the holder was frozen for so long that somebody else took over.
    """
    return lease_of_file(folder / LEASE, if_lost)


def holder(folder: Path) -> str | None:
    """Return who is at work in a folder, as "process 12 on HOST"; None where nobody is, or is no longer."""
    if not is_regular(folder / LEASE):
        return None
    age_s = time.time() - (folder / LEASE).stat().st_mtime
    owner = lease(folder).owner
    if owner is None or age_s > 2 * LEASE_S:  # twice: the machines' clocks may differ
        return None
    host, _, namespace = owner.hostname.partition("?pidns-")
    is_here = host == socket.gethostname() and (not namespace or int(namespace, 16) == _pid_namespace())
    if is_here and not _is_alive(owner.pid):
        return None
    return f"process {owner.pid} on {host}"


def _pid_namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # killed, and not yet noticed by its parent
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return True


@dataclass(frozen=True)
class Job:
    """How a sweep had a run carried out.

    Attributes:
        sweep: the sweep's folder.
        slurm: id of the Slurm job, as 12 or 12_3; None where another launcher was used.
        log: file with everything that the job said; None where the run's own log has it.
        started: whether the run was begun, and has not been queued again since.
    """

    sweep: str
    slurm: str | None = None
    log: str | None = None
    started: bool = False


@dataclass(frozen=True)
class Failure:
    """Why a run came to nothing.

    Attributes:
        reason: one line.
        when: date and time.
        log: file to look into.
    """

    reason: str
    when: str
    log: str


def read_job(folder: Path) -> Job | None:
    """Return how a run was submitted; None where no sweep did."""
    found = _read(folder / JOB, Job)
    return None if found is None else Job(**found)


def write_job(folder: Path, job: Job) -> None:
    """Say how a run was submitted."""
    _write(folder / JOB, asdict(job))


def mark_started(folder: Path, started: bool = True) -> None:
    """Say that the run of a sweep was begun, or is queued again."""
    job = read_job(folder)
    if job is not None:
        write_job(folder, replace(job, started=started))


def read_failure(folder: Path) -> Failure | None:
    """Return why a run failed; None where it did not, or was begun again."""
    found = _read(folder / FAILURE, Failure)
    return None if found is None else Failure(**found)


def write_failure(folder: Path, reason: str, log: str | None = None) -> None:
    """Say why a run failed; the next try removes it. The log is the run's own, unless another knows more."""
    own, job = folder / "run.log", read_job(folder)
    found = log or str(own if own.exists() or job is None or job.log is None else job.log)
    _write(folder / FAILURE, asdict(Failure(reason, datetime.now().isoformat(timespec="seconds"), found)))


def forget_failure(folder: Path) -> None:
    """Forget why a run failed: it is tried again."""
    (folder / FAILURE).unlink(missing_ok=True)


def _read(path: Path, kind: type) -> dict[str, Any] | None:
    """Return the known fields of a file; None where it is missing, was torn, or holds something else."""
    try:
        found = json.loads(read_bytes(path, "what a run says of itself"))
        known = {field.name: found[field.name] for field in fields(kind)}
    except (InputError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return known if all(isinstance(value, (str, bool, type(None))) for value in known.values()) else None


def _write(path: Path, content: dict[str, Any]) -> None:
    from lightning_modules.files.atomic import write_atomically

    text = json.dumps(content, indent=2) + "\n"
    with suppress(FileNotFoundError):  # a run that begins clears away what looks left over
        write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))
        return
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def lost(folder: Path, sweep: str) -> str | None:
    """Return why the job that was to carry out a run in a sweep did not, though it is over; None otherwise."""
    job = read_job(folder)
    if job is None or job.slurm is None or job.sweep != sweep or job.slurm == this_job():
        return None
    state = state_of(job.slurm)
    return end(job.slurm, state, job.log) if state in OVER else None
