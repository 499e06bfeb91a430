"""Volumes of a run as .mrc files: ``python -m experiments.volumes RUN --kmeans 20``.

A training run writes those of its first six particles and of twenty k-means centres when it ends; here any
others can be had from it later, without its particles.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from numpy.typing import ArrayLike, NDArray

from experiments.configuration.error_messages import command
from experiments.latent_points import Points, first_particles, kmeans_centres, listed, principal_component
from experiments.machine.hardware import best_device
from experiments.metrics.fsc import VolumeDiversity, spherical_mask
from experiments.runs.building import particles_of, trained_model
from experiments.runs.run import Run
from experiments.runs.stored_results import read_latents
from experiments.volume_decoder import Volume, VolumeDecoder
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.image_formation import ImageFormation
from lightning_modules.vae.cryo_vae import CryoVAE

INDEX = "index.json"


def write_mrc(path: Path, volume: NDArray[np.floating], pixel_size_angstrom: float) -> Path:
    """Write a volume (D, D, D), [z, y, x], as float32 .mrc with its origin at (0, 0, 0) as ``cryodrgn eval_vol`` does.

    The file is whole or not there at all.
    """
    from cryodrgn.mrcfile import write_mrc as write_file

    data = np.ascontiguousarray(volume, dtype=np.float32)
    return write_atomically(path, lambda file: write_file(str(file), data, is_vol=True, Apix=pixel_size_angstrom))


def write(
    folder: Path, decoder: VolumeDecoder, points: Points, box_px: int | None = None, progress: bool = False
) -> Iterator[tuple[str, Volume]]:
    """Decode volumes into a folder; index.json, which says what each of them is, comes last.

    Args:
        folder: made if it is missing.
        decoder: of a run.
        points: their names become those of the files.
        box_px: side of the volumes; None: that of the particles.
        progress: say beforehand how long it will take, and show a bar if that is long.

    Yields:
        Name and volume of each, when its file has been written.
    """
    pixel_size_angstrom = decoder.pixel_size_angstrom * decoder.box_px / (box_px or decoder.box_px)
    for name, volume in zip(points.names, decoder.decode(points.z, box_px, progress), strict=True):
        write_mrc(folder / f"{name}.mrc", volume, pixel_size_angstrom)
        yield name, volume
    described = {
        "box_px": box_px or decoder.box_px,
        "pixel_size_angstrom": pixel_size_angstrom,
        "volumes": [
            {"file": f"{name}.mrc", "particle": particle, "z": z.tolist()}
            for name, particle, z in zip(points.names, points.particles, points.z, strict=True)
        ],
        "decoder": {
            "box_px": decoder.box_px,
            "pixel_size_angstrom": decoder.pixel_size_angstrom,
            "norm": list(decoder.norm),
        },
    }
    text = json.dumps(described, indent=2) + "\n"
    write_atomically(folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def write_of_training(run: Run, model: CryoVAE, mu: ArrayLike) -> dict[str, float | None]:
    """Write volumes/first_1.mrc to first_6.mrc and kmeans_00.mrc to kmeans_19.mrc, fewer of few particles.

    Args:
        run: finished but for its metrics.
        model: trained.
        mu: (N, zdim) of its particles.

    Returns:
        The metric ``volumes/diversity``: of the volumes at the k-means centres, inside the soft sphere of
        ``fsc.spherical_mask``.
    """
    points = first_particles(mu) + kmeans_centres(mu)
    decoder = on_best_device(run, model)
    diversity = VolumeDiversity(spherical_mask(decoder.box_px))
    for name, volume in write(run.folder / "volumes", decoder, points, progress=True):
        if name.startswith("kmeans"):
            diversity.add(volume)
    return {"volumes/diversity": diversity.value}


def write_of_amortization(run: Run, model: CryoVAE, mu: ArrayLike, mu_altered: ArrayLike) -> None:
    """Write volumes/original_1.mrc to original_6.mrc and altered_1.mrc to altered_6.mrc (paper, Figs. 10 and 11).

    Args:
        run: finished but for its metrics.
        model: whose encoder is tested.
        mu: (N, zdim) of the images.
        mu_altered: (N, zdim) of the altered images.
    """
    points = first_particles(mu, prefix="original") + first_particles(mu_altered, prefix="altered")
    for _ in write(run.folder / "volumes", on_best_device(run, model), points, progress=True):
        pass


def stored(folder: Path) -> dict[str, Volume]:
    """Read the volumes of a run, or of any folder that holds .mrc files, by name in the order of their names.

    Raises:
        InputError: there are none, or one cannot be read.
    """
    from experiments.metrics.agreement import read_volume

    holding = folder / "volumes" if (folder / "volumes").is_dir() else folder
    found = {path.stem: read_volume(path) for path in sorted(holding.glob("*.mrc"))}
    if not found:
        raise InputError(f"{folder}: no .mrc volumes here; `python -m experiments.volumes RUN --kmeans 20` writes some")
    return found


def decoder_of(run: Run) -> VolumeDecoder:
    """Return the decoder of a finished run; of an amortization test, that of the run it tested.

    The particles are read only if no volumes have been written yet: what is needed of them is in index.json.

    Raises:
        InputError: the run has no weights, or they cannot be read.
    """
    trained = run if run.checkpoint.exists() else run.source()
    if trained is None or not trained.checkpoint.exists():
        raise InputError(f"{run.folder}: has no weights in checkpoints/last.ckpt; repeat the run with overwrite=true")
    if "decoder" not in trained.config or "SliceDecoder" not in trained.config.decoder._target_:
        raise InputError(f"{run.folder}: this run's decoder renders no volumes; name a run of cryo-EM particles")
    about = _about_particles(trained)
    if about is None:
        return VolumeDecoder.of(trained_model(trained, particles_of(trained.config)))
    box_px, pixel_size_angstrom, norm = about
    slices = instantiate(trained.config.decoder, formation=ImageFormation(box_px), zdim=trained.config.zdim)
    try:
        state = torch.load(trained.checkpoint, map_location="cpu", weights_only=True, mmap=True)["state_dict"]
        slices.load_state_dict({k.removeprefix("decoder."): v for k, v in state.items() if k.startswith("decoder.")})
    except Exception as error:
        raise InputError(
            f"{trained.checkpoint}: the weights cannot be read ({' '.join(str(error).split())[:200]}); "
            "repeat that run with overwrite=true"
        ) from None
    return VolumeDecoder(slices, norm, pixel_size_angstrom)


def _about_particles(run: Run) -> tuple[int, float, tuple[float, float]] | None:
    """Read box side, pixel size and norm of the particles; None where no volumes have been written."""
    path = run.folder / "volumes" / INDEX
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["decoder"]
        return int(found["box_px"]), float(found["pixel_size_angstrom"]), (found["norm"][0], found["norm"][1])
    except FileNotFoundError:
        return None
    except Exception:
        raise InputError(f"{path}: not as a run writes it; delete the file, and it will not be needed") from None


def on_best_device(run: Run, model: CryoVAE) -> VolumeDecoder:
    """Take the decoder to the GPU if the run was to use one: the trainer has brought the model back to the CPU."""
    return VolumeDecoder.of(model).to(best_device(run.config.trainer.accelerator))


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
    parser = argparse.ArgumentParser(prog="python -m experiments.volumes", description="Write volumes of a run.")
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
    decoder = decoder_of(run).to("cuda" if torch.cuda.is_available() and not options.cpu else "cpu")
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
