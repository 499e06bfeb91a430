"""What of a configuration decides the numbers of its run, and the hash of that."""

import hashlib
import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import CONF_DIR, composed_once, data_choice, to_dict
from experiments.configuration.targets import class_name, earlier_name, foreign_code, rename_targets
from experiments.configuration.validation import check
from lightning_modules.errors import InputError

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
# Of the data, what says where and how it is kept rather than what it is.
NOT_DATA = ("cache_dir", "residency", "cache_images", "name", "root")
# Keys that earlier runs were made without, and the value that leaves their numbers as they were: with that value, a key
# is no part of an identity, so those runs are still found.
ADDED_LATER: dict[str, Any] = {}
# Of the data, what the loader is told rather than the particle files.
NOT_FILES = ("residency", "cache_images", "name")


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
    standard, special = composed_once(data), composed_once(data, f"+exp={experiment}").copy()
    for name in SHARED:
        if special[name] == standard[name] or name in ("data", "trainer", "paths", "logger"):
            # A configuration read from a file has lost its types; merged, it takes on the node's.
            OmegaConf.update(special, name, config[name], merge=name in ("trainer", "paths"))
    return special


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
    return identities(config)[0]


def identities(config: DictConfig) -> tuple[str, str]:
    """Return a checked configuration's identity, and the one that version 0.1.0 gave it.

    That version hashed the modules of classes, too. Classes of the user's own count by the code of their modules:
    another encoder under the same name is another run. What is decisive is found once for both: of an audited run, it
    includes the content of its weights.
    """
    part = decisive(config)
    if code := foreign_code(part):
        part["code"] = code
    return _hash(rename_targets(part, class_name)), _hash(rename_targets(part, earlier_name))


def _hash(part: dict[str, Any]) -> str:
    text = json.dumps(part, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
