"""What happens at the end of an epoch: the log, the checkpoint, the progress line."""

import csv
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from tqdm import tqdm

from experiments.runs import Run, write_atomically

LOSSES = ("loss/total", "loss/reconstruction", "loss/kl")


class EpochLog(Callback):
    """One row per epoch, in log.csv and in the checkpoint, so that a resumed run has all of them.

    Attributes:
        rows: epoch (from 1), the losses' epoch means, seconds, images per second.
    """

    def __init__(self, path: Path, n_particles: int) -> None:
        """Set where to write."""
        self.path, self.n_particles = path, n_particles
        self.rows: list[dict[str, Any]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a row."""
        seconds = time.perf_counter() - self.started
        losses = {name: float(trainer.callback_metrics[name]) for name in LOSSES}
        speed = {"time/epoch_s": seconds, "images_per_s": self.n_particles / seconds}
        self.rows.append({"epoch": trainer.current_epoch + 1, **losses, **speed})
        for tracker in trainer.loggers:  # it has the losses already
            tracker.log_metrics(speed)
        write_atomically(self.path, self._write)

    def _write(self, path: Path) -> None:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Keep the rows in the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them from there."""
        self.rows = list(state_dict["rows"])

    @property
    def metrics(self) -> dict[str, float]:
        """The last epoch's losses, and the time of all epochs."""
        seconds = [row["time/epoch_s"] for row in self.rows]
        return {
            **{name: self.rows[-1][name] for name in LOSSES},
            "time/epoch_s": sum(seconds) / len(seconds),
            "time/total_s": sum(seconds),
            "images_per_s": self.n_particles * len(seconds) / sum(seconds),
        }


class LastCheckpoint(Callback):
    """Everything that an interrupted run needs, in one file that is never half-written.

    It is written at the end of an epoch when the last one is old enough, and after the last epoch.
    """

    def __init__(self, run: Run) -> None:
        """Set where to write."""
        self.run = run
        self.written = time.monotonic()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write, unless the last one is young."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if is_last or time.monotonic() - self.written >= self.run.config.trainer.checkpoint_every_s:
            write_atomically(self.run.checkpoint, trainer.save_checkpoint)
            self.written = time.monotonic()


class ProgressLine(Callback):
    """One line for the whole run: images, epoch, loss."""

    def __init__(self, name: str, n_particles: int) -> None:
        """Set what is shown."""
        self.name, self.n_particles = name, n_particles

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the line, where a resumed run left off."""
        self.bar = tqdm(
            total=self.n_particles * (trainer.max_epochs or 0),
            initial=self.n_particles * trainer.current_epoch,
            desc=self.name,
            unit="image",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5,
        )

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Advance by a block."""
        block = args[2]
        self.bar.update(sum(map(len, block.batches)))

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
