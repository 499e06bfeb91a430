"""The devices that a run asks for: checked against those that this machine has, and told to whoever computes there."""

from typing import Any

from experiments.machine.hardware import n_cores
from lightning_modules.errors import InputError

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")


def check_devices(accelerator: str, devices: Any) -> None:
    """Check ``trainer.accelerator`` and ``trainer.devices`` before any work is done.

    Args:
        accelerator: Lightning's name.
        devices: Lightning's: "auto", a number of devices, -1 for all GPUs, or numbers of GPUs as a list or "0,2".

    Raises:
        InputError: an unknown accelerator, one that is not here, or more processes than there are cores or GPUs.
    """
    if accelerator not in ACCELERATORS:
        raise InputError(f"trainer.accelerator={accelerator}: expected one of {', '.join(ACCELERATORS)}")
    kind, available = _available(accelerator)
    if not available:
        raise InputError(
            f"trainer.accelerator={accelerator}: no {kind} was found that torch can use; expected cpu or auto"
        )
    if devices in ("auto", None):
        return
    wanted = _numbers(devices)
    shown = str(devices).replace(" ", "")
    if wanted is None:
        raise InputError(f"trainer.devices={shown}: expected auto, a number of devices, or GPUs as in [0,2]")
    if isinstance(wanted, list):
        if kind != "GPU" or not wanted or len(set(wanted)) < len(wanted) or not set(wanted) <= set(range(available)):
            numbers = f"different numbers from 0 to {available - 1}" if kind == "GPU" else "a number: these are no GPUs"
            raise InputError(f"trainer.devices={shown}: {available} {kind}(s) were found, expected {numbers}")
    elif not (1 <= wanted <= available or (wanted == -1 and kind == "GPU")):
        raise InputError(f"trainer.devices={shown}: {available} {kind}(s) were found, expected 1 to {available}")


def chosen(accelerator: str) -> str:
    """Return the accelerator that "auto" stands for here: NVIDIA's GPUs, else the processor; others stay as they are.

    Lightning's "auto" would take Apple's GPU, too. Nobody has compared what the suite computes on one, so it is used
    only where it is named.
    """
    if accelerator != "auto":
        return accelerator
    return "cuda" if _n_gpus() else "cpu"


def best_device(accelerator: str, devices: Any = "auto") -> str:
    """Return the device for work beside the trainer's, which leaves a model on the CPU.

    Args:
        accelerator: ``trainer.accelerator``.
        devices: ``trainer.devices``.

    Returns:
        The first of the GPUs asked for, as "cuda:3"; "cuda:0" where a run of another machine names one that is not
        here; "cpu" where there is none, or none is wanted.
    """
    n_gpus = 0 if accelerator in ("cpu", "mps") else _n_gpus()
    if not n_gpus:
        return "cpu"
    named = _numbers(devices)
    first = named[0] if isinstance(named, list) and named else 0
    return f"cuda:{first if first in range(n_gpus) else 0}"


def _available(accelerator: str) -> tuple[str, int]:
    """Return what a process trains on, and how many of them there are."""
    accelerator = chosen(accelerator)
    if accelerator == "cpu":
        return "core", n_cores()
    import torch

    n_gpus = _n_gpus()
    if accelerator != "mps" and (n_gpus or accelerator == "cuda"):
        return "GPU", n_gpus
    return ("Apple GPU", 1) if torch.backends.mps.is_available() else ("GPU", 0)


def _n_gpus() -> int:
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _numbers(devices: Any) -> int | list[int] | None:
    """Return a count, or the numbers of devices; None: neither."""
    try:
        if isinstance(devices, str) and "," in devices:
            return [int(part) for part in devices.split(",") if part.strip()]
        return int(devices) if isinstance(devices, int | str) else [int(number) for number in devices]
    except (TypeError, ValueError):
        return None
