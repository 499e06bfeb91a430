"""A run's config.yaml, which may come from somebody else: read without building or running what it names."""

import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import config_dirs, to_dict
from experiments.configuration.safe_yaml import checked_text
from experiments.configuration.targets import current_name, rename_targets
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes

BUILT_BY = ("_target_", "_partial_")  # the only keys of Hydra's own that a run's configuration has
NEEDED = ("name", "seed", "data", "task", "latents", "trainer")


def read_config(path: Path) -> DictConfig:
    """Read the configuration of a run.

    Hydra builds whatever a ``_target_`` names, and any function of Python can be named: only those that conf/ names
    are let through. Your own parts belong there, too.

    Raises:
        InputError: missing, no configuration of this suite, too large, or it names something to build that conf/
            does not.
    """
    content = read_bytes(path, "the configuration of a run")
    try:
        found = OmegaConf.create(checked_text(path, content))
        if not isinstance(found, DictConfig):
            raise ValueError(f"found a {type(found).__name__}, expected keys and values")
        plain = rename_targets(OmegaConf.to_container(found, resolve=False), current_name)
        _refuse_what_is_not_plain(plain)
        config = OmegaConf.create(plain)
    except InputError:
        raise
    except Exception as error:  # YAML's and OmegaConf's are of many kinds, and RecursionError is none of them
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from None
    if missing := [key for key in NEEDED if key not in config]:
        raise InputError(f"{path}: no {', '.join(missing)} in it, expected the configuration of a run of this suite")
    for key in ("data", "task", "latents", "trainer"):
        if not isinstance(config[key], DictConfig):
            raise InputError(f"{path}: {key} is a {type(config[key]).__name__}, expected keys and values")
    return config


def _refuse_what_is_not_plain(node: Any, place: str = "") -> None:
    """Refuse interpolations, foreign targets, and what else would change what Hydra builds.

    A run's configuration is stored resolved, so it holds no interpolation. One could name a resolver by another
    interpolation, and no pattern of text finds all of those; therefore none is let through, neither in a key.
    """
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"{node} would be computed, expected plain values")
    if isinstance(node, list):
        for number, child in enumerate(node):
            _refuse_what_is_not_plain(child, f"{place}.{number}")
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None and not is_known(place, target):
        raise ValueError(
            f"it would build {target} as {place}, which no file of conf/{place.replace('.', '/')} names; add it there "
            "if you trust it"
        )
    if foreign := [key for key in node if str(key).startswith("_") and key not in BUILT_BY]:
        raise ValueError(
            f"it has the key {foreign[0]}, which would change what is built; expected {', '.join(BUILT_BY)}"
        )
    for key, child in node.items():
        _refuse_what_is_not_plain(key)
        _refuse_what_is_not_plain(child, f"{place}.{key}".removeprefix("."))


def refuse_unknown_targets(config: DictConfig) -> None:
    """Refuse a run whose stored configuration no later command would read, before any work is done for it.

    Args:
        config: checked.

    Raises:
        InputError: it names something to build that no configuration file does.
    """
    for place, target in _targets_in(to_dict(config)):
        if not is_known(place, target):
            group = place.replace(".", "/")
            raise InputError(
                f"{place}._target_={target}: no configuration file names it, and no command would read the run later; "
                f"write conf/{group}/mine.yaml with the line `_target_: {target}`, and choose it by {group}=mine"
            )


def _targets_in(node: Any, place: str = "") -> Iterator[tuple[str, str]]:
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in children:
        if name == "_target_" and child is not None:
            yield place, child
        yield from _targets_in(child, f"{place}.{name}".removeprefix("."))


def is_known(place: str, target: str) -> bool:
    """Tell whether conf/, or what was given by --config-dir, lets Hydra build something at a place.

    Args:
        place: a slot, as ``latents.init``; its choices are in conf/latents/init or, shared by several, in conf/init.
        target: the dotted name of a class.
    """
    groups = place.replace(".", "/"), place.rpartition(".")[2]
    return any(target in _named_in(folder).get(group, ()) for folder in config_dirs() for group in groups)


@functools.cache
def _named_in(folder: Path) -> dict[str, set[str]]:
    """Return what the files of each group of a folder let Hydra build."""
    found: dict[str, set[str]] = {}
    for path in folder.rglob("*.yaml"):
        named = re.findall(r"_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"))
        found.setdefault(path.parent.relative_to(folder).as_posix(), set()).update(named)
    return found
