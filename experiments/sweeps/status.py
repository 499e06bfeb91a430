"""How the runs stand: ``python -m experiments status [RUNS] [--watch]``, or the table at the end of a sweep."""

import argparse
import functools
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.configuration.error_messages import command
from experiments.configuration.safe_yaml import read_yaml
from experiments.machine import slurm
from experiments.machine.slurm_limits import lasting
from experiments.machine.terminal import printable
from experiments.runs import state
from experiments.runs.epoch_log import LOSS, read_log
from experiments.runs.finding import label_of, run_folders
from experiments.runs.metrics_file import read_metrics
from lightning_modules.errors import InputError

Queue = Mapping[str, slurm.Queued] | None

STATES = ("finished", "running", "waiting", "stopped", "failed", "damaged")
EPOCH_S = "time/epoch_s"
REFRESH_S = 5.0


@dataclass(frozen=True)
class Status:
    """How one run stands.

    Attributes:
        folder: of the run.
        state: finished; running; waiting for its turn; stopped (interrupted or killed, the same command continues
            it); failed; damaged.
        data: name of the data.
        experiment: name of the experiment; of an audit, also what it is about.
        seed: None where it is not known.
        epoch: epochs done; None where the run does not train.
        n_epochs: epochs in all.
        loss: of the last epoch.
        left_s: estimated time until the last epoch is done.
        note: who is at it, what it waits for, or why it failed and where the log is.
    """

    folder: Path
    state: str
    data: str
    experiment: str
    seed: int | None = None
    epoch: int | None = None
    n_epochs: int | None = None
    loss: float | None = None
    left_s: float | None = None
    note: str = ""


def status_of(folder: Path, queue: Callable[[], Queue] = slurm.queue) -> Status:
    """Tell how the run in a folder stands, from its small files; what is damaged is said, and is no error.

    Args:
        folder: of the run.
        queue: asks Slurm; called only for a run that waits there.
    """
    data, experiment = folder.parts[-3:-1] if len(folder.parts) > 2 else ("", folder.name)
    try:
        return _status(folder, data, experiment, queue)
    except InputError as error:
        return Status(folder, "damaged", data, experiment, note=str(error))


def statuses_of(folders: Iterable[Path]) -> list[Status]:
    """Tell how many runs stand; Slurm is asked once, if at all."""
    queue = functools.cache(slurm.queue)
    return [status_of(folder, queue) for folder in folders]


def _status(folder: Path, data: str, experiment: str, queue: Callable[[], Queue]) -> Status:
    config = _config(folder / "config.yaml")
    state, note = _state(folder, queue)
    epochs = read_log(folder / "log.csv")
    trains = epochs or "Train" in str(config.get("task"))
    n_epochs = _part(config, "trainer").get("max_epochs") if trains else None
    if n_epochs is not None and not isinstance(n_epochs, int):
        raise InputError(f"{folder / 'config.yaml'}: trainer.max_epochs is {n_epochs!r:.50}, expected a number")
    seed = config.get("seed")
    return Status(
        folder,
        state,
        str(_part(config, "data").get("name", data)),
        label_of(config, str(config.get("name", experiment))),
        seed if isinstance(seed, int) else None,
        len(epochs) if n_epochs else None,
        n_epochs,
        epochs[-1].get(LOSS) if epochs else None,
        _left_s(folder / "log.csv", epochs, n_epochs) if state == "running" else None,
        note,
    )


def _state(folder: Path, queue: Callable[[], Queue]) -> tuple[str, str]:
    """Return a run's state, and what there is to say about it."""
    job = state.read_job(folder)
    if read_metrics(folder) is not None:
        return "finished", ""
    if (who := state.holder(folder)) is not None:
        return "running", who + (f", Slurm job {job.slurm}" if job and job.slurm else "")
    if (failure := state.read_failure(folder)) is not None:
        return "failed", f"{failure.reason}\n{failure.when}, log: {failure.log}"
    if job is not None and not job.started and (job.slurm or state.holder(Path(job.sweep))):
        return "waiting", f"Slurm job {job.slurm}{_why_it_waits(job.slurm, queue())}" if job.slurm else ""
    return "stopped", "the same command continues it"


