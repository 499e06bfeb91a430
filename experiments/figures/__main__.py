"""Draw the figures of finished runs again: ``python -m experiments figures RUN [RUN ...]``."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.configuration.error_messages import command, one_line
from experiments.figures.run_figures import draw, draw_together
from experiments.runs.run import Run
from lightning_modules.errors import InputError


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 1 where some run could not be drawn; the others are."""
    parser = argparse.ArgumentParser(prog="python -m experiments figures", description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="for pictures of several runs; default: figures/ where the runs meet"
    )
    options = parser.parse_args(arguments)
    runs, failed = [], 0
    for folder in dict.fromkeys(path.resolve() for path in options.runs):
        try:
            run = Run.load(folder)
            if run.metrics is None:
                raise InputError(f"{folder}: this run is not finished; the command that started it continues it")
            _tell(draw(run))
            runs.append(run)
        except InputError as error:
            print(one_line(error), file=sys.stderr)
            failed = 1
    if len(runs) > 1:
        meeting = Path(os.path.commonpath([run.folder for run in runs]))
        _tell(draw_together(runs, options.out or meeting / "figures"))
    return failed


def _tell(drawn: Sequence[Path]) -> None:
    for path in drawn:
        print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
