"""Make the report: ``python -m experiments report runs -o report.html``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.configuration.error_messages import command
from experiments.report.contents import gather
from experiments.report.page import render
from experiments.runs.folders import find
from lightning_modules.files.atomic import write_atomically


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Read runs, write the page, print where it is; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments report", description="Show many runs on one page.")
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)")
    parser.add_argument("-o", "--output", type=Path, help="default: report.html in the first folder")
    options = parser.parse_args(arguments)
    path = options.output or options.runs[0] / "report.html"
    try:
        html = render(gather(find(options.runs)))
        write_atomically(path, lambda unfinished: unfinished.write_text(html, encoding="utf-8"))
    except KeyboardInterrupt:
        print("interrupted; no report was written", file=sys.stderr)
        return 130
    print(f"{path} ({len(html.encode()) / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