def _why_it_waits(job: str, queue: Queue) -> str:
    """Return what Slurm says of a job that has not begun its run; nothing where it does not answer."""
    if queue is None:
        return ""
    if job not in queue or queue[job].state in slurm.OVER:
        return ": no longer in the queue, the same command submits it again"
    reason = "" if queue[job].reason in ("None", "") else f", {queue[job].reason}"
    never = "; will never start as things are" if lasting(job, queue) else ""
    return f": {queue[job].state}{reason}{never}"


def _config(path: Path) -> dict[str, Any]:
    """Return a run's configuration; nothing of one that has none yet."""
    if not os.path.lexists(path):
        return {}
    found = read_yaml(path, "the configuration of a run")
    if not isinstance(found, dict):
        raise InputError(f"{path}: found a {type(found).__name__}, expected keys and values")
    return found


def _part(config: dict[str, Any], name: str) -> dict[str, Any]:
    part = config.get(name, {})
    if not isinstance(part, dict):
        raise InputError(f"config.yaml: {name} is a {type(part).__name__}, expected keys and values")
    return part


def _left_s(path: Path, epochs: list[dict[str, float]], n_epochs: int | None) -> float | None:
    """Estimate the time left from the epochs so far and the age of the last one."""
    times = [row[EPOCH_S] for row in epochs if EPOCH_S in row]
    if not times or n_epochs is None:
        return None
    return max(0.0, (n_epochs - len(epochs)) * sum(times) / len(times) - (time.time() - path.stat().st_mtime))


def table(runs: Sequence[Status]) -> str:
    """Return the runs as lines of text, and their count as the last one; a failure's reason is below its run."""
    header = ("state", "experiment", "data", "seed", "epoch", "loss", "left", "folder")
    rows = [_cells(run) for run in runs]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [_line(header, widths)]
    for run, row in zip(runs, rows, strict=True):
        lines.append(_line(row, widths))
        if run.state in ("failed", "damaged"):
            lines += [f"    {line}" for line in run.note.splitlines()]
    counts = Counter(run.state for run in runs)
    lines.append(", ".join(f"{counts[state]} {state}" for state in STATES if counts[state]) or "no runs")
    return "\n".join(map(printable, lines))


def _cells(run: Status) -> tuple[str, ...]:
    place = os.path.relpath(run.folder) if run.folder.name else "-"
    return (
        run.state,
        run.experiment,
        run.data,
        "-" if run.seed is None else str(run.seed),
        "-" if run.epoch is None else f"{run.epoch}/{run.n_epochs}",
        "-" if run.loss is None else f"{run.loss:.4f}",
        "-" if run.left_s is None else _duration(run.left_s),
        place + (f"  ({run.note})" if run.note and run.state in ("running", "waiting") else ""),
    )


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{round(seconds)} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d}"


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; with --watch until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m experiments status", description="How the runs stand.")
    parser.add_argument("runs", nargs="?", type=Path, default=Path("runs"), help="a folder with runs below it")
    parser.add_argument("--watch", action="store_true", help=f"refresh every {REFRESH_S:.0f} s until Ctrl-C")
    options = parser.parse_args(arguments)
    if not options.runs.is_dir():
        print(f"{options.runs}: there is no such folder; expected the one given as paths.runs=", file=sys.stderr)
        return 2
    try:
        while True:
            shown = table(statuses_of(run_folders(options.runs)))
            if not options.watch:
                print(shown)
                return 0
            print(f"\x1b[H\x1b[2J{time.strftime('%H:%M:%S')}  Ctrl-C ends watching, not the runs\n{shown}", flush=True)
            time.sleep(REFRESH_S)
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
