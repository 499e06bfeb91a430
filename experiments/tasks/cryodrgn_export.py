"""A run as cryoDRGN's own output folder: what ``cryodrgn analyze``, ``eval_vol`` and ``eval_images`` take.

A run with an encoder is written as ``train_vae`` writes one. cryoDRGN has no lookup table: a run with one
is a decoder alone, as of ``train_dec``, with the table's rows as its z.
"""

import logging
import pickle
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from omegaconf import DictConfig
from torch import Tensor

from lightning_modules.files.atomic import link_atomically, write_atomically
from lightning_modules.files.image_stacks import inspect
from lightning_modules.files.safe_pickle import load_arrays
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.latents.table_init import Latents
from lightning_modules.networks.residual_mlp import ACTIVATIONS
from lightning_modules.particles.particles import Particles
from lightning_modules.particles.selection import Selection, read_selection
from lightning_modules.vae.cryo_vae import CryoVAE

logger = logging.getLogger(__name__)


def export(folder: Path, config: DictConfig, module: CryoVAE, latents: Latents, log_rows: list[dict[str, Any]]) -> None:
    """Write a finished run in cryoDRGN's formats.

    The folder gets config.yaml, run.log, and, for ``cryodrgn analyze FOLDER EPOCH`` with EPOCH the last one
    or -1, weights[.EPOCH].pkl and z[.EPOCH].pkl. poses.pkl, ctf.pkl and ind.pkl are added where cryoDRGN
    cannot read the particle set's own files: they are no pickles, or are about the selected particles alone.

    Args:
        folder: made if it is missing; what it holds under these names is replaced.
        config: checked configuration of the run.
        module: trained.
        latents: mu and logvar of what was trained, each (N, zdim).
        log_rows: one row per epoch, with ``loss/total``, ``loss/reconstruction``, ``loss/kl`` and, where
            known, ``time/epoch_s``.
    """
    epoch = config.trainer.max_epochs
    with_encoder = _fits_hetonlyvae(config, module)
    weights = _weights(module, with_encoder)
    described = {
        "dataset_args": _dataset_args(folder, module.particles),
        "lattice_args": {"D": module.particles.box_px + 1, "extent": 0.5, "ignore_DC": True},
        "model_args": _model_args(config, module, with_encoder),
        "seed": config.seed,
        **_provenance(),
    }
    checkpoint = {"epoch": epoch, "model_state_dict": weights}
    _write(folder, f"weights.{epoch}.pkl", lambda path: torch.save(checkpoint, path), alias="weights.pkl")
    _write(folder, f"z.{epoch}.pkl", _pickling(*(part.cpu().numpy() for part in latents)), alias="z.pkl")
    _write(folder, "run.log", lambda path: path.write_text(_run_log(log_rows), encoding="utf-8"))
    _write(
        folder,
        "config.yaml",
        lambda path: path.write_text(yaml.safe_dump(described, sort_keys=False), encoding="utf-8"),
    )


def _fits_hetonlyvae(config: DictConfig, module: CryoVAE) -> bool:
    """Tell whether the run is a ``HetOnlyVAE`` of cryoDRGN, which has one activation for both networks."""
    if not isinstance(module.latents, AmortizedEncoder):
        return False
    if not _is_cryodrgns(config, module.latents, module.formation.n_pixels):
        logger.warning("for cryoDRGN the run is written as a decoder alone: the encoder is none of cryoDRGN's")
        return False
    encoder, decoder = config.latents.activation, config.decoder.activation
    if encoder != decoder:
        logger.warning(
            "for cryoDRGN the run is written as a decoder alone: it knows one activation for both networks, "
            "here they are %s in the encoder and %s in the decoder",
            encoder, decoder,
        )  # fmt: skip
    return bool(encoder == decoder)


@torch.no_grad()
def _is_cryodrgns(config: DictConfig, encoder: AmortizedEncoder, n_pixels: int) -> bool:
    """Tell whether cryoDRGN, given the weights of an encoder, infers the same q from the same images."""
    from cryodrgn.models import ResidLinearMLP

    sizes = [config.latents.get(key) for key in ("layers", "width", "activation")]
    if None in sizes:
        return False
    layers, width, activation = sizes
    theirs = ResidLinearMLP(n_pixels, layers, width, 2 * encoder.zdim, ACTIVATIONS[activation])
    try:
        theirs.load_state_dict({name.removeprefix("encoder."): value for name, value in encoder.state_dict().items()})
    except RuntimeError:  # other names, or other sizes
        return False
    x = torch.randn(4, n_pixels, generator=torch.Generator().manual_seed(0))
    device = next(encoder.parameters()).device
    ours = torch.cat(encoder(x.to(device), torch.arange(4, device=device)), dim=1).cpu()
    return torch.allclose(ours, theirs(x), rtol=1e-3, atol=1e-4)


def _weights(module: CryoVAE, with_encoder: bool) -> dict[str, Tensor]:
    """Return the state of ``HetOnlyVAE``, whose names the parts here have, or of its decoder alone."""
    state = module.decoder.state_dict()
    if with_encoder:
        state = {**module.latents.state_dict(), **state}
    else:
        state = {name.removeprefix("decoder."): value for name, value in state.items()}
    return {name: value.detach().cpu().float().clone() for name, value in state.items()}


