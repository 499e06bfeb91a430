"""Many runs at once: which of them are left to do, in what order, and what came of each.

A sweep hands its launcher the runs that are not finished, those that others need first. What came of them is read
from the runs' folders, whatever the launcher says: it knows nothing of a job that was killed.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.error_messages import one_line
from experiments.configuration.schema import Precision
from experiments.configuration.stored import refuse_unknown_targets
from experiments.runs import state
from experiments.runs.changed_data import refuse_changed
from experiments.runs.run import Run, start_over
from experiments.sweeps.status import Status, status_of, table
from lightning_modules.files.atomic import write_atomically

logger = logging.getLogger(__name__)


class SweepError(Exception):
    """Runs of a sweep are not finished; the message names them."""


@dataclass(frozen=True)
class Planned:
    """A run that a sweep has to carry out.

    Attributes:
        overrides: as on the command line.
        run: the run.
        needs: positions in the plan of the runs that must be over before this one begins; all are smaller.
        carries_out: folders of sources that nobody else in the plan carries out.
    """

    overrides: tuple[str, ...]
    run: Run
    needs: tuple[int, ...] = ()
    carries_out: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """Name, data and seed."""
        config = self.run.config
        return f"{config.name}.{config.data.name}.seed{config.seed}"


@dataclass(frozen=True)
class Refused:
    """A configuration of a sweep that cannot be used."""

    overrides: tuple[str, ...]
    reason: str


def wanted(overrides: Sequence[str], composed: DictConfig, auto_precision: str | None = None) -> Planned | Refused:
    """Return the run of one configuration of a sweep.

    Args:
        overrides: as on the command line.
        composed: the configuration that they give.
        auto_precision: what precision=auto means; None: what this machine does well. It is decided here and once:
            a grid whose runs decide for themselves is no comparison, and a run would look for its source in vain.
    """
    config = composed.copy()
    try:
        if config.precision == Precision.auto and auto_precision is not None:
            config.precision = Precision[auto_precision]
        run = Run.of(config)
        refuse_unknown_targets(run.config)
        source = run.source()
        for each in (run, source):
            # Damaged results are reported here, too.
            if each is not None and each.metrics is not None and not config.overwrite:
                refuse_changed(each)
    except Exception as error:
        return Refused(tuple(overrides), one_line(error))
    fixed = [f"precision={OmegaConf.to_container(run.config, enum_to_str=True)['precision']}"]  # type: ignore[index, call-overload]
    if run.config.overwrite:
        fixed.append("overwrite=false")  # the sweep does it; a job that is queued again must not
    return Planned((*overrides, *fixed), run)


def plan(runs: Sequence[Planned]) -> list[Planned]:
    """Order the runs that are not finished, each after the ones that it needs.

    A source that is neither finished nor among the runs is carried out by the first that needs it; the others
    need that one.

    Args:
        runs: each configuration of the sweep; the same run may be among them twice.

    Returns:
        What is left to do.
    """
    left = {entry.run.folder: entry for entry in runs if entry.run.metrics is None or entry.run.config.overwrite}
    sources = {folder: _unfinished_sources(entry.run, set(left)) for folder, entry in left.items()}
    first = sorted(left, key=lambda folder: len(sources[folder]))  # stable: the user's order among equals
    carried_out_by = {folder: position for position, folder in enumerate(first)}
    ordered: list[Planned] = []
    for position, folder in enumerate(first):
        own: list[Path] = []
        needs: list[int] = []
        for source in sources[folder]:
            by = carried_out_by.setdefault(source, position)
            if by != position:
                needs.append(by)
                break  # who carries that one out has waited for the rest of the chain
            own.append(source)
        ordered.append(replace(left[folder], needs=tuple(needs), carries_out=tuple(own)))
    return ordered


def _unfinished_sources(run: Run, to_be_done: set[Path]) -> list[Path]:
    """Return the folders of the runs that a run needs, and they need, as far as they are not finished."""
    found: list[Path] = []
    source = run.source()
    while source is not None and (source.metrics is None or source.folder in to_be_done):
        found.append(source.folder)
        source = source.source()
    return found


@contextmanager
def submitted(todo: Sequence[Planned], sweep: Path) -> Iterator[None]:
    """Note in the runs' folders that a sweep will carry them out.

    Args:
        todo: the runs.
        sweep: the sweep's folder, which exists; while this block lasts, others can see that it is alive.
    """
    with state.lease(sweep):
        for entry in todo:
            folder = entry.run.folder
            if state.holder(folder) is not None:
                continue  # another sweep's, and on its way; this one will wait for it
            if entry.run.config.overwrite:
                start_over(entry.run)
            for tried_again in (folder, *entry.carries_out):
                state.forget_failure(tried_again)
            write_atomically(folder / "config.yaml", partial(OmegaConf.save, entry.run.config))
            state.write_job(folder, state.Job(str(sweep)))
        yield


def report(entries: Sequence[Planned | Refused]) -> None:
    """Print the table of a sweep.

    Raises:
        SweepError: not all are finished.
    """
    shown = {_folder(entry): _status(entry) for entry in entries}  # one row for each run
    print(table(list(shown.values())), flush=True)
    bad = [status for status in shown.values() if status.state != "finished"]
    if bad:
        named = "; ".join(f"{run.experiment} (seed {run.seed}): {_why(run)}" for run in bad[:5])
        more = f"; and {len(bad) - 5} more" if len(bad) > 5 else ""
        raise SweepError(f"{len(bad)} of {len(shown)} not finished: {named}{more}")


def _folder(entry: Planned | Refused) -> Path | tuple[str, ...]:
    return entry.run.folder if isinstance(entry, Planned) else entry.overrides


def _status(entry: Planned | Refused) -> Status:
    if isinstance(entry, Planned):
        return status_of(entry.run.folder)
    return Status(Path(), "failed", "-", " ".join(entry.overrides), note=entry.reason)


def _why(run: Status) -> str:
    return (run.note.splitlines() or [""])[0] if run.state == "failed" else run.state
