"""Configurations: composing one, checking it, and what of it decides the numbers."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments import schema
from experiments.machine.hardware import best_precision
from experiments.nearest import did_you_mean
from experiments.targets import class_name, earlier_name, rename_targets
from lightning_modules.errors import InputError

CONF_DIR = Path(__file__).resolve().parents[1] / "conf"

# What every run of one data set and setting shares; an experiment's own difference is in the other slots.
SHARED = (
    "seed", "batch_size", "lr", "table_lr", "zdim", "precision", "weight_decay", "beta", "beta_control",
    "data", "encoder", "decoder", "model", "results", "trainer", "logger", "paths",
)  # fmt: skip
# What decides a run's numbers, beside its task's own slots.
TRAINING = ("task", "seed", "batch_size", "lr", "zdim", "precision", "weight_decay", "beta", "beta_control")
SLOTS = ("encoder_input", "latents", "decoder", "model")
# The same, where another run's model is tried.
TESTING = ("task", "seed", "encoder_input")
DATA_PATHS = ("run", "particles", "poses", "ctf", "labels", "ind", "datadir")
# Of the data, what says where and how it is kept rather than what it is.
NOT_DATA = ("cache_dir", "residency", "cache_images", "name", "root")
# Keys that earlier runs were made without, and the value that leaves their numbers as they were: with that value, a key
# is no part of an identity, so those runs are still found.
ADDED_LATER: dict[str, Any] = {}
# Of the data, what the loader is told rather than the particle files.
NOT_FILES = ("residency", "cache_images", "name")


def compose(*overrides: str) -> DictConfig:
    """Compose a configuration as ``run.py`` does.

    Args:
        overrides: as on the command line: ``"+exp=vlt_zero"``, ``"seed=1"``.

    Returns:
        The configuration, unresolved.
    """
    schema.register()
    if GlobalHydra.instance().is_initialized():
        return hydra.compose("config", list(overrides))
    with hydra.initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return hydra.compose("config", list(overrides))


def source_config(config: DictConfig, experiment: str) -> DictConfig:
    """Return the configuration of another experiment, on the same data, with the same seed and settings.

    Args:
        config: the run that needs the other.
        experiment: a file of conf/exp.

    Returns:
        ``+exp=experiment``, with every shared value of ``config`` that the experiment does not set itself.

    Raises:
        InputError: there is no such experiment.
    """
    if not (CONF_DIR / "exp" / f"{experiment}.yaml").is_file():
        raise InputError(
            f"source={experiment}: neither an experiment (a file in conf/exp) nor the folder of a finished run"
        )
    data = f"data={data_choice(config)}"
    standard, special = _composed(data), _composed(data, f"+exp={experiment}").copy()
    for name in SHARED:
        if special[name] == standard[name] or name in ("data", "trainer", "paths", "logger"):
            # A configuration read from a file has lost its types; merged, it takes on the node's.
            OmegaConf.update(special, name, config[name], merge=name in ("trainer", "paths"))
    return special


@cache
def _composed(*overrides: str) -> DictConfig:
    """Compose once what a sweep's runs ask for over and over; not to be changed."""
    return compose(*overrides)


def data_choice(config: DictConfig) -> str:
    """Return the file of conf/data that a configuration was made with."""
    return str(config.data.name) if (CONF_DIR / "data" / f"{config.data.name}.yaml").is_file() else "cryodrgn"


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
        if allowed["one_of"] and value not in allowed["one_of"]:
            choices = ", ".join(allowed["one_of"])
            raise InputError(f"{key}={value}: expected one of {choices} ({allowed['help']})")
        if allowed["at_least"] is not None and not value >= allowed["at_least"]:
            raise InputError(f"{key}={value}: expected at least {allowed['at_least']} ({allowed['help']})")
        if allowed["above"] is not None and not value > allowed["above"]:
            raise InputError(f"{key}={value}: expected a value above {allowed['above']} ({allowed['help']})")
    return resolved


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


def decisive(config: DictConfig) -> dict[str, Any]:
    """Return what of a checked configuration decides the numbers of its run.

    Neither logger, paths, launcher, nor the device. A run that needs another one depends on the other's
    decisive part.
    """
    plain = _without_later_keys(to_dict(config))
    source = source_of(config)
    if plain.get("audit"):  # somebody else's run, which may go on: its files decide, wherever they are
        from lightning_modules.files.cryodrgn_folder import Folder

        data = {key: value for key, value in _data(plain).items() if key not in ("run", "epoch")}
        audited = Folder.find(plain["data"]["run"], plain["data"]["epoch"]).fingerprint()
        return {
            "task": plain["task"],
            "seed": plain["seed"],
            "precision": plain["precision"],
            "data": data,
            "audited": audited,
            "beta": plain["audit"]["beta"],
        }
    if "source" in plain["task"]:  # it trains nothing itself
        return {**{name: plain[name] for name in TESTING}, "data": _data(plain), "source": _decisive_of(source)}
    is_trained_table = "init" in plain["latents"] and not plain["latents"]["frozen"]
    names = (*TRAINING, *SLOTS, *(("table_lr",) if is_trained_table else ()))
    part = {name: plain[name] for name in names}
    part["data"] = _data(plain)
    part["max_epochs"] = plain["trainer"]["max_epochs"]
    if source is not None:
        part["source"] = _decisive_of(source)
    return part


def _without_later_keys(plain: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration without the keys of ADDED_LATER that have the value given there."""
    for dotted, value in ADDED_LATER.items():
        *above, name = dotted.split(".")
        node: Any = plain
        for part in above:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and name in node and node[name] == value:
            del node[name]
    return plain


def _data(plain: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain["data"].items() if key not in NOT_DATA}


def _decisive_of(source: DictConfig | Path | None) -> Any:
    return decisive(source) if isinstance(source, DictConfig) else str(source and source.resolve())


def source_of(config: DictConfig) -> DictConfig | Path | None:
    """Return the run that a configuration needs: a checked configuration, the folder of a run, or None."""
    init = config.latents.get("init") or {}
    name = config.task.get("source") or init.get("source")
    if name is None:
        return None
    if (Path(name) / "metrics.json").is_file():
        return Path(name)
    return check(source_config(config, name))


def identity(config: DictConfig) -> str:
    """Return the hash of a checked configuration's decisive part, with classes by their names alone."""
    return _hash(rename_targets(decisive(config), class_name))


def earlier_identity(config: DictConfig) -> str:
    """Return the hash that version 0.1.0 gave the same configuration: it took in the modules of classes."""
    return _hash(rename_targets(decisive(config), earlier_name))


def _hash(part: dict[str, Any]) -> str:
    text = json.dumps(part, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