def _model_args(config: DictConfig, module: CryoVAE, with_encoder: bool) -> dict[str, Any]:
    decoder = config.decoder
    shared = {
        "zdim": config.zdim,
        "pe_type": decoder.pe_type,
        "feat_sigma": decoder.feat_sigma,
        "pe_dim": decoder.pe_dim,
        "domain": decoder.domain,
        "activation": decoder.activation,
    }
    if not with_encoder:
        return {"layers": decoder.layers, "dim": decoder.width, **shared}
    return {
        "qlayers": config.latents.layers,
        "qdim": config.latents.width,
        "players": decoder.layers,
        "pdim": decoder.width,
        "encode_mode": "resid",
        "enc_mask": module.particles.box_px // 2,
        **shared,
        "tilt_params": {},
    }


def _dataset_args(folder: Path, particles: Particles) -> dict[str, Any]:
    """Return how cryoDRGN reads these particles; write what it cannot read from their own files."""
    files = particles.files
    selection = read_selection(files, inspect(Path(files.particles), files.datadir).n_images)
    return {
        "particles": files.particles,
        "norm": [float(value) for value in particles.norm],
        "invert_data": files.invert,
        "ind": _index_pkl(folder, particles, selection),
        "keepreal": False,
        "window": files.window,
        "window_r": files.window_r,
        "datadir": files.datadir,
        "ctf": _ctf_pkl(folder, particles, selection),
        "poses": _poses_pkl(folder, particles, selection),
        "do_pose_sgd": False,
    }


def _index_pkl(folder: Path, particles: Particles, selection: Selection) -> str | None:
    files = particles.files
    if files.ind is None and selection.is_whole:
        return None
    if files.ind is not None and len(selection.rows) == selection.n_filtered and Path(files.ind).suffix == ".pkl":
        return files.ind
    return _write(folder, "ind.pkl", _pickling(selection.rows))


def _poses_pkl(folder: Path, particles: Particles, selection: Selection) -> str:
    given = particles.files.poses
    if given is not None and Path(given).suffix == ".pkl":
        poses = load_arrays(given)
        if isinstance(poses, tuple) and [np.shape(part)[:1] for part in poses] == [(selection.n_file,)] * 2:
            return given
    rotations = particles.rotations.cpu().numpy()
    shifts = particles.shifts_px.cpu().numpy() / (particles.box_px + 1)
    whole = tuple(_rows_of_file(part, selection) for part in (rotations, shifts))
    return _write(folder, "poses.pkl", _pickling(whole))


def _ctf_pkl(folder: Path, particles: Particles, selection: Selection) -> str | None:
    given = particles.files.ctf
    if given is None or particles.ctf_params is None:
        return None
    if Path(given).suffix == ".pkl" and len(load_arrays(given)) == selection.n_file:
        return given
    whole = _rows_of_file(particles.ctf_params.cpu().numpy(), selection)
    # cryoDRGN takes the pixel size from all rows, those that are not taken included.
    whole[:, 0] = particles.pixel_size_angstrom
    box = np.full((len(whole), 1), particles.box_px, whole.dtype)
    return _write(folder, "ctf.pkl", _pickling(np.hstack([box, whole])))


def _rows_of_file(taken: np.ndarray, selection: Selection) -> np.ndarray:
    """Put the rows taken where they are in the particle file, as cryoDRGN expects; the others are NaN."""
    whole = np.full((selection.n_file, *taken.shape[1:]), np.nan, taken.dtype)
    whole[selection.rows] = taken
    return whole


def _run_log(log_rows: Sequence[dict[str, Any]]) -> str:
    """Return a line per epoch as ``train_vae`` logs it, for ``cryodrgn.analysis.parse_loss``."""
    return "".join(
        f"# =====> Epoch: {epoch} Average gen loss = {row['loss/reconstruction']:.6f}, "
        f"KLD = {row['loss/kl']:.6f}, total loss = {row['loss/total']:.6f}; "
        f"Finished in {row.get('time/epoch_s', 0.0):.2f} s\n"
        for epoch, row in enumerate(log_rows, start=1)
    )


def _provenance() -> dict[str, Any]:
    """Return what ``cryodrgn.config.save`` adds."""
    import cryodrgn

    return {"version": cryodrgn.__version__, "time": datetime.now(), "cmd": list(sys.argv)}


def _pickling(*objects: Any) -> Callable[[Path], None]:
    """Return a writer of objects one after another, as ``train_vae.save_checkpoint`` writes mu and logvar."""

    def write(path: Path) -> None:
        with path.open("wb") as file:
            for each in objects:
                pickle.dump(each, file)

    return write


def _write(folder: Path, name: str, write: Callable[[Path], Any], alias: str | None = None) -> str:
    """Write a file, give it a second name where one is asked for, and return its absolute path."""
    path = write_atomically(folder / name, write)
    if alias is not None:
        link_atomically(path, folder / alias)
    return str(path.absolute())
