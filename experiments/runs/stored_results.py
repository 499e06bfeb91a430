"""Weights and latents in the folder of a run: read with every check, written atomically."""

import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import to_dict
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.regular_files import regular_file
from lightning_modules.files.safe_numpy import load_npz, refuse_unpacking
from lightning_modules.latents.table_init import Latents

# Of an epoch; further columns may be there.
EPOCH = {"epoch", "loss/total", "loss/reconstruction", "loss/kl", "time/epoch_s"}


def read_weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the weights of a checkpoint, and run nothing that is in it.

    Raises:
        InputError: missing, damaged, with something else in it than tensors, or with weights that are no numbers.
    """
    try:
        weights = read_tensors(checkpoint, "state_dict")
        if wrong := [name for name, value in weights.items() if not value.isfinite().all()]:
            raise ValueError(f"NaN or infinite numbers in {wrong[0]}")
    except InputError:
        raise
    except Exception as error:
        raise _no_weights(checkpoint, error) from None
    return weights


def read_tensors(path: Path, key: str, mmap: bool = False) -> dict[str, torch.Tensor]:
    """Read the named tensors in a checkpoint, of this suite or of cryoDRGN, and run nothing that is in it.

    Args:
        path: the checkpoint.
        key: what of it is read.
        mmap: leave them in the file until they are used.

    Raises:
        Exception: of any kind: missing, damaged, with something else in it, or with tensors that hold more than the
            file does. A tensor may repeat what it holds, and ask for any memory as soon as it is used.
    """
    weights = _read_checkpoint(path, mmap)[key]
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise TypeError(f"{key} holds something else than tensors")
    n_bytes, held_bytes = sum(value.numel() * value.element_size() for value in weights.values()), path.stat().st_size
    if n_bytes > held_bytes:
        raise ValueError(f"tensors of {n_bytes:,} bytes in a file of {held_bytes:,}")
    return dict(weights)


def read_epochs(checkpoint: Path) -> list[dict[str, float]]:
    """Read the row of each epoch that training wrote into its checkpoint, and run nothing that is in it.

    Returns:
        The columns of log.csv; of finite numbers, seconds above zero.

    Raises:
        InputError: missing, damaged, or without such rows.
    """
    try:
        rows = _read_checkpoint(checkpoint)["callbacks"]["EpochLog"]["rows"]
        found = [{str(name): _finite(value) for name, value in row.items()} for row in rows]
        if not found or any(not row.keys() >= EPOCH or row["time/epoch_s"] <= 0 for row in found):
            raise ValueError(f"{len(found)} rows, or not all have {', '.join(sorted(EPOCH))}")
        return found
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{checkpoint}: the epochs' losses cannot be read ({' '.join(str(error).split())[:200]}), expected a row "
            "of numbers for each; repeat the run with overwrite=true"
        ) from None


def _read_checkpoint(path: Path, mmap: bool = False) -> dict[str, Any]:
    regular_file(path, "a checkpoint")
    if zipfile.is_zipfile(path):  # torch before 1.6 wrote plain pickles
        refuse_unpacking(path)
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    return found


def _finite(value: Any) -> float:
    if not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{str(value)[:50]} is no finite number")
    return value


def _no_weights(checkpoint: Path, error: Exception) -> InputError:
    return InputError(
        f"{checkpoint}: the weights cannot be read ({' '.join(str(error).split())[:200]}), expected those of the run; "
        "repeat it with overwrite=true"
    )


def read_latents(folder: Path) -> Latents:
    """Read what a run inferred.

    Args:
        folder: of a finished run.

    Returns:
        mu and logvar, each (N, zdim).

    Raises:
        InputError: the file is missing or damaged.
    """
    path = folder / "latents.npz"
    try:
        stored = load_npz(path)
        mu, logvar = stored["mu"], stored["logvar"]
        if mu.ndim != 2 or mu.shape != logvar.shape or mu.dtype != np.float32 or logvar.dtype != np.float32:
            found = f"mu {mu.shape} {mu.dtype} and logvar {logvar.shape} {logvar.dtype}"
            raise ValueError(f"{found}, expected both (N, zdim) float32")
        if not (np.isfinite(mu).all() and np.isfinite(logvar).all()):
            raise ValueError("NaN or infinite values, expected numbers")
        return Latents(torch.from_numpy(mu), torch.from_numpy(logvar))
    except Exception as error:
        raise InputError(
            f"{path}: the latents cannot be read ({' '.join(str(error).split())}); repeat that run with overwrite=true"
        ) from None


def same_particles(config: DictConfig, source: DictConfig, said_by: str = "source") -> None:
    """Check that two runs are about the same particles.

    Args:
        config: of one run.
        source: of the other.
        said_by: how the error names the other: the key or folder that the user gave.

    Raises:
        InputError: they are not; latents of one say nothing about the other.
    """
    ours, theirs = (
        {key: value for key, value in to_dict(OmegaConf.create({"data": c.data}))["data"].items() if key in SAME}
        for c in (config, source)
    )
    for key in sorted(ours.keys() | theirs.keys()):
        if ours.get(key) != theirs.get(key):
            raise InputError(
                f"{said_by}: a run with data.{key}={theirs.get(key)} was found, expected data.{key}={ours.get(key)}; "
                "name a run of the same particles"
            )


SAME = (
    "_target_", "particles", "poses", "ind", "n_particles", "box_px", "snr", "seed", "n_states", "hinge_deg", "split",
)  # fmt: skip


def write_latents(path: Path, latents: Latents, **others: np.ndarray) -> None:
    """Write mu and logvar (N, zdim), the particles' index (N,) in the data, and others, such as their true states."""
    mu, logvar = (part.numpy() for part in latents)
    arrays = {"mu": mu, "logvar": logvar, "index": np.arange(len(mu)), **others}
    write_atomically(path, lambda unfinished: np.savez(unfinished, allow_pickle=False, **arrays))
