"""Volumes of a run as .mrc files: ``python -m experiments volumes RUN --kmeans 20``."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.configuration.error_messages import command
from experiments.machine.devices import best_device
from experiments.runs.run import Run
from experiments.runs.stored_results import read_latents
from experiments.volumes.files import write
from experiments.volumes.points import Points, first_particles, kmeans_centres, listed, principal_component
from experiments.volumes.run_volumes import decoder_of
from lightning_modules.errors import InputError


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Decode volumes as the command line says; returns the exit code."""
    options = _options(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    logging.getLogger("cryodrgn").setLevel(logging.WARNING)
    try:
        folder, n_written = _carry_out(options)
    except KeyboardInterrupt:
        print("interrupted; the volumes written so far are whole", file=sys.stderr)
        return 130
    print(f"{n_written} volumes in {folder}")
    return 0


def _options(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m experiments volumes", description="Write volumes of a run.")
    parser.add_argument("run", type=Path, help="folder of a finished run")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--first", type=_positive, metavar="N", help="at the first N particles, as in the paper")
    where.add_argument("--kmeans", type=_positive, metavar="K", help="at the particles nearest to K k-means centres")
    where.add_argument("--pc", type=_positive, metavar="I", help="along principal component I of the latents, from 1")
    where.add_argument("--z", type=Path, metavar="FILE", help="at the z in FILE: .txt (one z a row), .npy or .npz")
    parser.add_argument("--steps", type=_positive, default=10, metavar="S", help="volumes along --pc (default 10)")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: RUN/volumes/firstN, kmeansK, pcI or FILE's name"
    )
    parser.add_argument(
        "--box-px", type=_positive, metavar="B", help="side of the volumes, below the images': low-pass"
    )
    parser.add_argument("--cpu", action="store_true", help="do not use a GPU")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected a whole number from 1")
    return int(text)


def _carry_out(options: Any) -> tuple[Path, int]:
    run = Run.load(options.run)
    if run.metrics is None:
        raise InputError(f"{options.run}: this run is not finished; the command that started it continues it")
    points, name = _points(options, run)
    decoder = decoder_of(run).to(best_device("cpu" if options.cpu else "auto"))
    folder = options.out or run.folder / "volumes" / name
    for _ in write(folder, decoder, points, options.box_px, progress=True):
        pass
    return folder, len(points)


def _points(options: Any, run: Run) -> tuple[Points, str]:
    """Return where to decode, and what the folder is called."""
    if options.z is not None:
        return listed(options.z, run.config.zdim), options.z.stem
    mu = read_latents(run.folder).mu.numpy()
    if options.first:
        return first_particles(mu, options.first), f"first{options.first}"
    if options.kmeans:
        return kmeans_centres(mu, options.kmeans), f"kmeans{options.kmeans}"
    return principal_component(mu, options.pc, options.steps), f"pc{options.pc}"


if __name__ == "__main__":
    sys.exit(main())
