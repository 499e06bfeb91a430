"""The configuration of a run of cryoDRGN, of any version, checked before anything is built from it."""

from dataclasses import dataclass
from itertools import pairwise
from numbers import Integral
from pathlib import Path
from typing import Any

from experiments.configuration.safe_yaml import read_yaml
from lightning_modules.errors import InputError
from lightning_modules.files.safe_pickle import load_arrays
from lightning_modules.networks.residual_mlp import ACTIVATIONS
from lightning_modules.networks.slice_decoder import DOMAINS, PE_TYPES

MODES = ("resid", "mlp")
MOST = 1 << 16  # of layers, units, dimensions


@dataclass(frozen=True)
class Settings:
    """What a run of cryoDRGN was told.

    Attributes:
        said_by: the file.
        data: ``dataset_args``.
        model: ``model_args``, complete and of the right types.
        box_px: side D of the images.
        norm: mean and std that normalized the Hartley transforms; None: those of the images.
        beta: weight of the KL, of the command line; None: cryoDRGN's 1/zdim.
        beta_control: strength of KL control, or None.
        version: of cryoDRGN, where the file says it.
        preprocessed: whether it was trained on transforms of images, of ``cryodrgn preprocess``.
    """

    said_by: Path
    data: dict[str, Any]
    model: dict[str, Any]
    box_px: int
    norm: tuple[float, float] | None
    beta: str | None
    beta_control: float | None
    version: str
    preprocessed: bool

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Read config.yaml or config.pkl.

        Raises:
            InputError: it cannot be read without running what is in it, is of another program than ``train_vae``, or
                of an encoder that is no MLP.
        """
        content = load_arrays(path) if path.suffix == ".pkl" else read_yaml(path, PLAIN)
        parts = (
            [part for name in PARTS if isinstance(part := content.get(name), dict)] if isinstance(content, dict) else []
        )
        if len(parts) < len(PARTS):
            raise InputError(f"{path}: no {', '.join(PARTS)} in it, expected the configuration of `cryodrgn train_vae`")
        data, lattice, model = parts
        side = _whole(path, "lattice_args.D", lattice.get("D"), 3)
        if side % 2 == 0 or lattice.get("extent", 0.5) != 0.5 or not lattice.get("ignore_DC", True):
            raise InputError(f"{path}: lattice_args={lattice}, expected an odd D, extent 0.5 and ignore_DC")
        said = content.get("cmd")
        command = [str(word) for word in said] if isinstance(said, list) else []
        control = _option(command, "--beta-control")
        return cls(
            path,
            data,
            _model(path, model, side),
            side - 1,
            _norm(path, data.get("norm")),
            _option(command, "--beta"),
            None if control is None else _number(path, "--beta-control", control),
            str(content.get("version") or ("1 or 2" if path.suffix == ".pkl" else "unknown")),
            "--preprocessed" in command,
        )


PLAIN = "the configuration of a run, of plain values as cryoDRGN writes"
PARTS = ("dataset_args", "lattice_args", "model_args")


def _model(path: Path, given: dict[str, Any], side: int) -> dict[str, Any]:
    """Return the model's settings, with what older versions did not write."""
    mode = given.get("encode_mode", "resid" if "qlayers" in given else None)
    if "qlayers" not in given and "zdim" not in given:
        raise InputError(
            f"{path}: a run of `cryodrgn train_nn`, one volume without z, was found, expected one of `cryodrgn "
            "train_vae`; it has nothing to audit"
        )
    if mode == "tilt":
        raise InputError(
            f"{path}: a run of tilt series was found, expected one of single particles; its encoder sees several "
            "images at once and cannot be audited"
        )
    if mode is None or "qlayers" not in given:
        raise InputError(f"{path}: it has no encoder (no qlayers), expected a run of `cryodrgn train_vae`")
    if mode not in MODES:
        raise InputError(f"{path}: encode_mode={mode}: only encoders of the modes {', '.join(MODES)} can be audited")
    model: dict[str, Any] = {name: _whole(path, name, given.get(name), 1) for name in ("qdim", "pdim", "zdim")}
    model |= {name: _whole(path, name, given.get(name), 0) for name in ("qlayers", "players")}
    mask = given.get("enc_mask")
    radius = side // 2 if mask is None else mask
    if radius != -1:
        radius = _whole(path, "enc_mask", radius, 1, side // 2)
    dims = given.get("pe_dim")
    model |= {"encode_mode": mode, "enc_mask": radius}
    model |= {"pe_dim": None if dims is None else _whole(path, "pe_dim", dims, 2)}
    choices = {"pe_type": (PE_TYPES, None), "domain": (DOMAINS, "fourier"), "activation": (tuple(ACTIVATIONS), "relu")}
    for name, (known, standard) in choices.items():
        model[name] = given.get(name, standard)
        if model[name] not in known:
            raise InputError(f"{path}: {name}={model[name]}, expected one of {', '.join(known)}")
    return model


def _norm(path: Path, given: Any) -> tuple[float, float] | None:
    if given is None:
        return None
    if not isinstance(given, list | tuple) or len(given) != 2:
        raise InputError(f"{path}: norm={given}, expected mean and standard deviation")
    mean, std = (_number(path, "norm", value) for value in given)
    if not std > 0:
        raise InputError(f"{path}: norm={given}, expected a standard deviation above 0")
    return mean, std


def _whole(path: Path, name: str, value: Any, least: int, most: int = MOST) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
        raise InputError(f"{path}: {name}={str(value)[:80]}, expected a whole number from {least} to {most}")
    return int(value)


def _number(path: Path, name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not abs(number) < float("inf"):
        raise InputError(f"{path}: {name}={str(value)[:80]}, expected a number")
    return number


def _option(command: list[str], name: str) -> str | None:
    """Return the value of an option of a command line, as --name VALUE or --name=VALUE; None where it is not there."""
    for word, following in pairwise([*command, ""]):
        if word == name:
            return following
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None
