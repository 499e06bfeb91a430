"""Log finished runs to Weights & Biases: ``python -m experiments wandb RUNS [--mode online]``.

What training with ``logger=wandb`` would have logged is read from each run's folder; nothing is trained or drawn again.
"""

import argparse
import logging
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from experiments.configuration.error_messages import command, one_line
from experiments.machine.terminal import purpose
from experiments.runs import folders
from experiments.runs.epoch_log import read_log
from experiments.runs.run import Run
from experiments.tracking.loggers import close, log_results, wandb_logger
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import regular_file

FILES = "wandb"  # W&B's own folder in that of a run


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Log from the command line; returns the exit code: 1 where some run could not be logged; the others are."""
    options = _options(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    finished = [found.folder for found in folders.find(options.runs) if found.status == folders.FINISHED]
    if not finished:
        raise InputError(f"{', '.join(map(str, options.runs))}: no finished run was found, expected at least one")
    failed = 0
    for folder in finished:
        if (folder / FILES).exists() and not options.again:
            print(f"{folder}: logged before; --again replaces what its W&B run holds")
            continue
        try:
            log_finished(Run.load(folder), options)
            print(f"{folder}: logged, {options.mode}", flush=True)
        except InputError as error:
            print(one_line(error), file=sys.stderr)
            failed = 1
    return failed


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m experiments wandb", description=purpose(__doc__))
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUNS", help="folders of runs, or any above them")
    parser.add_argument("--project", default="amortize-or-memorize", help="W&B project (logger.project)")
    parser.add_argument("--entity", help="W&B team or user; by default that of the key")
    parser.add_argument("--group", help="by default the name of the data (logger.group)")
    parser.add_argument(
        "--mode", choices=("offline", "online"), default="offline", help="online needs a key (logger.mode)"
    )
    parser.add_argument("--again", action="store_true", help="also runs that were logged before")
    return parser.parse_args(arguments)


def log_finished(run: Run, options: argparse.Namespace) -> None:
    """Log a finished run from its folder: every row of log.csv, then its results.

    Args:
        run: finished.
        options: project, entity, group and mode.

    Raises:
        InputError: a file of the run is missing or damaged; the folder then holds what it held before.
    """
    before = _logged(run)
    tracker = wandb_logger(run, options.project, options.entity, options.group, options.mode, afresh=True)
    assert tracker is not None
    try:
        for row in read_log(run.folder / "log.csv"):
            tracker.log_metrics(row)
        figures = [regular_file(path, "a picture") for path in sorted((run.folder / "figures").glob("*.png"))]
        log_results(tracker, run, run.metrics or {}, figures)
    except InputError:
        close(tracker, failed=True)
        for path in _logged(run) - before:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        with suppress(OSError):  # it held something before
            (run.folder / FILES).rmdir()
        raise
    close(tracker)


def _logged(run: Run) -> set[Path]:
    return set((run.folder / FILES).glob("*"))


if __name__ == "__main__":
    sys.exit(main())
