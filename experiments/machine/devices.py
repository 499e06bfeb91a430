"""The devices that a run asks for, checked against those that this machine has."""

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


def _available(accelerator: str) -> tuple[str, int]:
    """Return what a process trains on, and how many of them there are."""
    if accelerator == "cpu":
        return "core", n_cores()
    import torch

    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if accelerator != "mps" and (n_gpus or accelerator == "cuda"):
        return "GPU", n_gpus
    if torch.backends.mps.is_available():
        return "Apple GPU", 1
    return ("core", n_cores()) if accelerator == "auto" else ("GPU", 0)


def _numbers(devices: Any) -> int | list[int] | None:
    """Return a count, or the numbers of devices; None: neither."""
    try:
        if isinstance(devices, str) and "," in devices:
            return [int(part) for part in devices.split(",") if part.strip()]
        return int(devices) if isinstance(devices, int | str) else [int(number) for number in devices]
    except (TypeError, ValueError):
        return None
