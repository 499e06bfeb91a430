"""Checking a composed configuration: every value is resolved and within its range."""

import math
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration import schema
from experiments.configuration.did_you_mean import did_you_mean
from experiments.machine.hardware import best_precision
from lightning_modules.errors import InputError

MAX_INTEGER = 2**63 - 1
MAX_NAME_BYTES = 100
DATA_PATHS = ("run", "particles", "poses", "ctf", "labels", "ind", "datadir")


def check(config: DictConfig) -> DictConfig:
    """Resolve a configuration and check every value's range.

    Args:
        config: as composed.

    Returns:
        A resolved copy, with ``precision`` decided.

    Raises:
        InputError: a value is missing or out of range; the message names its key.
    """
    resolved: DictConfig = config.copy()
    if resolved.precision == schema.Precision.auto:
        resolved.precision = schema.Precision[best_precision(resolved.trainer.accelerator)]
    if resolved.audit is not None and OmegaConf.is_missing(resolved.audit, "run"):
        raise InputError("audit.run is not set; give the folder of a run of cryoDRGN, as in audit.run=PATH")
    for key in sorted(OmegaConf.missing_keys(resolved)):
        raise InputError(f"{key} is not set; give it on the command line, as in {key}=...")
    OmegaConf.resolve(resolved)
    for name in DATA_PATHS:
        if resolved.data.get(name):
            # The same name means another file in another folder: it would find the wrong run.
            resolved.data[name] = os.path.abspath(Path(resolved.data[name]).expanduser())  # noqa: PTH100
    # A value that refers to another is wrong because that one is, and only that one can be mended.
    for key, value, allowed in sorted(_described(resolved), key=lambda found: _refers(config, found[0])):
        if value is None:
            continue
        _check_kind(key, value, allowed)
        if allowed["one_of"] and value not in allowed["one_of"]:
            choices = ", ".join(allowed["one_of"])
            raise InputError(f"{key}={value}: expected one of {choices} ({allowed['help']})")
        if allowed["at_least"] is not None and not value >= allowed["at_least"]:
            raise InputError(f"{key}={value}: expected at least {allowed['at_least']} ({allowed['help']})")
        if allowed["above"] is not None and not value > allowed["above"]:
            raise InputError(f"{key}={value}: expected a value above {allowed['above']} ({allowed['help']})")
    return resolved


def _check_kind(key: str, value: Any, allowed: dict[str, Any]) -> None:
    """Refuse numbers that no generator or network can use, and names that are no plain names."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        raise InputError(f"{key}={value}: expected at most {MAX_INTEGER} ({allowed['help']})")
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}={value}: expected a finite number ({allowed['help']})")
    if key == "beta" and not _is_beta(value):
        raise InputError(f"beta={value}: expected a number from 0 on, null, or one of a, b, c, d ({allowed['help']})")
    if allowed["is_name"] and not _is_plain_name(value):
        raise InputError(
            f"{key}={value!a}: expected a plain name of at most {MAX_NAME_BYTES} bytes, without /, control characters "
            f"or a dot at its start ({allowed['help']})"
        )


def _is_beta(value: Any) -> bool:
    if isinstance(value, str) and value in ("a", "b", "c", "d"):
        return True
    try:
        return not isinstance(value, bool) and float(value) >= 0 and math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _is_plain_name(name: str) -> bool:
    is_short = 1 <= len(name.encode("utf-8", "surrogateescape")) <= MAX_NAME_BYTES
    return is_short and name.isprintable() and name == name.strip() and name[0] != "." and not {"/", "\\"} & set(name)


def _refers(config: DictConfig, key: str) -> bool:
    """Return whether a key's value is that of another key."""
    above, _, name = key.rpartition(".")
    return OmegaConf.is_interpolation(OmegaConf.select(config, above) if above else config, name)


def _described(node: DictConfig, prefix: str = "") -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield key, value and description of every key; refuse one that was added, or deleted, by force."""
    schema_of_node = OmegaConf.get_type(node)
    known = {f.name: f.metadata for f in fields(schema_of_node)} if is_dataclass(schema_of_node) else {}
    given = {str(name): value for name, value in node.items()}
    for name in sorted(known.keys() - given.keys()):
        raise InputError(f"{prefix}{name} was deleted, expected a value; leave ~{prefix}{name} out")
    for name in sorted(given.keys() - known.keys()) if known else ():
        meant = did_you_mean(f"{prefix}{name}", f"not in '{getattr(schema_of_node, '__name__', '')}'")
        raise InputError(f"{prefix}{name}: there is no such key; `python run.py --cfg job` shows all.{meant}")
    for name, value in given.items():
        if isinstance(value, DictConfig):
            yield from _described(value, f"{prefix}{name}.")
        elif "help" in known.get(name, {}):
            yield f"{prefix}{name}", value, dict(known[name])
