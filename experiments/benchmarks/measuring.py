"""What a benchmark says about the machine, and what it watches of a process: time and memory."""

import json
import logging
import os
import platform
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from experiments.machine.devices import best_device
from experiments.machine.hardware import processor
from lightning_modules.files.atomic import write_atomically

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
CPP, CAPTURED = ", C++", ", captured"

LOOK_EVERY_S = 0.05


@dataclass
class Watched:
    """A command that has ended.

    Attributes:
        code: its exit code.
        text: what it wrote, to both streams.
        seconds: from start to end.
        peak_bytes: of its memory; None where the system does not say.
    """

    code: int
    text: str
    seconds: float
    peak_bytes: int | None


def watch(command: Sequence[object]) -> Watched:
    """Run a command, and look at its memory."""
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as output:
        start, peak = time.perf_counter(), None
        with subprocess.Popen(list(map(str, command)), stdout=output, stderr=subprocess.STDOUT) as process:
            while process.poll() is None:
                # Not the system's own account of a finished child, which begins with what its parent held.
                peak = peak_bytes(process.pid) or peak
                time.sleep(LOOK_EVERY_S)
        seconds = time.perf_counter() - start
        output.seek(0)
        return Watched(process.returncode, output.read(), seconds, peak)


def peak_bytes(pid: int | str = "self") -> int | None:
    """Return the most memory that a running process has held so far; None where Linux's /proc does not tell."""
    try:
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def on_gpu(config: DictConfig) -> bool:
    """Return whether a configuration trains on a GPU here."""
    return best_device(config.trainer.accelerator, config.trainer.devices) != "cpu"


def matmul_peak_gflops(precision: str, device: str, seconds: float = 1.0) -> float:
    """Measure the fastest product of a decoder's shape, (rows, 256) (256, 256), in 10^9 operations per second."""
    import torch

    rows = 4096 if device == "cpu" else 65536
    a, b = (torch.randn(n, 256).to(device, getattr(torch, precision)) for n in (rows, 256))
    best, repeats, stop = float("inf"), 20, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        start = time.perf_counter()
        for _ in range(repeats):
            product = a @ b.t()
        float(product[0, 0])  # waits for the device
        best = min(best, time.perf_counter() - start)
    return repeats * 2 * rows * 256**2 / best / 1e9


def machine() -> dict[str, Any]:
    """Describe the hardware and the versions."""
    import cryodrgn
    import torch

    return {
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cryodrgn": cryodrgn.__version__,
    }


def in_a_line(about: dict[str, Any]) -> str:
    """Say what is known of the machine."""
    return ", ".join(f"{key} {value}" for key, value in about.items() if value is not None)


def write_measured(path: Path, content: dict[str, Any], text: str) -> None:
    """Write what was measured beside each other: all numbers as path.json, and for the eye path.md."""
    numbers = json.dumps(content, indent=2) + "\n"
    write_atomically(
        path.with_name(f"{path.name}.json"), lambda unfinished: unfinished.write_text(numbers, encoding="utf-8")
    )
    write_atomically(
        path.with_name(f"{path.name}.md"), lambda unfinished: unfinished.write_text(text, encoding="utf-8")
    )


def hush_libraries() -> None:
    """Let cryoDRGN and Lightning say only what is wrong."""
    for talkative in ("cryodrgn", "pytorch_lightning"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def load_average() -> float:
    """Return how many processes wanted a processor in the last minute; 0 where the system does not tell."""
    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0


def ways(gpu: bool) -> dict[str, tuple[str, ...]]:
    """Return the settings of each way that can be had here, by name; a name begins with its precision.

    Named by the precision alone are torch's operations, one after another.
    """
    from lightning_modules.networks.native_library import library

    plain = ("trainer.native=false", "trainer.capture=false")
    found: dict[str, tuple[str, ...]] = {precision: (f"precision={precision}", *plain) for precision in PRECISIONS}
    if gpu:
        return found | {BFLOAT16 + CAPTURED: ("precision=bfloat16", "trainer.capture=true")}
    if library() is None:
        return found
    return found | {precision + CPP: (f"precision={precision}", "trainer.native=true") for precision in PRECISIONS}


def precision_of(way: str) -> str:
    """Return the precision of a way's products."""
    return way.partition(",")[0]
