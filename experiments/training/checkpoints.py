"""Everything that an interrupted run needs to continue exactly, in a file that is never half-written."""

import logging
import os
import time
import zipfile
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from experiments.machine import signals
from experiments.runs.run import Run
from lightning_modules.files.atomic import link_atomically, write_atomically
from lightning_modules.optimization.data_parallel import SingleProcess
from lightning_modules.optimization.minibatches import ParticleBlocks

logger = logging.getLogger(__name__)


def newest_whole(run: Run) -> Path | None:
    """Return the checkpoint to continue from; None where there is none.

    The last one is damaged where a disk or a network file system lost a part of it. Then the one before it does:
    the numbers come out the same, only later. A damaged file is removed.
    """
    for path in (run.checkpoint, before(run.checkpoint)):
        if path.exists():
            if _is_whole(path):
                return path
            logger.warning("%s is damaged; going back to the one before it, or to the start", path)
            path.unlink()
    return None


def before(checkpoint: Path) -> Path:
    """Return where the checkpoint before the last one is kept."""
    return checkpoint.with_name("previous" + checkpoint.suffix)


def _is_whole(path: Path) -> bool:
    """Compare the file with its checksums; torch does not when it reads one."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile, NotImplementedError, EOFError):
        return False


class LastCheckpoint(Callback):
    """Writes checkpoints: every so many seconds, after the last epoch, and when the run is told to stop.

    After any minibatch the state is one to continue from. Only the end of an epoch is left to its own hook,
    because the epoch's row in the log belongs to it.
    """

    def __init__(self, run: Run, team: SingleProcess) -> None:
        """Set where to write, and who knows whether to stop."""
        self.run, self.team = run, team
        self.every_s = run.config.trainer.checkpoint_every_s
        self.written = time.monotonic()

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the signals back from Lightning."""
        self.trainer, self.data = trainer, trainer.datamodule  # type: ignore[attr-defined]
        signals.take_signals()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there is something to save."""
        signals.postpone()

    def after_minibatch(self) -> None:
        """Write if it is time to, and leave if asked to."""
        if (self.team.stops or self._is_time()) and not self.data.blocks.is_over:
            self._write()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write if it is time to, and after the last epoch."""
        is_last = trainer.current_epoch + 1 == trainer.max_epochs
        if is_last or self.team.stops or self._is_time():
            self._write()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """From here on there is nothing to save."""
        before(self.run.checkpoint).unlink(missing_ok=True)
        signals.answer()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Tell Lightning that the epoch has not begun: it enters it anew, and is handed what is left of it.

        Its own way of continuing within an epoch counts blocks, and knows no position inside one.
        """
        epoch = checkpoint[ParticleBlocks.__qualname__]["epoch"]
        counters = dict.fromkeys(("ready", "started", "processed", "completed"), epoch)
        checkpoint["loops"]["fit_loop"]["epoch_progress"] = {"total": counters, "current": dict(counters)}

    def _is_time(self) -> bool:
        return time.monotonic() - self.written >= self.every_s

    def _write(self) -> None:
        """Write, keep the one before, and leave if asked to."""

        def write(path: Path) -> None:
            self.trainer.save_checkpoint(path)
            with path.open("rb") as file:
                os.fsync(file.fileno())  # whole on the disk before it has its name
            if self.run.checkpoint.exists():
                link_atomically(self.run.checkpoint, before(self.run.checkpoint))

        write_atomically(self.run.checkpoint, write)
        self.written = time.monotonic()
        if self.team.stops:
            signals.leave()
