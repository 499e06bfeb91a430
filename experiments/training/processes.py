"""One training in several processes of one machine: the first is the run's own, and it starts and ends the others.

The others repeat the training alone. They write nothing, show nothing, leave signals to the first, and end with it.
"""

import contextlib
import ctypes
import json
import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import SpawnProcess
from pathlib import Path
from traceback import format_exc
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from omegaconf import DictConfig
from torch._C._distributed_c10d import FileStore, Store

from experiments.configuration.error_messages import one_line
from experiments.machine import signals
from experiments.machine.devices import check_devices, chosen
from lightning_modules.errors import InputError
from lightning_modules.optimization.cuda_graph import CudaGraphStep
from lightning_modules.optimization.data_parallel import DataParallel, SingleProcess

logger = logging.getLogger(__name__)

END_WITHIN_S = 60.0  # for the others, once the first is through; they have nothing left to do
PR_SET_PDEATHSIG = 1  # from sys/prctl.h


# Lightning's hints about what is meant to be so.
HINTS = ("num_workers", "val_dataloader", "on_epoch", "litlogger", "Tip", "LeafSpec", "srun", "sync_dist")


@contextmanager
def without_hints() -> Iterator[None]:
    """Keep Lightning from giving advice."""
    with warnings.catch_warnings():
        for hint in HINTS:
            warnings.filterwarnings("ignore", message=f".*{hint}.*")
        yield


@dataclass(frozen=True)
class Place:
    """Where one process trains.

    Attributes:
        accelerator: Lightning's.
        devices: Lightning's; one device.
        backend: how the processes of such devices talk to each other.
        alone: who trains there if it is the only one.
    """

    accelerator: str
    devices: Any
    backend: str = "gloo"
    alone: type[SingleProcess] = SingleProcess


def places_of(config: DictConfig) -> list[Place]:
    """Return where each process of a run trains, one per device.

    Raises:
        InputError: what is asked for works with one device only.
    """
    accelerator, devices = chosen(config.trainer.accelerator), config.trainer.devices
    alone = CudaGraphStep if config.trainer.capture else SingleProcess
    if devices in (1, "1"):
        return [Place(accelerator, devices, alone=alone)]
    check_devices(accelerator, devices)
    with without_hints():  # what Lightning makes of auto, -1, "0,2" and so on
        found = pl.Trainer(accelerator=accelerator, devices=devices, logger=False, enable_checkpointing=False)
    ids = found.device_ids
    if isinstance(found.accelerator, pl.accelerators.CUDAAccelerator):
        places = [Place("gpu", [number], "nccl", alone) for number in ids]
    else:
        places = [Place(accelerator, 1, alone=alone) for _ in ids]
    if len(places) > 1 and config.trainer.capture:
        raise InputError(
            f"trainer.capture=true: steps are captured on one GPU, and {len(places)} devices were asked for; "
            "expected trainer.devices=1 or trainer.capture=false"
        )
    if len(places) > 1 and config.beta_control is not None:
        raise InputError(
            f"beta_control={config.beta_control}: KL control needs the KL of the whole minibatch before the gradient, "
            f"and {len(places)} devices were asked for; expected trainer.devices=1"
        )
    return places


@contextmanager
def team_of(places: list[Place], work: Callable[..., None], *arguments: Any) -> Iterator[SingleProcess]:
    """Start the other processes, if there are any, and form a team with them.

    Args:
        places: of all processes, the first of them this one's.
        work: called as ``work(team, place, ready, *arguments)`` in each other process; it calls ``ready()`` when
            all that may take long is prepared, and before it uses the team. A function of a module.
        arguments: can be pickled.

    Yields:
        This process's membership.

    Raises:
        InputError: what another process found wrong with the input.
        RuntimeError: another process failed, or was killed.
    """
    if len(places) == 1:
        yield places[0].alone(signals.stop_requested)
        return
    size, n_threads = len(places), torch.get_num_threads()
    meeting = Path(tempfile.mkdtemp())  # a file in a folder of the user's own: nothing listens on a network
    store = FileStore(str(meeting / "store"), size)
    torch.set_num_threads(_threads(places, n_threads))
    others: list[SpawnProcess] = []
    try:
        for rank in range(1, size):
            given = (rank, places, meeting, os.getpid(), torch.get_num_threads(), work, arguments)
            others.append(multiprocessing.get_context("spawn").Process(target=_other, args=given, daemon=True))
            others[-1].start()
        _wait_until_ready(store, others)
        with _group(store, 0, places):
            yield DataParallel(0, size, signals.stop_requested)
        for other in others:
            other.join(END_WITHIN_S)
    except Exception as error:
        raise _reason(store, others, error) from error
    finally:
        for other in others:
            other.kill()
            other.join()
        torch.set_num_threads(n_threads)
        shutil.rmtree(meeting, ignore_errors=True)


def _other(
    rank: int,
    places: list[Place],
    meeting: Path,
    parent: int,
    n_threads: int,
    work: Callable[..., None],
    arguments: tuple[Any, ...],
) -> None:
    """What another process does."""
    _end_with(parent)
    for number in (*signals.SIGNALS, signal.SIGINT):  # a scheduler sends them to all
        signal.signal(number, signal.SIG_IGN)
    _be_silent()
    store = FileStore(str(meeting / "store"), len(places))
    torch.set_num_threads(n_threads)
    with contextlib.ExitStack() as stack:

        def ready() -> None:
            store.set(f"ready/{rank}", "1")
            stack.enter_context(_group(store, rank, places))

        try:
            work(DataParallel(rank, len(places)), places[rank], ready, *arguments)
        except signals.Interrupted:
            pass
        except Exception as error:
            told = {"text": one_line(error), "is_input": isinstance(error, InputError), "traceback": format_exc()}
            store.set("failed", json.dumps(told))
            raise SystemExit(1) from None


@contextmanager
def _group(store: Store, rank: int, places: list[Place]) -> Iterator[None]:
    if sys.platform.startswith("linux"):  # a machine need not know its own name, and nobody else's may connect
        for backend in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{backend}_SOCKET_IFNAME", "lo")
    dist.init_process_group(places[rank].backend, store=store, rank=rank, world_size=len(places))
    try:
        yield
    finally:
        dist.destroy_process_group()


def _wait_until_ready(store: Store, others: list[SpawnProcess]) -> None:
    waited_for = [f"ready/{rank}" for rank in range(1, len(others) + 1)]
    while not store.check(waited_for):
        if any(other.exitcode is not None for other in others):
            raise ChildProcessError
        time.sleep(0.02)


def _reason(store: Store, others: list[SpawnProcess], error: Exception) -> Exception:
    """Return what went wrong: a process that loses another one sees no more than that."""
    if isinstance(error, InputError):
        return error
    for other in others:
        other.join(2.0)
    if store.check(["failed"]):
        told = json.loads(store.get("failed"))
        if told["is_input"]:
            return InputError(told["text"])
        logger.error("%s", told["traceback"])
        return RuntimeError(told["text"])
    for rank, other in enumerate(others, 1):
        if other.exitcode:
            cause = f"killed by {signal.Signals(-other.exitcode).name}" if other.exitcode < 0 else "lost"
            return RuntimeError(f"process {rank + 1} of {len(others) + 1} was {cause}; is there enough memory for all?")
    return error


def _threads(places: list[Place], n_threads: int) -> int:
    return n_threads if places[0].backend == "nccl" else max(1, n_threads // len(places))


def _end_with(parent: int) -> None:
    """Have the system end this process when its parent is gone, however that happened, or is gone already (Linux)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _be_silent() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
