"""A run's config.yaml, which may come from somebody else: read without building or running what it names."""

import functools
import re
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import CONF_DIR
from experiments.configuration.targets import current_name, rename_targets
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes
from lightning_modules.files.safe_yaml import checked_text

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
    return config


def _refuse_what_is_not_plain(node: Any) -> None:
    """Refuse interpolations, foreign targets, and what else would change what Hydra builds.

    A run's configuration is stored resolved, so it holds no interpolation. One could name a resolver by another
    interpolation, and no pattern of text finds all of those; therefore none is let through, neither in a key.
    """
    if isinstance(node, str) and "${" in node:
        raise ValueError(f"{node} would be computed, expected plain values")
    if isinstance(node, list):
        for child in node:
            _refuse_what_is_not_plain(child)
    if not isinstance(node, dict):
        return
    target = node.get("_target_")
    if target is not None and target not in known_targets():
        raise ValueError(f"it would build {target}, which no file of conf/ names; add it there if you trust it")
    if foreign := [key for key in node if str(key).startswith("_") and key not in BUILT_BY]:
        raise ValueError(
            f"it has the key {foreign[0]}, which would change what is built; expected {', '.join(BUILT_BY)}"
        )
    for key, child in node.items():
        _refuse_what_is_not_plain(key)
        _refuse_what_is_not_plain(child)


@functools.cache
def known_targets() -> frozenset[str]:
    """Return everything that conf/ lets Hydra build, except what Hydra's own parts are."""
    files = [path for path in CONF_DIR.rglob("*.yaml") if CONF_DIR / "hydra" not in path.parents]
    return frozenset(
        name for path in files for name in re.findall(r"_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"))
    )
