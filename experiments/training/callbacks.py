"""What is told while a model trains: the log, the progress line."""

import csv
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from lightning_modules.files.atomic import write_atomically
from lightning_modules.optimization.minibatches import ParticleBlocks

LOSSES = ("loss/total", "loss/reconstruction", "loss/kl")


class EpochLog(Callback):
    """One row per epoch, in log.csv and in the checkpoint, so that a resumed run has all of them.

    Attributes:
        rows: epoch (from 1), the losses' epoch means, seconds, images per second. Seconds are those of the work that
            is in the result: what an interruption lost and had done again counts once.
    """

    def __init__(self, path: Path, n_particles: int) -> None:
        """Set where to write."""
        self.path, self.n_particles = path, n_particles
        self.rows: list[dict[str, Any]] = []
        self.seconds_before = 0.0  # of the epoch, before an interruption
        self.started: float | None = None

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        seconds, self.seconds_before, self.started = self._epoch_s(), 0.0, None
        losses = {name: float(trainer.callback_metrics[name]) for name in LOSSES}
        speed = {"time/epoch_s": seconds, "images_per_s": self.n_particles / seconds}
        epoch = trainer.current_epoch + 1
        self.rows.append({"epoch": epoch, **losses, **speed})
        for tracker in trainer.loggers:  # Lightning adds the losses to the row of this epoch
            tracker.log_metrics({"epoch": epoch, **speed})
        write_atomically(self.path, self._write)

    def _write(self, path: Path) -> None:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows, and the seconds of an unfinished epoch, in the checkpoint."""
        return {"rows": self.rows, "seconds_before": self._epoch_s()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from there."""
        self.rows, self.seconds_before = list(state_dict["rows"]), state_dict["seconds_before"]

    def _epoch_s(self) -> float:
        return self.seconds_before + (0.0 if self.started is None else time.perf_counter() - self.started)

    @property
    def metrics(self) -> dict[str, float]:
        """What the rows say about the whole run."""
        return metrics_of(self.rows, self.n_particles)


def metrics_of(rows: Sequence[Mapping[str, float]], n_particles: int) -> dict[str, float]:
    """Return the last epoch's losses, and the time of all epochs.

    Args:
        rows: of every epoch, as :class:`EpochLog` has them.
        n_particles: that were trained on.
    """
    seconds = [row["time/epoch_s"] for row in rows]
    return {
        **{name: rows[-1][name] for name in LOSSES},
        "time/epoch_s": sum(seconds) / len(seconds),
        "time/total_s": sum(seconds),
        "images_per_s": n_particles * len(seconds) / sum(seconds),
    }


class ProgressLine(Callback):
    """One line for the whole run: images, epoch, loss."""

    def __init__(self, name: str, n_particles: int) -> None:
        """Set what is shown."""
        self.name, self.n_particles = name, n_particles

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the line, where a resumed run left off."""
        self.data: ParticleBlocks = trainer.datamodule  # type: ignore[attr-defined]
        self.bar = tqdm(
            total=self.n_particles * (trainer.max_epochs or 0),
            initial=self._n_seen(),
            desc=self.name,
            unit="image",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def after_minibatch(self) -> None:
        """Advance."""
        self.bar.update(self._n_seen() - self.bar.n)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the epoch's losses."""
        total, _, kl = (float(trainer.callback_metrics[name]) for name in LOSSES)
        self.bar.set_postfix_str(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs} loss {total:.4f} KL {kl:.2f}")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the line."""
        self.bar.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _n_seen(self) -> int:
        so_far = self.data.blocks.so_far
        return self.n_particles * so_far.epoch + so_far.n_seen
