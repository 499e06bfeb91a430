"""Training a run's model: from its last checkpoint, on one device or several, until it is done or told to stop."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import pytorch_lightning as pl
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger

from experiments.machine.signals import Interrupted
from experiments.runs.building import untrained_model
from experiments.runs.run import Run
from experiments.training.callbacks import EpochLog, ProgressLine
from experiments.training.checkpoints import LastCheckpoint, newest_whole
from experiments.training.processes import Place, places_of, team_of, without_hints
from lightning_modules.optimization.data_parallel import DataParallel, SingleProcess
from lightning_modules.optimization.minibatches import ParticleBlocks
from lightning_modules.vae.vae import VAE

logger = logging.getLogger(__name__)


class AfterMinibatch(Protocol):
    """What is called between two minibatches."""

    def after_minibatch(self) -> None:
        """Do what is to be done then; may raise Interrupted."""


class LeaveTogether:
    """In all processes but the first: stop when it does."""

    def __init__(self, team: DataParallel) -> None:
        """Set who knows."""
        self.team = team

    def after_minibatch(self) -> None:
        """Leave if all do."""
        if self.team.stops:
            raise Interrupted("the first process")


def fit(run: Run, model: VAE, epochs: EpochLog, tracker: Logger | None = None, source: Run | None = None) -> None:
    """Train a model on its particles, from the run's last checkpoint if there is one, on one device or several.

    Args:
        run: trainer settings, and where checkpoints go.
        model: its weights are changed.
        epochs: collects a row per epoch.
        tracker: a Lightning logger, or None.
        source: the run that this one starts from.
    """
    progress = [ProgressLine(run.config.name, len(model.particles))] if run.config.trainer.enable_progress_bar else []
    places, resumed = places_of(run.config), newest_whole(run)
    if resumed:
        logger.info("continuing from %s", resumed)
    with team_of(places, _train_along, run, source, resumed) as team:
        model.team = team
        checkpoints = LastCheckpoint(run, team)
        callbacks = [epochs, *progress, checkpoints]
        _train(run, model, places[0], resumed, callbacks, [*progress, checkpoints], tracker)
    model.team = SingleProcess()


def _train_along(
    team: DataParallel, place: Place, ready: Callable[[], None], run: Run, source: Run | None, resumed: Path | None
) -> None:
    """Train as the first process of a team does, and leave all else to it."""
    model = untrained_model(run, source)
    model.team = team
    ready()
    _train(run, model, place, resumed, [], [LeaveTogether(team)])


def _train(
    run: Run,
    model: VAE,
    place: Place,
    resumed: Path | None,
    callbacks: list[Callback],
    after_minibatch: Sequence[AfterMinibatch],
    tracker: Logger | None = None,
) -> None:
    """Train in this process."""
    config = run.config

    def each() -> None:
        for one in after_minibatch:
            one.after_minibatch()

    with without_hints():
        trainer = pl.Trainer(
            max_epochs=config.trainer.max_epochs,
            accelerator=place.accelerator,
            devices=place.devices,
            callbacks=callbacks,
            plugins=[LightningEnvironment()],  # Slurm's signals are answered by experiments.machine.signals
            logger=tracker or False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=1,
            num_sanity_val_steps=0,
            default_root_dir=run.folder,
        )
        blocks = ParticleBlocks(len(model.particles), config.batch_size, config.seed, after_minibatch=each)
        try:
            trainer.fit(model, datamodule=blocks, ckpt_path=resumed, weights_only=True)
        except Interrupted:
            raise
        except SystemExit:  # what Lightning makes of Ctrl-C; a sweep must stop there, as a Python program does
            raise KeyboardInterrupt from None
