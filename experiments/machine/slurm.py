"""What Slurm knows about this user's jobs. Accounting (sacct) is asked only where it exists and the queue forgot."""

import logging
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lightning_modules.files.regular_files import read_end

logger = logging.getLogger(__name__)

# What squeue calls a job that will not run again; one that is requeued becomes PENDING.
OVER = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "TIMEOUT",
}  # fmt: skip
ADVICE = {
    "OUT_OF_MEMORY": "; raise hydra.launcher.mem_gb",
    "TIMEOUT": "; raise hydra.launcher.timeout_min or max_num_timeout",
}
TIMEOUT_S = 60.0


class Queued(NamedTuple):
    """What the queue knows of a job.

    Attributes:
        state: as squeue calls it: PENDING, RUNNING, ...
        reason: why it is in that state: Priority, Resources, PartitionConfig, ...; "None" without one.
    """

    state: str
    reason: str


def queue() -> dict[str, Queued] | None:
    """Return what the queue remembers of this user's jobs, by id, 12 or 12_3; None where Slurm did not answer."""
    answer = ask(["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"])
    if answer is None:
        return None
    rows = (line.split("|", 2) for line in answer.splitlines() if line.count("|") >= 2)
    return {job: Queued(state, reason) for job, state, reason in rows}


def states() -> dict[str, str] | None:
    """Return the state of each of this user's jobs that the queue remembers, by id; None: no answer."""
    known = queue()
    return None if known is None else {job: queued.state for job, queued in known.items()}


def state_of(job: str) -> str:
    """Return the state of a job; GONE where nobody remembers it, UNKNOWN where Slurm did not answer."""
    known = states()
    if known is None:
        return "UNKNOWN"
    if job in known:
        return known[job]
    recorded = ask(["sacct", "--noheader", "--allocations", "--parsable2", "--format=State", f"--jobs={job}"])
    return recorded.split()[0] if recorded and recorded.split() else "GONE"


def this_job() -> str | None:
    """Return the id of the Slurm job that this process belongs to, as 12 or 12_3; None outside of one."""
    if (array := os.environ.get("SLURM_ARRAY_JOB_ID")) is not None:
        return f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def rename(names: Mapping[str, str]) -> None:
    """Give jobs their names; an array is submitted with one for all."""
    commands = "".join(f"update jobid={job} name={name}\n" for job, name in names.items())
    ask(["scontrol", "--oneliner"], commands)


def cancel(job: str) -> None:
    """End a job, or take it out of the queue."""
    ask(["scancel", job])


def end(job: str, state: str, log: str | None) -> str:
    """Say in one line how a job ended that left no word."""
    said = _last_line(Path(log)) if log and state not in ADVICE and state != "CANCELLED" else ""
    return f"Slurm job {job} ended as {state}{ADVICE.get(state, '')}{said and ': '}{said}"


def _last_line(log: Path) -> str:
    lines = read_end(log).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]


def ask(command: list[str], said: str = "") -> str | None:
    """Return what one of Slurm's commands answers; None where it is not here, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, input=said, capture_output=True, encoding="utf-8", errors="replace", timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("%s: %s", command[0], error)
        return None
    return done.stdout
