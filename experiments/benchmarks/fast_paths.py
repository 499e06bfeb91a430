"""Do the fast ways of training come to the plain one's numbers, and does the same run come to its own again?

    python -m experiments fast_paths                            # four experiments, three seeds, small
    python -m experiments fast_paths --exp vlt_zero data=...    # with further settings, as for run.py

The plain way is float32, by torch's operations one after another. What its seeds do among themselves is the yardstick
for the fast ways: their mean over the same seeds may be as far away as one seed is from another. The plain way is also
trained again with the same seed, and the fastest with another number of threads: its sums are then taken in another
order, as a GPU may take them in each run. That alone moves a number by up to TOLERANCES, and no way is held to less.
Runs that are there already, below the output folder, are not trained again.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from experiments.benchmarks.measuring import (
    BFLOAT16,
    CPP,
    FLOAT32,
    hush_libraries,
    in_a_line,
    machine,
    on_gpu,
    ways,
    write_measured,
)
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import command
from experiments.configuration.validation import check
from experiments.machine.hardware import n_cores, threads_kept, wait_briefly_beside_others
from experiments.machine.terminal import purpose
from experiments.runs.execution import execute

EXPERIMENTS = ("baseline", "vlt_zero", "evil_twin_permuted", "evil_twin_noise")
SMALL = ("data.n_particles=1000", "trainer.max_epochs=10", "trainer.enable_progress_bar=false")
PLAIN, AGAIN = FLOAT32, f"{FLOAT32}, again"
FASTEST_ON_CPU = BFLOAT16 + CPP
THREADS = f"{FASTEST_ON_CPU}, other threads"
REPEATS = {AGAIN: PLAIN, THREADS: FASTEST_ON_CPU}  # of which way each is a repetition
# What a run may differ by from itself where sums are taken in another order: losses and KL by a fraction of themselves,
# the others by so much.
TOLERANCES = {
    "loss/total": 0.005, "loss/reconstruction": 0.005, "loss/kl": 0.05,
    "latents/knn_class_accuracy": 0.05, "latents/knn_hinge_r2": 0.1,
}  # fmt: skip
METRICS = tuple(TOLERANCES)

Numbers = dict[str, list[float]]  # of a way, by metric: one for each seed


def numbers_of(experiment: str, way: str, settings: Sequence[str], seeds: Sequence[int], folder: Path) -> Numbers:
    """Train an experiment with each seed, or find it trained.

    Args:
        experiment: a file of conf/exp.
        way: its name; the runs are in a folder of that name.
        settings: overrides.
        seeds: of the runs.
        folder: of all ways.
    """
    runs = folder / re.sub(r"\W+", "_", way)
    found: Numbers = {key: [] for key in METRICS}
    for seed in seeds:
        config = compose(f"+exp={experiment}", f"seed={seed}", f"paths.runs={runs}", *settings)
        metrics = execute(config).metrics or {}
        for key in METRICS:
            if metrics.get(key) is not None:
                found[key].append(float(metrics[key]))
    return {key: values for key, values in found.items() if values}


def with_other_threads(*arguments: Any) -> Numbers:
    """As :func:`numbers_of`, with one thread where several are used, and with two where one is."""
    import torch

    with threads_kept():
        torch.set_num_threads(1 if torch.get_num_threads() > 1 else 2)
        return numbers_of(*arguments)


def measure(experiment: str, seeds: Sequence[int], settings: Sequence[str], folder: Path) -> dict[str, Numbers]:
    """Train an experiment in every way; the first seed of two of them is trained once more."""
    common = [*SMALL, *settings]
    found: dict[str, Numbers] = {}
    overrides = {way: [*common, *own] for way, own in ways(on_gpu(check(compose(*common)))).items()}
    for way, own in overrides.items():
        found[way] = numbers_of(experiment, way, own, seeds, folder)
    found[AGAIN] = numbers_of(experiment, AGAIN, overrides[PLAIN], seeds[:1], folder)
    if FASTEST_ON_CPU in overrides and n_cores() > 1:
        found[THREADS] = with_other_threads(experiment, THREADS, overrides[FASTEST_ON_CPU], seeds[:1], folder)
    return found


def spread(values: Sequence[float]) -> float:
    """Return how far the seeds are apart."""
    return max(values) - min(values)


def tolerance(key: str, value: float) -> float:
    """Return by how much a number may differ where sums are taken in another order."""
    return TOLERANCES[key] * (abs(value) if key.startswith("loss/") else 1)


def is_as_near(key: str, plain: Sequence[float], fast: Sequence[float]) -> bool:
    """Return whether a fast way's mean is as near to the plain one's as one of its seeds is to another."""
    return abs(fmean(fast) - fmean(plain)) <= max(spread(plain), tolerance(key, fmean(plain)))


def cell(key: str, ways: dict[str, Numbers], way: str) -> str:
    """Say by how much a way differs from the one that it is held against."""
    if way not in REPEATS:
        plain, found = ways[PLAIN][key], ways[way][key]
        said, holds = f"{fmean(found) - fmean(plain):+.4f}", is_as_near(key, plain, found)
    else:
        once, again = ways[REPEATS[way]][key][0], ways[way][key][0]
        said = "same bits" if again == once else f"{again - once:+.4f}"
        holds = abs(again - once) <= tolerance(key, once)
    return said if holds else f"{said} (too far)"


def table(found: dict[str, dict[str, Numbers]]) -> str:
    """Lay all out in Markdown: what the seeds do, what the fast ways differ by, and what a repetition does."""
    some = next(iter(found.values()))
    others = [way for way in some if way != PLAIN]
    lines = [f"| `+exp=` | | {PLAIN}: mean, spread of seeds | {' | '.join(others)} |", "|---" * (3 + len(others)) + "|"]
    for experiment, numbers in found.items():
        for key, plain in numbers[PLAIN].items():
            cells = [f"{fmean(plain):.4f}, {spread(plain):.4f}", *(cell(key, numbers, way) for way in others)]
            lines.append(f"| `{experiment}` | {key} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


@command
def main(arguments: list[str] | None = None) -> int:
    """Measure from the command line; returns the exit code, 1 if a number is too far from where it should be."""
    parser = argparse.ArgumentParser(prog="python -m experiments fast_paths", description=purpose(__doc__))
    parser.add_argument("--exp", nargs="+", default=EXPERIMENTS, help=f"experiments (default {' '.join(EXPERIMENTS)})")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="at least two (default 0 1 2)")
    parser.add_argument("--output", type=Path, default=Path("runs/fast_paths"), help="folder for runs and results")
    parser.add_argument("settings", nargs="*", help="further settings, as for run.py: data.n_particles=3000")
    options = parser.parse_intermixed_args(arguments)
    if len(set(options.seeds)) < 2:
        parser.error("--seeds: at least two, their spread is the yardstick")
    wait_briefly_beside_others()
    hush_libraries()
    found = {name: measure(name, options.seeds, options.settings, options.output) for name in options.exp}
    about = machine() | {"seeds": options.seeds, "settings": [*SMALL, *options.settings]}
    text = f"{in_a_line(about)}\n\n{table(found)}"
    write_measured(options.output / "fast_paths", {**about, "found": found}, text)
    print(f"{text}\n{options.output.resolve()}")
    return int("too far" in text)


if __name__ == "__main__":
    sys.exit(main())
