"""Jobs that Slurm will not start as things are: which reasons never pass by themselves, and which key asks for less."""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

from experiments.machine.slurm import Queued, ask


class Lasting(NamedTuple):
    """Reasons of one kind for which a job waits, and will for ever.

    Attributes:
        reasons: matches them: those that Slurm's ``squeue`` calls job reason codes.
        keys: of the launcher, which ask for what cannot be had.
        beside_others: whether it passes when another job of the same user ends.
    """

    reasons: re.Pattern[str]
    keys: tuple[str, ...] = ()
    beside_others: bool = False


LASTS_S = 10.0
LIMIT = "(Assoc|QOS)Max"
SIZES = ("cpus_per_task", "mem_gb", "gpus_per_node", "timeout_min")
LASTING = (
    Lasting(re.compile("PartitionConfig"), ("cpus_per_task", "mem_gb", "gpus_per_node")),
    Lasting(re.compile(f"PartitionTimeLimit|QOSTimeLimit|{LIMIT}WallDurationPerJob"), ("timeout_min",)),
    Lasting(re.compile(f"PartitionNodeLimit|{LIMIT}NodePerJob"), ("nodes",)),
    Lasting(re.compile(f"{LIMIT}(CPU|Cpu)(Run)?Minutes.*PerJob"), ("timeout_min", "cpus_per_task")),
    Lasting(re.compile(f"{LIMIT}CpuPer(Job|Node)"), ("cpus_per_task",)),
    Lasting(re.compile(f"{LIMIT}Mem(ory)?Per(Job|Node)"), ("mem_gb",)),
    Lasting(re.compile(f"{LIMIT}GRES(Minutes)?Per(Job|Node)"), ("gpus_per_node",)),
    Lasting(re.compile(f"{LIMIT}.*Per(Job|Node)"), SIZES),
    Lasting(re.compile("BadConstraints"), ("constraint", "partition")),
    Lasting(re.compile("InvalidAccount|AccountNotAllowed|AccountingPolicy"), ("account",)),
    Lasting(re.compile("InvalidQOS|QOSNotAllowed|QOSMin"), ("qos",)),
    Lasting(re.compile("DependencyNeverSatisfied|ReservationDeleted")),
    Lasting(re.compile("JobHeldAdmin|JobHoldMaxRequeue|.*requeued.held")),
    Lasting(re.compile(f"{LIMIT}(JobsLimit|JobsPerUser|.*PerUser)"), ("qos", "account"), beside_others=True),
)


def lasting(job: str, queue: Mapping[str, Queued]) -> Lasting | None:
    """Return what keeps a job from ever starting; None: it runs, or what it waits for may come.

    Args:
        job: its id.
        queue: all jobs of the user.
    """
    queued = queue.get(job)
    if queued is None or queued.state != "PENDING":
        return None
    found = next((kind for kind in LASTING if kind.reasons.match(queued.reason)), None)
    others = any(other.state in ("RUNNING", "COMPLETING", "CONFIGURING") for other in queue.values())
    return None if found is None or (found.beside_others and others) else found


@dataclass(frozen=True)
class Offer:
    """The most of each that a node of a partition has; its time limit.

    Attributes:
        cpus: processors.
        mem_mb: memory.
        gpus: of any kind.
        minutes: of a job; inf: no limit.
    """

    cpus: int
    mem_mb: int
    gpus: int
    minutes: float

    def less(self, asked: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
        """Return the overrides that ask for what there is, of the keys that ask for more."""
        tasks = asked.get("tasks_per_node") or 1
        has: dict[str, Any] = {
            "cpus_per_task": self.cpus // tasks,
            "mem_gb": int(self.mem_mb / 102.4) / 10,
            "gpus_per_node": self.gpus or None,
            "timeout_min": self.minutes if self.minutes == inf else int(self.minutes),
        }
        too_much = [key for key in keys if key in has and (asked.get(key) or 0) > (has[key] or 0)]
        return [f"hydra.launcher.{key}={'null' if has[key] is None else has[key]}" for key in too_much]


def offer_of(partition: str | None) -> Offer | None:
    """Ask what a partition has, by default the site's default partition; None where Slurm does not say."""
    answer = ask(["sinfo", "--noheader", "--Node", "--format=%P|%c|%m|%l|%G"]) or ""
    rows = [line.split("|", 4) for line in answer.splitlines() if line.count("|") >= 4]
    wanted = None if partition is None else set(partition.split(","))
    rows = [row for row in rows if (row[0].rstrip("*") in wanted if wanted is not None else row[0].endswith("*"))]
    try:
        nodes = [Offer(int(c), int(m), _gpus(gres), _minutes(limit)) for _, c, m, limit, gres in rows]
    except ValueError:
        return None
    if not nodes:
        return None
    return Offer(*(max(getattr(node, name) for node in nodes) for name in ("cpus", "mem_mb", "gpus", "minutes")))


def _gpus(gres: str) -> int:
    """Count the GPUs in gpu:2, or gpu:a100:4(S:0-1),gpu:v100:2."""
    return sum(map(int, re.findall(r"gpu(?::[^:,()]+)?:(\d+)", gres)))


def _minutes(limit: str) -> float:
    """Read a time as squeue and sinfo write it: 1-00:00:00, 4:00:00, 30:00, infinite."""
    if not limit[0].isdigit():
        return inf
    days, _, rest = limit.rpartition("-")
    parts = [int(part) for part in rest.split(":")]
    hours, minutes, _ = ([0] * (3 - len(parts)) + parts) if len(parts) > 1 else (0, parts[0], 0)
    return int(days or 0) * 1440 + hours * 60 + minutes


def advice(asked: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """Say what the nodes have, and which overrides ask for that; None where nothing that is known is too much.

    Args:
        asked: the launcher's settings.
        keys: those that may be too large.
    """
    offer = offer_of(asked.get("partition"))
    if offer is None or not (less := offer.less(asked, keys)):
        return None
    limit = "" if offer.minutes == inf else f", at most {offer.minutes:g} min"
    has = f"{offer.cpus} CPUs, {offer.mem_mb / 1024:.1f} GB, {offer.gpus} GPUs{limit}"
    return f"the partition's nodes have {has}; ask for less: {' '.join(less)}"


def why_never(job: str, reason: str, kind: Lasting, asked: Mapping[str, Any]) -> str:
    """Say in one line why a job does not start, and what to change.

    Args:
        job: its id.
        reason: what Slurm says.
        kind: of that reason.
        asked: the launcher's settings.
    """
    text = f"Slurm job {job} will never start as things are ({reason})"
    if (said := advice(asked, kind.keys)) is not None:
        return f"{text}: {said}"
    if kind.keys:
        return f"{text}: change {' or '.join(f'hydra.launcher.{key}={asked.get(key)}' for key in kind.keys)}"
    return f"{text}: start the sweep again, or ask those who run the cluster"


class Patience:
    """Gives a reason that will last some seconds: Slurm revises it as nodes come and go."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        """Set what the launcher asks for."""
        self.asked = asked
        self._since: dict[str, float] = {}

    def why_over(self, job: str, queue: Mapping[str, Queued] | None) -> str | None:
        """Return why it is no use to wait for a job any longer; None: it may start, or Slurm does not answer."""
        kind = None if queue is None else lasting(job, queue)
        if queue is None or kind is None:
            self._since.pop(job, None)
            return None
        if time.monotonic() - self._since.setdefault(job, time.monotonic()) < LASTS_S:
            return None
        return why_never(job, queue[job].reason, kind, self.asked)
