"""What a particle costs, against the number of particles: time and memory of training, encoding, metrics and figures.

    python -m experiments scale --n 10000 131899 1000000 --box-px 64 128

A data set of a million is not made for this. N particles stand in: poses, CTF and labels of a small simulated set,
again and again, and a sparse file of all N images, mapped into memory, with real ones where the measured steps look.
What is timed is a window of steps, of Lightning's own loop, at the epoch's random places in that file. Every N takes
turns with N = 10,000, each in a process of its own; a ratio is the median over these pairs.
"""

import argparse
import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.benchmarks.measuring import in_a_line, load_average, machine, peak_bytes, watch, write_measured
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import command
from experiments.configuration.validation import check
from experiments.machine.hardware import wait_briefly_beside_others
from experiments.machine.terminal import purpose
from lightning_modules.errors import InputError

if TYPE_CHECKING:
    from lightning_modules.particles.particles import Particles

REFERENCE = 10_000
EXPERIMENTS = ("baseline", "vlt_zero", "evil_twin_noise_standard", "evil_twin_permuted")
N_REAL, ZDIM = 256, 8
# Minibatches of a block, blocks, and particles that are encoded: a window of seconds on two cores.
PER_BLOCK, BLOCKS, ENCODED = 8, 4, 512
COLUMNS = {
    **{f"{name}, ms": f"{name}, training, ms" for name in EXPERIMENTS},
    "entering, us": "entering an epoch, µs",
    "encoding, ms": "encoding, ms",
    "metrics, us": "metrics, µs",
    "figure, us": "figure, µs",
}
# For each D and N a list of pairs: what was measured of the reference, and of N.
Found = dict[int, dict[int, list[list[dict[str, Any]]]]]
PEAKS = {"training, MB": "training", "encoding, MB": "encoding", "metrics, MB": "metrics and figure"}


def stand_in(settings: Sequence[str], n: int, path: Path) -> tuple["Particles", np.ndarray]:
    """Return N particles whose images are a sparse file, and some images (n, M) with which :func:`fill` fills it."""
    from experiments.runs.building import particles_of
    from lightning_modules.files.mapped import map_floats

    few = particles_of(check(compose(*settings, f"data.n_particles={min(n, N_REAL)}")))
    again = np.arange(n) % len(few)
    with path.open("wb") as file:
        file.truncate(n * few.images[0].nbytes)
    assert few.ctf_params is not None and few.labels is not None
    particles = dataclasses.replace(
        few,
        images=map_floats(path, (n, few.images.shape[1])),
        rotations=few.rotations[again],
        shifts_px=few.shifts_px[again],
        ctf_params=few.ctf_params[again],
        labels={key: values[again] for key, values in few.labels.items()},
        index=np.arange(n),
        on_disk=True,
    )
    return particles, few.images.numpy()


def fill(path: Path, rows: np.ndarray, images: np.ndarray) -> None:
    """Write images (n, M), again and again, at some rows; let the system forget them, so that they are read."""
    with path.open("r+b") as file:
        for i, row in enumerate(np.unique(rows)):
            file.seek(int(row) * images[0].nbytes)
            file.write(images[i % len(images)].tobytes())
        file.flush()
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seen_in_window(n: int, config: Any) -> np.ndarray:
    """Return the particles that a window of training looks at, themselves and their twins."""
    import torch

    from lightning_modules.encoder_inputs.twins import derangement
    from lightning_modules.optimization.minibatches import EpochBlocks

    blocks = iter(EpochBlocks(n, config.batch_size, PER_BLOCK, config.seed, epoch=0))
    seen = torch.cat([index for block in (next(blocks) for _ in range(BLOCKS)) for index in block.batches]).numpy()
    return np.concatenate([seen, derangement(n, config.seed)[seen]])


