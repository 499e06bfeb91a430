"""How much can an encoder memorize? Runs with permuted twins in one figure: ``python -m experiments capacity runs``.

A twin says nothing about its particle: what the encoder knows of it, it has memorized. The more particles there are to
an encoder of a size, the less it can; the paper has 131,899, and sees clusters with the large encoder alone (section
3.3). ``python run.py -m +sweep=capacity`` makes runs for it; any others in the folder are taken, too.
"""

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from experiments.configuration.error_messages import command
from experiments.figures.capacity import capacity
from experiments.runs.folders import FINISHED, RunFolder, find
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically

ACCURACY, CHANCE = "latents/knn_class_accuracy", "latents/knn_class_chance"
# Where two runs must be alike for the one to be the other's baseline, beside their data.
ALIKE = ("seed", "zdim", "batch_size", "lr", "decoder")


class Memorized(NamedTuple):
    """One run with permuted twins. What is not known is None.

    Attributes:
        n_particles: N.
        encoder_weights: trainable numbers of the encoder.
        layers: of the encoder.
        width: of the encoder.
        seed: of the run.
        class_accuracy: of its latents.
        class_chance: the largest class.
        class_accuracy_baseline: of the baseline on the same particles.
        neighbourhood_overlap: with that baseline.
        overlap_chance: of unrelated latents.
        folder: of the run.
    """

    n_particles: int
    encoder_weights: int
    layers: int
    width: int
    seed: int
    class_accuracy: float | None
    class_chance: float | None
    class_accuracy_baseline: float | None
    neighbourhood_overlap: float | None
    overlap_chance: float | None
    folder: str


def collect(roots: Sequence[Path]) -> list[Memorized]:
    """Measure all finished runs with permuted twins below some folders.

    Each is compared with the baseline of the same particles, seed and settings: that with the same encoder, else the
    one with the widest.

    Raises:
        InputError: there is none.
    """
    trained = [run for run in find(roots) if run.status == FINISHED and _has_encoder(run)]
    twins = [run for run in trained if _sees(run, "PermutedTwin")]
    if not twins:
        names = ", ".join(map(str, roots))
        raise InputError(
            f"{names}: no finished run with permuted twins in it; `python run.py -m +sweep=capacity` makes some"
        )
    baselines = [run for run in trained if _sees(run, "IdentityInput")]
    measured = [_measure(run, _baseline_of(run, baselines)) for run in twins]
    return sorted(measured, key=lambda one: (one.n_particles, one.encoder_weights, one.seed))


def _has_encoder(run: RunFolder) -> bool:
    task = str(run.config["task"]["_target_"])
    return task.endswith(".Train") and "width" in run.config["latents"]


def _sees(run: RunFolder, kind: str) -> bool:
    return str(run.config["encoder_input"]["_target_"]).endswith(f".{kind}")


def _baseline_of(run: RunFolder, baselines: Sequence[RunFolder]) -> RunFolder | None:
    alike = [other for other in baselines if _setting(other) == _setting(run)]
    if not alike:
        return None
    same = [other for other in alike if other.config["latents"] == run.config["latents"]]
    return (same or sorted(alike, key=lambda other: other.config["latents"]["width"]))[-1]


def _setting(run: RunFolder) -> Any:
    elsewhere = ("cache_dir", "residency", "cache_images")
    data = {key: value for key, value in run.config["data"].items() if key not in elsewhere}
    return data, run.config["trainer"]["max_epochs"], [run.config[key] for key in ALIKE]


def _measure(run: RunFolder, baseline: RunFolder | None) -> Memorized:
    from experiments.claims.similarity import same_latents
    from experiments.metrics.agreement import neighbourhood_overlap
    from experiments.runs.stored_results import read_latents

    n_particles = len(read_latents(run.folder).mu)
    overlap = chance = None
    if baseline is not None:
        k = max(1, min(50, n_particles // 3))
        overlap = neighbourhood_overlap(*same_latents(Run.load(run.folder), Run.load(baseline.folder)), k=k)
        chance = k / (n_particles - 1)
    return Memorized(
        n_particles,
        encoder_weights(run.folder),
        run.config["latents"]["layers"],
        run.config["latents"]["width"],
        run.config["seed"],
        run.number(ACCURACY),
        run.number(CHANCE),
        None if baseline is None else baseline.number(ACCURACY),
        overlap,
        chance,
        str(run.folder),
    )


def encoder_weights(folder: Path) -> int:
    """Count the trainable numbers of a run's encoder.

    Raises:
        InputError: the weights cannot be read.
    """
    from experiments.runs.stored_results import read_tensors

    path = Run.load(folder).checkpoint
    try:
        state = read_tensors(path, "state_dict", mmap=True)
    except Exception as error:
        raise InputError(f"{path}: the weights cannot be read ({' '.join(str(error).split())[:200]})") from None
    return sum(value.numel() for name, value in state.items() if name.startswith("latents."))


def write(folder: Path, measured: Sequence[Memorized]) -> list[Path]:
    """Write capacity.csv and capacity.png, with a PDF beside it; returns the first two."""

    def table(path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Memorized._fields)
            writer.writerows(measured)

    columns = write_atomically(folder / "capacity.csv", table)
    return [columns, capacity([one._asdict() for one in measured], folder / "capacity.png")]


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments capacity", description="How much can an encoder memorize? One figure of many runs."
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders with runs, such as runs")
    parser.add_argument("--out", type=Path, help="where capacity.png and capacity.csv go; default: the first folder")
    options = parser.parse_args(arguments)
    measured = collect(options.runs)
    written = write(options.out or options.runs[0], measured)
    for one in measured:
        print(
            f"{one.n_particles:7d} particles, encoder {one.layers} x {one.width}, seed {one.seed}: class accuracy "
            f"{_text(one.class_accuracy)} (baseline {_text(one.class_accuracy_baseline)}), neighbours in common "
            f"{_text(one.neighbourhood_overlap)} (chance {_text(one.overlap_chance)})"
        )
    print(*written, sep="\n")
    return 0


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


if __name__ == "__main__":
    sys.exit(main())
