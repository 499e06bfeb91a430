"""What a user waits for beside the epochs: start-up, loading, encoding, UMAP, volumes, report.

Start-up and memory are those of processes of their own, started as a user starts them. What is computed there is in
the cache already, and the files are in the system's.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from experiments.benchmarks.measuring import Watched, peak_bytes, watch
from experiments.configuration.compose import REPOSITORY, compose
from experiments.configuration.validation import check
from experiments.runs.run import Run
from experiments.training.callbacks import EpochLog
from lightning_modules.errors import InputError

N_VOLUMES = 3
FIRST = "first_step_s"
# One epoch, then nothing: what a finished run does not need to have.
TRAIN_ONLY = "task=train_only"
NAMES = {
    FIRST: "start-up until the first step, s",
    "loading_s": "loading and preprocessing, s",
    "encoding_s": "encoding of all particles, s",
    "umap_s": "UMAP, s",
    "volume_s": "decoding a volume, s",
    "run_s": "a whole run of one epoch, s",
    "report_s": "its report, s",
}


@dataclass
class Stages:
    """What was measured on one particle set.

    Attributes:
        box_px: D.
        n_particles: N.
        measured: by the keys of :data:`NAMES`; None: not known here.
    """

    box_px: int
    n_particles: int
    measured: dict[str, float | None] = field(default_factory=dict)


class Clock(EpochLog):
    """Notes when the first step begins."""

    first_step: float | None = None

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, _: int) -> None:
        """Note it once."""
        self.first_step = self.first_step or time.time()


class TrainOnly:
    """A task that trains, and says when it began to and how much memory it took."""

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Train a run's model; return seconds since 1970 of the first step, and peaks."""
        import torch

        from experiments.machine.devices import best_device
        from experiments.runs.building import untrained_model
        from experiments.training.fit import fit

        model = untrained_model(run, source)
        clock = Clock(run.folder / "log.csv", len(model.particles))
        fit(run, model, clock)
        device = best_device(run.config.trainer.accelerator, run.config.trainer.devices)
        peak, on_gpu = peak_bytes(), None if device == "cpu" else torch.cuda.max_memory_allocated(device)
        return {
            "first_step": clock.first_step,
            "peak_mb": None if peak is None else peak / 1e6,
            "peak_gpu_mb": None if on_gpu is None else on_gpu / 1e6,
        }


def measure_stages(box_px: int, n_particles: int, settings: Sequence[str]) -> Stages:
    """Time the stages on one simulated particle set.

    Args:
        box_px: D.
        n_particles: N.
        settings: overrides that say all of it, sizes too.

    Returns:
        What was measured.

    Raises:
        InputError: a process failed.
    """
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        found = whole([*settings, "trainer.max_epochs=1", f"paths.runs={folder}"], Path(folder))
    return Stages(box_px, n_particles, found | within(settings))


def started(settings: Sequence[str]) -> dict[str, float | None]:
    """Start a training as a user does.

    Args:
        settings: overrides; with an empty ``paths.runs``.

    Returns:
        first_step_s, seconds until the first step; peak_mb and peak_gpu_mb, of the training; None: not known here.
    """
    only_training, begun = [TRAIN_ONLY, "name=train_only", *settings], time.time()
    _checked(watch([sys.executable, REPOSITORY / "run.py", *only_training]))
    told = Run.of(compose(*only_training)).metrics
    assert told is not None
    return {FIRST: told.pop("first_step") - begun, **told}


def whole(settings: Sequence[str], folder: Path) -> dict[str, float | None]:
    """Carry a run out to its end, and make the report of it."""
    run = _checked(watch([sys.executable, REPOSITORY / "run.py", "name=whole", *settings]))
    page = folder / "report.html"
    report = _checked(
        watch([sys.executable, "-m", "experiments", "report", folder / "simulated" / "whole", "-o", page])
    )
    return {"run_s": run.seconds, "report_s": report.seconds}


def within(settings: Sequence[str]) -> dict[str, float | None]:
    """Time what is done with a model, in this process; its weights do not matter to that."""
    from experiments.figures.latent_maps import LatentMap
    from experiments.machine.devices import best_device
    from experiments.runs.building import model_of, particles_of
    from experiments.volumes.decoder import VolumeDecoder

    config = check(compose(*settings))
    particles, loading_s = timed(lambda: particles_of(config))
    model = model_of(config, particles).to(best_device(config.trainer.accelerator, config.trainer.devices))
    model.prepare()
    latents, encoding_s = timed(model.encode)
    mu = latents.mu.numpy()
    LatentMap(mu[:32], config.seed)  # UMAP compiles itself once per process
    _, umap_s = timed(lambda: LatentMap(mu, config.seed))
    decoder = VolumeDecoder.of(model)
    _, volumes_s = timed(lambda: list(decoder.decode(mu[:N_VOLUMES])))
    per_volume_s = volumes_s / min(N_VOLUMES, len(mu))
    return {"loading_s": loading_s, "encoding_s": encoding_s, "umap_s": umap_s, "volume_s": per_volume_s}


def timed(work: Callable[[], Any], times: int = 2) -> tuple[Any, float]:
    """Do something some times; its last result, and the seconds of the fastest time."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def _checked(done: Watched) -> Watched:
    if done.code:
        raise InputError(f"a process that was to be timed failed; it ended: {' '.join(done.text.split())[-500:]}")
    return done


def stages_table(stages: Sequence[Stages]) -> str:
    """Lay the stages out in Markdown: a column for each particle set."""
    lines = [
        "| suite | " + " | ".join(f"D = {each.box_px}, N = {each.n_particles:,}" for each in stages) + " |",
        "|---" * (1 + len(stages)) + "|",
    ]
    for key, name in NAMES.items():
        values = [each.measured.get(key) for each in stages]
        if any(value is not None for value in values):
            cells = ("" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}" for value in values)
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
