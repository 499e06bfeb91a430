"""The suite beside ``cryodrgn train_vae``: same files, same settings, taking turns.

Each side trains as its users would have it: cryoDRGN by its command, the suite by its Lightning trainer. Speed is
that of the fastest epoch but the first, so that a busy moment of the machine does not count.
"""

import argparse
import re
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from experiments.benchmarks.measuring import (
    FLOAT32,
    PRECISIONS,
    hush_libraries,
    in_a_line,
    load_average,
    machine,
    matmul_peak_gflops,
    on_gpu,
    precision_of,
    watch,
    ways,
    write_measured,
)
from experiments.benchmarks.stages import FIRST, Stages, measure_stages, stages_table, started
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import command
from experiments.configuration.validation import check
from experiments.machine.devices import best_device
from experiments.machine.hardware import wait_briefly_beside_others
from experiments.machine.terminal import purpose
from experiments.runs.run import Run
from lightning_modules.errors import InputError

REFERENCE = "cryodrgn"
# Particles and epochs per box side: minutes in all on two cores, and enough steps for the losses to be compared.
SIZES = {32: (2000, 5), 64: (400, 4), 128: (96, 3)}
EPOCH = re.compile(
    r"=> Epoch: \d+ Average gen loss = (?P<reconstruction>\S+), KLD = (?P<kl>\S+), total loss = (?P<total>\S+); "
    r"Finished in (?P<h>\d+):(?P<m>\d+):(?P<s>[\d.]+)"
)


@dataclass
class Side:
    """What one side did on one particle set, over all rounds.

    Attributes:
        losses: total loss of each epoch, of the first round.
        seconds: of each epoch but the first, of all rounds.
        peak_mb: the most memory that a process of it took; None: not known.
        peak_gpu_mb: the same of the GPU, of the suite's alone.
        first_step_s: from the start of the suite's process until its first step.
    """

    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    peak_mb: float | None = None
    peak_gpu_mb: float | None = None
    first_step_s: float | None = None

    def add(self, losses: list[float], seconds: list[float], peak_bytes: int | None = None) -> None:
        """Add a round."""
        self.losses = self.losses or losses
        self.seconds += seconds[1:]
        self.peak_mb = self.peak_mb if peak_bytes is None else peak_bytes / 1e6


@dataclass
class Comparison:
    """Both sides on one particle set.

    Attributes:
        box_px: D.
        n_particles: N.
        sides: by name: "cryodrgn", and the suite's ways.
        gflop_per_image: matrix products of a training step, in 10^9 operations, as the suite does them.
    """

    box_px: int
    n_particles: int
    sides: dict[str, Side]
    gflop_per_image: float

    def images_per_s(self, side: str) -> float:
        """Return the speed of the fastest epoch."""
        return self.n_particles / min(self.sides[side].seconds)

    def ratio(self, side: str) -> float:
        """Return the speed over cryoDRGN's."""
        return self.images_per_s(side) / self.images_per_s(REFERENCE)

    def loss_difference(self, side: str) -> float:
        """Return the final epoch's loss over cryoDRGN's, minus 1."""
        return self.sides[side].losses[-1] / self.sides[REFERENCE].losses[-1] - 1


def train_cryodrgn(config: DictConfig, epochs: int, folder: Path) -> tuple[list[float], list[float], int | None]:
    """Train by cryoDRGN's command with a configuration's settings.

    Args:
        config: checked.
        epochs: to train.
        folder: for what it writes.

    Returns:
        Loss and seconds of each epoch, from its log; the most memory that it took, in bytes.

    Raises:
        InputError: it failed, or its log is not as expected.
    """
    from experiments.runs.building import particles_of

    files = particles_of(config).files
    command = [Path(sys.executable).with_name("cryodrgn"), "train_vae", files.particles, "--poses", files.poses]
    command += ["--ctf", files.ctf] if files.ctf else []
    command += [] if files.invert else ["--uninvert-data"]
    command += ["-o", folder, "--zdim", config.zdim, "-n", epochs, "-b", config.batch_size, "--lr", config.lr]
    command += ["--enc-layers", config.encoder.layers, "--enc-dim", config.encoder.width]
    command += ["--dec-layers", config.decoder.layers, "--dec-dim", config.decoder.width]
    command += ["--pe-type", config.decoder.pe_type, "--seed", config.seed, "--no-analysis"]
    command += [] if on_gpu(config) else ["--no-amp"]
    done = watch(command)
    rows = read_cryodrgn_log(done.text)
    if done.code or len(rows) != epochs:
        raise InputError(f"`cryodrgn train_vae` failed; its log ends: {' '.join(done.text.split())[-500:]}")
    return [row[0] for row in rows], [row[1] for row in rows], done.peak_bytes


