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
        config = OmegaConf.create(checked_text(path, content))
        if not isinstance(config, DictConfig):
            raise ValueError(f"found a {type(config).__name__}, expected keys and values")
        plain = rename_targets(OmegaConf.to_container(config, resolve=False), current_name)
        _refuse_foreign_targets(plain)
        config = OmegaConf.create(plain)
    except InputError:
        raise
    except Exception as error:  # YAML's and OmegaConf's are of many kinds, and RecursionError is none of them
        raise InputError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from None
    if missing := [key for key in NEEDED if key not in config]:
        raise InputError(f"{path}: no {', '.join(missing)} in it, expected the configuration of a run of this suite")
    return config


def _refuse_foreign_targets(node: Any) -> None:
    if isinstance(node, dict):
        target = node.get("_target_")
        if target is not None and target not in known_targets():
            raise ValueError(f"it would build {target}, which no file of conf/ names; add it there if you trust it")
    if isinstance(node, str) and re.search(r"\$\{\s*[\w.]+\s*:", node):
        raise ValueError(f"{node} would be computed, expected plain values")
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _refuse_foreign_targets(child)


@functools.cache
def known_targets() -> frozenset[str]:
    """Return everything that conf/ lets Hydra build, except what Hydra's own parts are."""
    files = [path for path in CONF_DIR.rglob("*.yaml") if CONF_DIR / "hydra" not in path.parents]
    return frozenset(
        name for path in files for name in re.findall(r"_target_:\s*([\w.]+)", path.read_text(encoding="utf-8"))
    )
