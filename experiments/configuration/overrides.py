"""From a configuration back to the command line that makes it."""

import functools
import re
import shlex
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.compose import CONF_DIR, compose, data_choice
from lightning_modules.errors import InputError

# Where results go, what is shown, and what it runs on decide no number.
NOT_DECISIVE = (
    "logger", "paths", "overwrite", "trainer.accelerator", "trainer.devices", "trainer.capture", "trainer.native",
)  # fmt: skip
NOT_SHOWN = (
    *NOT_DECISIVE, "trainer.enable_progress_bar", "trainer.checkpoint_every_s", "data.cache_dir", "data.cache_images",
)  # fmt: skip
# Parts of a configuration that are chosen as a whole, outermost first.
SLOTS = ("task", "task.search", "encoder_input", "metadata", "latents", "latents.init", "decoder")
PLAIN = re.compile(r"[\w./+:-]+")
MEANS_SOMETHING_ELSE = re.compile(r"(?i)(true|false|null|nan|[+-]?inf|[+-]?[\d.][\d_.]*(e[+-]?\d+)?)")


def overrides_of(config: dict[str, Any]) -> list[str]:
    """Return the shortest overrides that come to a configuration.

    Args:
        config: of a run, plain and resolved.

    Returns:
        ``+exp=...`` first, then what differs from it.

    Raises:
        InputError: the configuration is not one of this suite as it is now.
    """
    try:
        chosen = _experiment(config)
        base = _composed(*chosen)
        for slot in SLOTS:
            target, standard = _at(config, slot), OmegaConf.select(base, slot)
            if isinstance(target, dict) and _target(target) != _target(standard):
                chosen = [*chosen, f"{slot.replace('.', '/')}={_choice(slot, target)}"]
                base = _composed(*chosen)
        return [*chosen, *_leaves(base, config)]
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"no overrides come to this configuration ({' '.join(str(error).split())[:200]})") from None


def command_line(overrides: list[str]) -> str:
    """Return the command, quoted for a shell."""
    return shlex.join(["python", "run.py", *overrides])


def _experiment(config: dict[str, Any]) -> list[str]:
    name, data = str(config["name"]), str(config["data"]["name"])
    known = (CONF_DIR / "exp" / f"{name}.yaml").is_file() and re.fullmatch(r"\w+", name)
    chosen = [f"+exp={name}"] if known else [f"name={_text(name)}"]
    choice = data_choice(OmegaConf.create({"data": {"name": data}}))
    if OmegaConf.select(_composed(*chosen), "data.name") != data:
        chosen.insert(0, f"data={choice}")
    return chosen


@functools.lru_cache(maxsize=256)
def _composed(*overrides: str) -> DictConfig:
    return compose(*overrides)


def _leaves(base: DictConfig, config: dict[str, Any]) -> Iterator[str]:
    """Yield an override for each value that differs, unless it follows from another one."""
    for key, value in _flat(config):
        if key.startswith(NOT_SHOWN) or key.endswith(("_target_", "_partial_")) or key == "name":
            continue
        parent, _, leaf = key.rpartition(".")
        node = OmegaConf.select(base, parent) if parent else base
        if not isinstance(node, DictConfig) or leaf not in set(node.keys()):
            continue  # a key that the suite no longer has cannot be given
        elif OmegaConf.is_interpolation(node, leaf):
            continue
        elif OmegaConf.is_missing(node, leaf) or not _same(node[leaf], value):
            yield f"{key}={_text(value)}"


def _same(standard: Any, value: Any) -> bool:
    plain = getattr(standard, "name", standard)  # an enum's
    if isinstance(plain, (int, float)) and isinstance(value, (int, float)):
        return bool(plain == value)
    if OmegaConf.is_config(plain):
        plain = OmegaConf.to_container(plain)
    return bool(plain == value)


def _flat(node: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in node.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _at(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for name in key.split("."):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _target(node: Any) -> Any:
    return node.get("_target_") if isinstance(node, (dict, DictConfig)) else None


def _choice(slot: str, target: dict[str, Any]) -> str:
    """Name the file of a slot that builds what a configuration has there."""
    folder = CONF_DIR / slot.replace(".", "/")
    for path in sorted(folder.glob("*.yaml")):
        if _target(OmegaConf.load(path)) == _target(target):
            return path.stem
    raise InputError(f"{slot}: no file of {folder} builds {_target(target)}")


def _text(value: Any) -> str:
    """Write a value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_text, value))}]"
    if not isinstance(value, str):
        return repr(value)
    if PLAIN.fullmatch(value) and not MEANS_SOMETHING_ELSE.fullmatch(value):
        return value
    # Only a backslash before a quote, or at the end, needs one of its own.
    escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
    return f"'{escaped}'"
