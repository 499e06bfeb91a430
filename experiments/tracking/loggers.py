"""Where a run's numbers go beside log.csv: Weights & Biases, or nowhere.

Logging never stops a run to ask: without a key, or without a network, W&B's files are written offline.
"""

from __future__ import annotations

import logging
import netrc
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from experiments.configuration.compose import to_dict
from experiments.machine.signals import stop_requested
from experiments.runs.run import Run

if TYPE_CHECKING:
    import wandb
    from pytorch_lightning.loggers import Logger

logger = logging.getLogger(__name__)

INIT_TIMEOUT_S = 20.0
# An upload that takes longer at the end of a run is left to `wandb sync`.
FINISH_TIMEOUT_S = 120.0


def no_logger(run: Run) -> None:
    """Log to log.csv alone, which is always written."""


def wandb_logger(
    run: Run,
    project: str,
    entity: str | None = None,
    group: str | None = None,
    mode: str = "offline",
    tags: Sequence[str] = (),
    afresh: bool = False,
) -> Logger | None:
    """Log to Weights & Biases, one W&B run per run identity.

    A run that continues, continues its W&B run. Offline files are in the run's folder, under wandb/.

    Args:
        run: its configuration and folder.
        project: W&B project.
        entity: W&B team or user; None: the default of the key.
        group: e.g. the name of a sweep; None: the name of the data.
        mode: "offline"; "disabled"; or "online", which becomes offline, with a warning, where no key is at
            hand or W&B does not answer.
        tags: more of them, beside experiment, data and seed.
        afresh: replace what the W&B run holds, as a run with ``overwrite=true`` does.

    Returns:
        A Lightning logger; None where it is disabled, and on all but the first process of a distributed run.
    """
    from pytorch_lightning.utilities import rank_zero_only

    if mode == "disabled" or getattr(rank_zero_only, "rank", False):
        return None
    config = run.config
    data = str(config.data.name)
    described = {
        "project": project,
        "entity": entity,
        "group": group or data,
        "job_type": config.task._target_.rpartition(".")[2].removesuffix("Test").lower(),
        "name": f"{config.name} seed={config.seed}",
        "id": wandb_id(run),
        "resume": None if config.overwrite or afresh else "allow",
        "tags": list(dict.fromkeys([config.name, data, f"seed={config.seed}", *tags])),
        "config": to_dict(config),
        "dir": str(run.folder),
    }
    started = _start_online(described) if mode == "online" else None
    return _epoch_logger(started or _start(described, "offline"))


def wandb_id(run: Run) -> str:
    """Return the id of a run's W&B run: its name and identity, in the characters that W&B allows."""
    return re.sub(r"[^\w-]", "_", f"{run.config.name}-{run.folder.name}", flags=re.ASCII)


def log_results(tracker: Logger, run: Run, metrics: dict[str, Any], figures: Sequence[Path]) -> None:
    """Log what is known once at the end of a run: see ``wandb_results.log_all``.

    Args:
        tracker: what :func:`wandb_logger` returned.
        run: whose results they are.
        metrics: become the summary of the W&B run; None values are left out.
        figures: picture files, shown as figures/NAME.
    """
    from experiments.tracking.wandb_results import log_all

    log_all(tracker.experiment, run, metrics, figures)  # type: ignore[attr-defined]


def close(tracker: Logger, failed: bool = False) -> None:
    """Finish the W&B run, so that the next run of this process starts its own."""
    tracker.experiment.finish(exit_code=int(failed))  # type: ignore[attr-defined]


def _start_online(described: dict[str, Any]) -> wandb.Run | None:
    """Start an online run, or say in one line why it is offline."""
    if not key_at_hand():
        reason, cure = "no API key was found", "run `wandb login` once, or set WANDB_API_KEY"
    else:
        try:
            return _start(described, "online")
        except Exception as error:  # a key of a wrong form, no network, no such entity: wandb raises many kinds
            _forget_failed_start()
            first_line = (str(error).splitlines() or [type(error).__name__])[0]
            reason, cure = f"W&B did not start ({first_line})", "check the network, the key and logger.entity"
    logger.warning(
        "logger.mode=online: %s; logging offline to %s/wandb, which `wandb sync` uploads later. "
        "To get online: %s",
        reason, described["dir"], cure,
    )  # fmt: skip
    return None


def _forget_failed_start() -> None:
    """Stop wandb's service: it holds the run's id, and would go on trying to reach the server."""
    import wandb

    wandb.teardown(exit_code=1)


def _start(described: dict[str, Any], mode: Literal["offline", "online"]) -> wandb.Run:
    import wandb

    options: dict[str, Any] = {
        "init_timeout": INIT_TIMEOUT_S,
        "silent": True,
        "console": "off",
        "save_code": False,
        "disable_git": True,
    }
    if "finish_timeout" in wandb.Settings.model_fields:  # newer than the oldest wandb allowed
        options["finish_timeout"] = FINISH_TIMEOUT_S
    # A silent session never asks for a key.
    wandb.setup(settings=wandb.Settings(silent=True))
    # A run before this one in the same process may have failed and left its own open.
    experiment = wandb.init(**described, mode=mode, reinit="finish_previous", settings=wandb.Settings(**options))
    experiment.define_metric("epoch")
    experiment.define_metric("*", step_metric="epoch")
    return experiment


def key_at_hand() -> bool:
    """Tell whether wandb will find a key without asking: in the environment, or in a netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    servers = (os.environ.get("WANDB_BASE_URL") or wandb.Settings().base_url, "https://api.wandb.ai")
    given = os.environ.get("NETRC")
    paths = [Path(given)] if given else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for path in paths:
        try:
            entries = netrc.netrc(path)
        except (OSError, netrc.NetrcParseError):
            continue
        # Not authenticators(): a default entry is for other hosts.
        if any(urlsplit(server).netloc in entries.hosts for server in servers):
            return True
    return False


def _epoch_logger(experiment: wandb.Run) -> Logger:
    """Return a Lightning logger whose axis is the epoch."""
    from pytorch_lightning.loggers import WandbLogger

    class EpochLogger(WandbLogger):
        """Lightning's, with a row per epoch, counted from 1 as in log.csv.

        A resumed run logs a repeated epoch onto itself; Lightning's own step counts every optimizer.
        """

        def log_metrics(self, metrics: Any, step: int | None = None) -> None:
            """Log a row, which names its epoch; Lightning, which gives a step, counts epochs from 0."""
            row = dict(metrics)
            row["epoch"] = int(row["epoch"]) + (step is not None)
            self.experiment.log(row, step=row["epoch"])

        def finalize(self, status: str) -> None:
            """Mark the W&B run of an interrupted or failed training as such."""
            super().finalize(status)
            if stop_requested():
                self.experiment.mark_preempting()  # W&B then shows it as preempted, and expects it back
            if status != "success":
                self.experiment.finish(exit_code=1)

    return EpochLogger(experiment=experiment, save_dir=experiment.settings.root_dir)
