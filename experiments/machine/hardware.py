"""What the machine does well, found without importing torch where possible."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_modules.processor import cpu_flags


def best_precision(accelerator: str) -> str:
    """Return "bfloat16" where matrix products in it are fast, else "float32".

    Args:
        accelerator: Lightning's name: "auto", "cpu", "gpu", ...
    """
    if accelerator != "cpu" and Path("/proc/driver/nvidia").exists():
        import torch

        if torch.cuda.is_available():
            return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & cpu_flags() else "float32"


def n_cores() -> int:
    """Return how many processors this process may use."""
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1


def processor() -> str:
    """Return the processor's name; the platform's where Linux does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


@contextmanager
def threads_kept() -> Iterator[None]:
    """Give torch back the number of threads that it had, whatever is set on the way."""
    import torch

    n_threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def wait_briefly_beside_others() -> None:
    """Let OpenMP's idle threads sleep at once where another program runs; to be called before torch is imported.

    By default they wait for their next work in a loop. Alone on the machine, that makes a training step a tenth faster.
    Where another program wants the same cores, both crawl, ten times slower. A value that the user has set stays.
    """
    if "OMP_WAIT_POLICY" not in os.environ and others_running():
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def others_running() -> bool:
    """Return whether another program is using a processor at this moment; True where the system does not tell."""
    try:
        return int(Path("/proc/loadavg").read_text(encoding="utf-8").split()[3].split("/")[0]) > 1
    except (OSError, IndexError, ValueError):
        return True
