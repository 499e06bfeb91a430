"""What several seeds of one experiment give: means, spreads, and how many did not converge.

    python run.py -m +exp=mnist_vae,mnist_vlt seed=0,1,2,3,4 data=mnist data.root=DIR
    python -m experiments seeds runs/mnist

Runs that differ in nothing but the seed are one group. A seed that failed is counted, and so are one that finished
without using z and one that got stuck: an average over what happened to work would hide how often it does not (paper,
appendix B.1.2).
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from experiments.configuration.error_messages import command
from experiments.configuration.overrides import overrides_of
from experiments.machine.terminal import purpose
from experiments.runs.folders import FAILED, FINISHED, RunFolder, find
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically

COLUMNS = (
    "loss/total", "loss/reconstruction", "loss/kl", "loss/kl_per_batch_of_128",
    "latents/knn_class_accuracy", "latents/knn_accuracy_0_1", "latents/knn_accuracy_4_6_8_9", "latents/knn_hinge_r2",
    "reconstructions/class_accuracy", "amortization/displacement_ratio", "amortization/neighbour_rank",
    "images_per_s",
)  # fmt: skip
# Nats per particle. Below, q(z|x) is all but the prior, and z says nothing: posterior collapse.
COLLAPSED_BELOW = 0.1
# A loss that is higher than the median of all finished seeds by this fraction has got stuck on the way.
STUCK_ABOVE = 0.1
# Overrides that name a place or the seed itself, and no other experiment.
NOT_APART = ("seed=", "data.root=")


@dataclass(frozen=True)
class Spread:
    """One number over the seeds that have it.

    Attributes:
        mean: of the seeds.
        median: of the seeds; one that got stuck does not move it.
        std: sample standard deviation; None of a single seed.
        least: smallest.
        most: largest.
    """

    mean: float
    median: float
    std: float | None
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize at least one value."""
        std = statistics.stdev(values) if len(values) > 1 else None
        return cls(statistics.fmean(values), statistics.median(values), std, min(values), max(values))

    def __str__(self) -> str:
        """Mean, standard deviation, median and range, as cells of a table."""
        std = "" if self.std is None else f" \u00b1 {self.std:.2g}"
        return f"{self.mean:.4g}{std} | {self.median:.4g} | {self.least:.4g} to {self.most:.4g}"


@dataclass(frozen=True)
class Seeds:
    """The runs of one experiment that differ in the seed alone.

    Attributes:
        experiment: the overrides that they share.
        finished: seeds with a result.
        failed: seeds that ended with an error, as a loss that is no longer a number.
        collapsed: finished seeds whose z says nothing.
        stuck: finished seeds whose loss is far above the others'.
        unfinished: seeds under way, or interrupted.
        spreads: by metric, over all finished seeds, whatever became of them.
    """

    experiment: str
    finished: list[int]
    failed: list[int]
    collapsed: list[int]
    stuck: list[int]
    unfinished: list[int]
    spreads: dict[str, Spread]


def collect(found: Iterable[RunFolder], metrics: Sequence[str] = COLUMNS) -> list[Seeds]:
    """Group runs that differ in the seed alone, and summarize each group.

    Args:
        found: runs in any state; damaged ones, which do not say what they are, are left out.
        metrics: keys of metrics.json.

    Returns:
        The groups, by name.
    """
    groups: dict[str, list[RunFolder]] = defaultdict(list)
    for run in found:
        if run.seed is not None and (name := _experiment(run)):
            groups[name].append(run)
    return [_summarize(name, runs, metrics) for name, runs in sorted(groups.items())]


def _experiment(run: RunFolder) -> str | None:
    try:
        return " ".join(text for text in overrides_of(run.config) if not text.startswith(NOT_APART))
    except InputError:
        return None


def _summarize(name: str, runs: list[RunFolder], metrics: Sequence[str]) -> Seeds:
    by_status: dict[str, list[int]] = defaultdict(list)
    for run in runs:
        by_status[run.status].append(int(run.seed or 0))
    done = [run for run in runs if run.status == FINISHED]
    collapsed = [int(run.seed or 0) for run in done if (run.number("loss/kl") or COLLAPSED_BELOW) < COLLAPSED_BELOW]
    values = {key: [value for run in done if (value := run.number(key)) is not None] for key in metrics}
    rest = [seed for status, seeds in by_status.items() if status not in (FINISHED, FAILED) for seed in seeds]
    spreads = {key: Spread.of(found) for key, found in values.items() if found}
    losses = {int(run.seed or 0): loss for run in done if (loss := run.number("loss/total")) is not None}
    limit = (1 + STUCK_ABOVE) * statistics.median(losses.values()) if losses else 0.0
    stuck = sorted(seed for seed, loss in losses.items() if loss > limit)
    finished, failed = sorted(by_status[FINISHED]), sorted(by_status[FAILED])
    return Seeds(name, finished, failed, sorted(collapsed), stuck, sorted(rest), spreads)


def table(groups: Sequence[Seeds]) -> str:
    """Lay the groups out in Markdown: a row for each number of each experiment."""
    lines = []
    for group in groups:
        kinds = ("finished", "failed", "collapsed", "stuck", "unfinished")
        counts = {kind: len(getattr(group, kind)) for kind in kinds}
        said = ", ".join(f"{n} {kind}" for kind, n in counts.items() if n or kind != "unfinished")
        header = ["| | mean \u00b1 standard deviation | median | range |", "|---|---|---|---|"]
        lines += [f"`{group.experiment}`: {said}", "", *header]
        lines += [f"| {key} | {spread} |" for key, spread in group.spreads.items()] + [""]
    return "\n".join(lines)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and write seeds.json; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments seeds", description=purpose(__doc__))
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)")
    parser.add_argument("--metrics", nargs="+", default=COLUMNS, help="keys of metrics.json")
    parser.add_argument("-o", "--output", type=Path, help="default: seeds.json in the first folder")
    options = parser.parse_intermixed_args(arguments)
    groups = collect(find(options.runs), options.metrics)
    text = json.dumps([asdict(group) for group in groups], indent=2) + "\n"
    path = write_atomically(
        options.output or options.runs[0] / "seeds.json", lambda path: path.write_text(text, encoding="utf-8")
    )
    print(f"{table(groups)}\n{path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
