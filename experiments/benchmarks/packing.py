"""How many runs of a grid to carry out together: the time until all are done, one, two, four and eight at once.

    python -m experiments packing                                 # 8 seeds of a small baseline
    python -m experiments packing --together 1 4 data.box_px=64   # with further settings, as for run.py

Whole runs, from start-up to figures, each a process of its own, on the GPU if there is one. Each gets its share of the
processor's cores. One at a time is measured in the same call, and is what the others are held against.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from experiments.benchmarks.measuring import in_a_line, load_average, machine, write_measured
from experiments.configuration.compose import REPOSITORY
from experiments.configuration.error_messages import command
from experiments.machine.hardware import n_cores
from experiments.machine.terminal import purpose
from lightning_modules.errors import InputError

SMALL = ("+exp=baseline", "data.n_particles=1000", "trainer.max_epochs=4", "trainer.enable_progress_bar=false")


def makespan_s(together: int, n_runs: int, settings: Sequence[str]) -> float:
    """Carry out runs of different seeds, so many at once; return the seconds until the last is done.

    Raises:
        InputError: one of them failed.
    """
    threads = str(threads_each(together))
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:

        def one(seed: int) -> subprocess.CompletedProcess[str]:
            asked = [*SMALL, f"seed={seed}", f"paths.runs={folder}", *settings]
            environment = {**os.environ, "OMP_NUM_THREADS": threads}
            return subprocess.run(
                [sys.executable, REPOSITORY / "run.py", *asked],
                env=environment,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )

        start = time.perf_counter()
        with ThreadPoolExecutor(together) as pool:
            done = list(pool.map(one, range(n_runs)))
        seconds = time.perf_counter() - start
    for seed, each in enumerate(done):
        if each.returncode:
            raise InputError(f"the run of seed {seed} failed: {' '.join(each.stderr.split())[-500:]}")
    return seconds


def threads_each(together: int) -> int:
    """Return how many threads each of so many runs gets."""
    return max(1, n_cores() // together)


def table(seconds: dict[int, float], n_runs: int) -> str:
    """Lay out the times until all runs are done, and how many times as fast that is as the first."""
    lines = [f"| runs at once | threads of each | until all {n_runs} are done, s | ratio |", "|---|---|---|---|"]
    first = next(iter(seconds.values()))
    for together, until in seconds.items():
        lines.append(f"| {together} | {threads_each(together)} | {until:.0f} | {first / until:.2f} |")
    return "\n".join(lines) + "\n"


def report(options: argparse.Namespace) -> str:
    """Measure all, write packing.json and packing.md, and return the latter's text."""
    before = load_average()
    makespan_s(1, 1, options.settings)  # makes the particles, and compiles what is compiled once
    seconds = {together: makespan_s(together, options.runs, options.settings) for together in options.together}
    about: dict[str, Any] = machine() | {"load_before": before, "settings": [*SMALL, *options.settings]}
    text = f"{in_a_line(about)}\n\n{table(seconds, options.runs)}"
    write_measured(options.output / "packing", {**about, "runs": options.runs, "makespan_s": seconds}, text)
    return text


@command
def main(arguments: list[str] | None = None) -> int:
    """Measure from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments packing", description=purpose(__doc__))
    parser.add_argument("--together", type=int, nargs="+", default=[1, 2, 4, 8], help="runs at once (default 1 2 4 8)")
    parser.add_argument("--runs", type=int, default=8, help="runs of the grid (default 8)")
    parser.add_argument("--output", type=Path, default=Path("runs/packing"), help="folder for packing.json and .md")
    parser.add_argument("settings", nargs="*", help="further settings, as for run.py: data.box_px=64")
    options = parser.parse_intermixed_args(arguments)
    if min(options.together) < 1 or options.runs < 1:
        parser.error("--together and --runs: expected at least 1")
    print(f"{report(options)}\n{options.output.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
