"""Composing a configuration as ``run.py`` does."""

from functools import cache
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from experiments.configuration import schema

REPOSITORY = Path(__file__).resolve().parents[2]
CONF_DIR = REPOSITORY / "conf"


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


def config_dirs() -> list[Path]:
    """Return the folders of configuration files that Hydra was given: conf/, and the user's own by --config-dir."""
    if not GlobalHydra.instance().is_initialized():
        return [CONF_DIR]
    sources = GlobalHydra.instance().config_loader().get_sources()
    return list(dict.fromkeys([CONF_DIR, *(Path(each.path) for each in sources if each.scheme() == "file")]))


@cache
def composed_once(*overrides: str) -> DictConfig:
    """Compose once what a sweep's runs ask for over and over; not to be changed."""
    return compose(*overrides)


def data_choice(config: DictConfig) -> str:
    """Return the file of conf/data that a configuration was made with."""
    return str(config.data.name) if (CONF_DIR / "data" / f"{config.data.name}.yaml").is_file() else "cryodrgn"


def to_dict(config: DictConfig) -> dict[str, Any]:
    """Return a configuration as plain dictionaries, lists, numbers and strings."""
    plain = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