def read_cryodrgn_log(text: str) -> list[tuple[float, float]]:
    """Return total loss and seconds of each epoch in cryoDRGN's log."""
    return [
        (float(row["total"]), 3600 * int(row["h"]) + 60 * int(row["m"]) + float(row["s"]))
        for row in EPOCH.finditer(text)
    ]


def train_suite(config: DictConfig, folder: Path) -> tuple[list[float], list[float]]:
    """Train by the suite's trainer; loss and seconds of each epoch."""
    from experiments.runs.building import model_of, particles_of
    from experiments.training.callbacks import EpochLog
    from experiments.training.fit import fit

    particles = particles_of(config)
    epochs = EpochLog(folder / "log.csv", len(particles))
    fit(Run(config, folder), model_of(config, particles), epochs)
    return [row["loss/total"] for row in epochs.rows], [row["time/epoch_s"] for row in epochs.rows]


def gflop_per_image(config: DictConfig) -> float:
    """Count the multiplications and additions of a step's matrix products per image, in 10^9.

    Forward, gradient of the weights, gradient of the input; neither images nor coordinates need the last.
    """
    from lightning_modules.image_formation import ImageFormation

    n_pixels = ImageFormation(config.data.box_px).n_pixels
    encoding = 6 * (config.decoder.pe_dim or config.data.box_px // 2)
    encoder, decoder = config.encoder, config.decoder
    decoded = 4 * encoding * decoder.width + 6 * decoder.width * (decoder.layers * decoder.width + 2)
    encoded = 4 * n_pixels * encoder.width + 6 * encoder.width * (encoder.layers * encoder.width + 2 * config.zdim)
    return float(decoded * n_pixels / 2 + encoded) / 1e9


def settings_of(box_px: int, n_particles: int, settings: list[str]) -> list[str]:
    """Return what all trainings on one particle set have in common."""
    size = [f"data.box_px={box_px}", f"data.n_particles={n_particles}"]
    return [*size, "trainer.enable_progress_bar=false", "lr=1e-4", *settings]  # the paper's learning rate


def compare(box_px: int, n_particles: int, epochs: int, rounds: int, settings: list[str]) -> Comparison:
    """Let both sides take turns on one simulated particle set.

    Args:
        box_px: D.
        n_particles: N.
        epochs: of each training.
        rounds: trainings of each side.
        settings: further overrides of the configuration.

    Returns:
        What was measured.
    """
    from experiments.runs.building import particles_of

    fixed = settings_of(box_px, n_particles, settings)
    reference = check(compose(*fixed, f"trainer.max_epochs={epochs}", "precision=float32"))
    found = ways(on_gpu(reference))
    configs = {name: check(compose(*fixed, f"trainer.max_epochs={epochs}", *way)) for name, way in found.items()}
    particles_of(reference)  # made before the clocks run
    sides = {name: Side() for name in (REFERENCE, *found)}
    for _ in tqdm(range(rounds), desc=f"D = {box_px}", unit="round"):
        for name, side in sides.items():
            folder = Path(tempfile.mkdtemp(prefix="benchmark-"))
            try:
                suite = name != REFERENCE
                side.add(*(train_suite(configs[name], folder) if suite else train_cryodrgn(reference, epochs, folder)))
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    for name, way in found.items():
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder_name:
            alone = [*fixed, "trainer.max_epochs=1", *way, f"paths.runs={folder_name}"]
            start, side = started(alone), sides[name]
            side.peak_mb, side.peak_gpu_mb, side.first_step_s = (start[k] for k in ("peak_mb", "peak_gpu_mb", FIRST))
    return Comparison(box_px, n_particles, sides, gflop_per_image(reference))


def table(comparisons: list[Comparison], peaks: dict[str, float]) -> str:
    """Lay the comparisons out in Markdown: speeds, then losses epoch by epoch."""
    lines = [
        "| D | trained by | images/s | ratio | share of peak product | peak memory, MB | final loss | difference |",
        "|---|---|---|---|---|---|---|---|",
    ]
    curves = ["| D | trained by | total loss, epoch by epoch |", "|---|---|---|"]
    for found in comparisons:
        for name, side in found.sides.items():
            speed = found.images_per_s(name)
            ours = name != REFERENCE
            share = f"{speed * found.gflop_per_image / peaks[precision_of(name)]:.0%}" if ours else ""
            difference = f"{found.loss_difference(name):+.2%}" if ours else ""
            label = f"suite, {name}" if ours else "cryodrgn train_vae"
            peak = "" if side.peak_mb is None else f"{side.peak_mb:.0f}"
            lines.append(
                f"| {found.box_px} | {label} | {speed:.1f} | {found.ratio(name):.2f} | {share} "
                f"| {peak} | {side.losses[-1]:.4f} | {difference} |"
            )
            curves.append(f"| {found.box_px} | {label} | {', '.join(f'{loss:.4f}' for loss in side.losses)} |")
    return "\n".join([*lines, "", *curves]) + "\n"


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark from the command line; returns the exit code."""
    sizes = ", ".join(f"D={d}: {n} particles, {epochs} epochs" for d, (n, epochs) in SIZES.items())
    parser = argparse.ArgumentParser(prog="python -m experiments benchmark", description=purpose(__doc__))
    parser.add_argument("--box-px", type=int, nargs="+", default=list(SIZES), help=f"D, in px ({sizes})")
    parser.add_argument("--n-particles", type=int, help="N, instead of the above")
    parser.add_argument("--epochs", type=int, help="at least 2: the first is not timed")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each side (default 2)")
    parser.add_argument(
        "--no-stages", action="store_true", help="time the epochs alone, not what a run does around them"
    )
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder for benchmark.json and .md")
    parser.add_argument("settings", nargs="*", help="further settings, as for run.py: batch_size=8 decoder.width=256")
    options = parser.parse_intermixed_args(arguments)
    if options.epochs is not None and options.epochs < 2:
        parser.error("--epochs: at least 2, the first is not timed")
    wait_briefly_beside_others()
    hush_libraries()
    text = measure(options)
    print(f"{text}\n{options.output.resolve()}")
    return 0


def measure(options: argparse.Namespace) -> str:
    """Compare at every size; after each, write benchmark.json and benchmark.md. Returns the latter's text."""
    load = load_average()
    trainer = check(compose(*options.settings)).trainer
    device = best_device(trainer.accelerator, trainer.devices)
    peaks = {precision: matmul_peak_gflops(precision, device) for precision in PRECISIONS}
    about, text = machine() | {"load_before": load}, ""
    comparisons: list[Comparison] = []
    stages: list[Stages] = []
    for box_px in options.box_px:
        n_particles, epochs = SIZES.get(box_px, SIZES[128])
        n_particles = options.n_particles or n_particles
        comparisons.append(
            compare(box_px, n_particles, options.epochs or epochs, options.rounds, list(options.settings))
        )
        text = write(options.output, about, peaks, comparisons, stages)
        if not options.no_stages:
            common = settings_of(box_px, n_particles, list(options.settings))
            stages.append(measure_stages(box_px, n_particles, common))
            stages[-1].measured[FIRST] = comparisons[-1].sides[FLOAT32].first_step_s
            text = write(options.output, about, peaks, comparisons, stages)
    return text


def write(
    folder: Path, about: dict[str, Any], peaks: dict[str, float], comparisons: list[Comparison], stages: list[Stages]
) -> str:
    """Write what is measured so far; return it as Markdown."""
    found = {**about, "matmul_peak_gflops": peaks}
    found |= {"comparisons": [asdict(part) for part in comparisons], "stages": [asdict(part) for part in stages]}
    text = "\n".join(
        [
            in_a_line(about),
            "matrix-product peak: " + ", ".join(f"{p} {gflops:.0f} GFLOP/s" for p, gflops in peaks.items()),
            "Other processes were running: the speeds are not to be trusted.\n" if about["load_before"] > 0.5 else "",
            table(comparisons, peaks),
            stages_table(stages) if stages else "",
        ]
    )
    write_measured(folder / "benchmark", found, text)
    return text


if __name__ == "__main__":
    sys.exit(main())