def training(config: Any, particles: "Particles") -> dict[str, float]:
    """Train for a window of steps: seconds per particle of a step, and of entering the epoch."""
    import pytorch_lightning as pl

    from experiments.runs.building import model_of
    from lightning_modules.optimization.minibatches import ParticleBlocks

    times: list[float] = []

    class Clock(pl.Callback):
        def on_train_epoch_start(self, *_: Any) -> None:
            times.append(time.perf_counter())

        def on_train_batch_start(self, *_: Any) -> None:
            times.append(time.perf_counter())

        def on_train_batch_end(self, *_: Any) -> None:
            times.append(time.perf_counter())

    trainer = pl.Trainer(
        max_epochs=1, limit_train_batches=BLOCKS, accelerator=config.trainer.accelerator, devices=1,
        callbacks=[Clock()], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data = ParticleBlocks(len(particles), config.batch_size, config.seed, PER_BLOCK)
    trainer.fit(model_of(config, particles), datamodule=data)
    steps = [end - start for start, end in zip(times[3::2], times[4::2], strict=True)]  # of all blocks but the first
    return {"step": min(steps) / (PER_BLOCK * config.batch_size), "entering": (times[1] - times[0]) / len(particles)}


def encoding(config: Any, particles: "Particles") -> float:
    """Encode a window of particles: seconds per particle."""
    import torch

    from experiments.runs.building import model_of

    model, index = model_of(config, particles), torch.arange(min(len(particles), ENCODED))
    model.prepare()
    start = time.perf_counter()
    model.encode(index=index)
    return (time.perf_counter() - start) / len(index)


def judging(config: Any, particles: "Particles", folder: Path) -> dict[str, float]:
    """Measure and draw all N latents, as a run of simulated particles does: seconds per particle."""
    from experiments.figures.latent_maps import principal_map
    from experiments.figures.latents import latent_space
    from experiments.metrics.latents import active_dimensions
    from experiments.metrics.truth import truth_metrics
    from experiments.runs.building import described_data

    assert particles.labels is not None
    n, rng = len(particles), np.random.default_rng(0)
    mu = rng.standard_normal((n, ZDIM)).astype(np.float32)
    mu[:, 0] += 4 * particles.labels["state"]
    start = time.perf_counter()
    active_dimensions(mu)
    truth_metrics(mu, particles.labels, described_data(config))
    between = time.perf_counter()
    latent_space(principal_map(mu), folder / "map.png", labels=particles.labels["state"])
    return {"metrics": (between - start) / n, "figure": (time.perf_counter() - between) / n}


def _reset_peak() -> None:
    """Let the system count the peak of memory anew, where it can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:
        return


def _peak_mb() -> float | None:
    peak = peak_bytes()
    return None if peak is None else peak / 1e6


def measure(box_px: int, n: int, settings: Sequence[str]) -> dict[str, float | None]:
    """Measure all parts at one N, in this process.

    Args:
        box_px: D.
        n: N.
        settings: further overrides of the configuration.

    Returns:
        Time per particle by the keys of :data:`COLUMNS`, peak memory by those of :data:`PEAKS`.
    """
    sizes = [f"data.box_px={box_px}", "lr=1e-4", "trainer.accelerator=auto", *settings]
    found: dict[str, float | None] = {}
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        path = Path(name, "images.f32")
        particles, few = stand_in(sizes, n, path)
        configs = {name: check(compose(f"+exp={name}", *sizes, "data.residency=disk")) for name in EXPERIMENTS}
        baseline = configs[EXPERIMENTS[0]]
        for name, config in configs.items():
            fill(path, seen_in_window(n, config), few)
            window = training(config, particles)
            found |= {f"{name}, ms": 1e3 * window["step"], "entering, us": 1e6 * window["entering"]}
        found["training, MB"] = _peak_mb()
        fill(path, np.arange(min(n, ENCODED)), few)
        _reset_peak()
        found |= {"encoding, ms": 1e3 * encoding(baseline, particles), "encoding, MB": _peak_mb()}
        _reset_peak()
        judged = judging(baseline, particles, path.parent)
        found |= {f"{key}, us": 1e6 * value for key, value in judged.items()}
        found["metrics, MB"] = _peak_mb()
    return found


def compare(options: argparse.Namespace) -> Iterator[Found]:
    """Measure every D and N, taking turns with the reference; yield all that was found so far, after every pair.

    Raises:
        InputError: a process failed.
    """
    found: Found = {}
    for box_px in options.box_px:
        for n in options.rounds * options.n:
            pair = [_in_a_process(box_px, each, options.settings) for each in (REFERENCE, n)]
            found.setdefault(box_px, {}).setdefault(n, []).append(pair)
            yield found


def _in_a_process(box_px: int, n: int, settings: Sequence[str]) -> dict[str, float | None]:
    with tempfile.TemporaryDirectory(prefix="scale-") as name:
        path = Path(name, "found.json")
        command = [
            sys.executable,
            "-m",
            "experiments.benchmarks.scale",
            *settings,
            "--one",
            path,
            "--box-px",
            box_px,
            "--n",
            n,
        ]
        print(f"D = {box_px}, N = {n:,}", file=sys.stderr, flush=True)
        done = watch(command)
        if done.code:
            raise InputError(f"D={box_px} N={n}: the process failed; it ended: {' '.join(done.text.split())[-500:]}")
        measured: dict[str, float | None] = json.loads(path.read_text(encoding="utf-8"))
        return measured


def ratio(pairs: Sequence[Any], key: str) -> float:
    """Return the median of a cost over the reference's, of pairs that were measured one after the other."""
    return statistics.median(other[key] / reference[key] for reference, other in pairs)


def table(found: Found) -> str:
    """Lay out, for each D and N, the least cost per particle, its ratio to the reference's, and the peaks in MB."""
    titles = ["D", "N", *COLUMNS.values()]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    peaks = ["| D | N | " + " | ".join(PEAKS.values()) + " |", "|---" * (2 + len(PEAKS)) + "|"]
    for box_px, of_n in found.items():
        for n, pairs in of_n.items():
            cells = (f"{min(other[key] for _, other in pairs):.3g} ({ratio(pairs, key):.2f})" for key in COLUMNS)
            lines.append(f"| {box_px} | {n:,} | {' | '.join(cells)} |")
            held = ([other[key] for _, other in pairs if other[key] is not None] for key in PEAKS)
            peaks.append(f"| {box_px} | {n:,} | {' | '.join(f'{max(mb):.0f}' if mb else '' for mb in held)} |")
    notes = [f"Per particle; in brackets the ratio to N = {REFERENCE:,}.", "Peak memory of the process, MB:"]
    return "\n".join([notes[0], "", *lines, "", notes[1], "", *peaks]) + "\n"


def report(options: argparse.Namespace) -> str:
    """Measure all, write scale.json and scale.md after every pair, and return the latter's text."""
    before, text = load_average(), ""
    stands = f"Images: a sparse file of all N, with {N_REAL} real ones, again and again, where the steps look."
    for found in compare(options):
        about = machine() | {"load_before": before, "load_after": load_average()}
        text = f"{in_a_line(about)}\n\n{stands} {table(found)}"
        write_measured(options.output / "scale", {**about, "images": stands, "found": found}, text)
    return text


@command
def main(arguments: list[str] | None = None) -> int:
    """Measure from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments scale", description=purpose(__doc__))
    parser.add_argument(
        "--n", type=int, nargs="+", default=[REFERENCE, 131_899, 1_000_000], help="numbers of particles"
    )
    parser.add_argument("--box-px", type=int, nargs="+", default=[64, 128], help="sides of the images (default 64 128)")
    parser.add_argument("--rounds", type=int, default=2, help="pairs of processes for each N (default 2)")
    parser.add_argument("--output", type=Path, default=Path("runs/scale"), help="folder for scale.json and scale.md")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)  # where a process of one N writes
    parser.add_argument("settings", nargs="*", help="further settings, as for run.py: precision=float32")
    options = parser.parse_intermixed_args(arguments)
    wait_briefly_beside_others()
    if options.one:
        options.one.write_text(json.dumps(measure(options.box_px[0], options.n[0], options.settings)), encoding="utf-8")
        return 0
    text = report(options)
    print(f"{text}\n{options.output.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
