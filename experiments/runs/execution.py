"""Carrying a run out, once: whoever asks for the same run meanwhile waits, and finds it finished."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import Timeout
from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import to_dict
from experiments.configuration.error_messages import one_line
from experiments.configuration.stored import refuse_unknown_targets
from experiments.machine import signals
from experiments.machine.devices import check_devices
from experiments.machine.disk_errors import disk_errors_as_input_errors
from experiments.machine.memory import check_memory
from experiments.runs import provenance, state
from experiments.runs.changed_data import refuse_changed
from experiments.runs.run import Run, start_over
from experiments.runs.state import lost
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import UNFINISHED, write_atomically

logger = logging.getLogger(__name__)

# What is in the folder of a run that has come to nothing yet.
BARE = {"config.yaml", "run.log", provenance.PROVENANCE}


def execute(config: DictConfig, in_sweep: bool = False) -> Run:
    """Carry out the run of a configuration, unless it is finished; then return it.

    The runs that it needs are carried out first. Two processes that want the same run do it once: the second
    waits and finds it finished.

    Args:
        config: as composed.
        in_sweep: what failed in this sweep is not tried again by those that need it, and its folder says why.

    Returns:
        The finished run.

    Raises:
        InputError: what the user gave cannot be used, or a run that this one needs failed.
    """
    run = Run.of(config)
    refuse_unknown_targets(run.config)
    if run.metrics is not None and not config.overwrite:
        refuse_changed(run)
        logger.info("already finished, nothing to do; overwrite=true starts over%s", _how_to_log(run))
        return run
    with disk_errors_as_input_errors(run.folder), _failure_recorded(run, keep=in_sweep):
        check_devices(run.config.trainer.accelerator, run.config.trainer.devices)
        check_memory(to_dict(run.config))
        source = _finished_source(run, in_sweep)
        with _alone(run, keep=in_sweep):
            if run.metrics is not None and not config.overwrite:  # finished while this process waited
                return run
            if in_sweep and (failure := state.read_failure(run.folder)) is not None:  # failed while it waited
                raise InputError(failure.reason)
            state.forget_failure(run.folder)
            if config.overwrite:
                start_over(run)
            if run.checkpoint.exists():
                refuse_changed(run)
            _carry_out(run, source)
    return run


def _how_to_log(run: Run) -> str:
    """Name the command that logs a finished run, where a tracker is asked for that has not seen it."""
    asked = run.config.logger.get("mode", "disabled") != "disabled"
    return (
        f"; `python -m experiments wandb {run.folder}` logs it" if asked and not (run.folder / "wandb").exists() else ""
    )


def _finished_source(run: Run, in_sweep: bool) -> Run | None:
    """Return the run that another one needs, carried out first where it is not finished."""
    source = run.source()
    if source is None or source.metrics is not None:
        if source is not None:
            refuse_changed(source)
        return source
    described = f"{source.config.name} (seed {source.config.seed})"
    if in_sweep and (reason := _failed_in_sweep(source, run)) is not None:
        raise InputError(f"needs {described}, which failed: {reason}")
    logger.info("%s needs %s first", run.config.name, described)
    try:
        return execute(source.config, in_sweep)
    except Exception as error:
        raise InputError(f"needs {described}, which failed: {one_line(error)}") from error


def _failed_in_sweep(source: Run, run: Run) -> str | None:
    """Return why a source came to nothing in the sweep that carries a run out; None where it may still come."""
    if (failure := state.read_failure(source.folder)) is not None:
        return failure.reason
    job = state.read_job(run.folder)
    return None if job is None else lost(source.folder, job.sweep)


def _carry_out(run: Run, source: Run | None) -> None:
    from hydra.utils import instantiate

    for path in run.folder.rglob(f"{UNFINISHED}*"):  # a killed process could not
        path.unlink()
    state.mark_started(run.folder)
    write_atomically(run.folder / "config.yaml", lambda path: OmegaConf.save(run.config, path))
    _import_keeping_logging()
    with _log_file(run.folder / "run.log"):
        logger.info("%s: %s", run.config.name, run.folder)
        task: Callable[[Run, Run | None], dict[str, Any]] = instantiate(run.config.task)
        with signals.answered(), provenance.recorded(run):
            metrics = task(run, source)
        text = json.dumps(metrics, indent=2, allow_nan=False) + "\n"
        write_atomically(run.folder / "metrics.json", lambda path: path.write_text(text, encoding="utf-8"))


@contextmanager
def _alone(run: Run, keep: bool) -> Iterator[None]:
    """Keep other processes out of a run's folder; leave it behind empty only where it is to be kept."""
    try:
        run.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{run.folder}: the run's folder cannot be made ({error.strerror}); choose another with paths.runs=DIR"
        ) from None
    lease = state.lease(run.folder, if_lost=lambda _: signals.request_stop("another process, which went on"))
    try:
        lease.acquire(timeout=0)
    except Timeout:
        logger.info("waiting for %s, which %s is at", run.config.name, state.holder(run.folder) or "somebody else")
        lease.acquire(poll_interval=1.0)
    try:
        yield
    finally:
        is_bare = _names(run.folder) <= BARE | {state.LEASE}
        if is_bare and not keep:
            for name in BARE:
                (run.folder / name).unlink(missing_ok=True)
        lease.release()
        if is_bare and not keep:
            with suppress(OSError):  # somebody else has begun
                run.folder.rmdir()


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


@contextmanager
def _failure_recorded(run: Run, keep: bool) -> Iterator[None]:
    """Note in a run's folder why it failed; where nothing but the note would be in it, only if it is to be kept."""
    try:
        yield
    except Exception as error:
        if keep or _names(run.folder):
            state.write_failure(run.folder, one_line(error))
        raise


def _import_keeping_logging() -> None:
    """Import what sets up the logging of the whole program when it is imported first, and keep ours."""
    root, names = logging.getLogger(), ("", "cryodrgn", "pytorch_lightning")
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in names]
    import cryodrgn  # noqa: F401
    import pytorch_lightning  # noqa: F401

    root.handlers[:] = handlers
    for name, level in zip(names, levels, strict=True):
        logging.getLogger(name).setLevel(level)
    for known in logging.root.manager.loggerDict.values():
        if isinstance(known, logging.Logger):
            known.disabled = False


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Copy what is logged into a file, with times; a failure's traceback goes there too."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        yield
    except BaseException as error:
        handler.emit(_last_word(error))
        raise
    finally:
        root.removeHandler(handler)
        handler.close()


def _last_word(error: BaseException) -> logging.LogRecord:
    """Return what a run's log ends with; an interruption is no failure."""
    if isinstance(error, signals.Interrupted | KeyboardInterrupt):
        text = str(error) or "interrupted; the same command continues from the last checkpoint"
        return logging.LogRecord(__name__, logging.INFO, "", 0, text, None, None)
    record = logging.LogRecord(__name__, logging.ERROR, "", 0, "failed: %s", (error,), None)
    record.exc_info = (type(error), error, error.__traceback__)
    return record
