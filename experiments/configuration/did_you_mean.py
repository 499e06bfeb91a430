"""The valid name that a misspelt one resembles."""

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from experiments.configuration.schema import SCHEMAS, names_of


def did_you_mean(full_key: str, text: str) -> str:
    """Return what to add to Hydra's message about a key that does not exist; empty where nothing is alike.

    Args:
        full_key: as in ``trainer.max_epoch``, or ``latents/int`` for a group.
        text: the message; it names the class of the node where the key is not.
    """
    if "/" in full_key:
        return _question(closest(full_key, _groups()))
    leaf = full_key.rpartition(".")[2]
    node = re.search(r"not in '(\w+)'", text)
    beside = [name for schema in SCHEMAS.values() if node and schema.__name__ == node[1] for name in names_of(schema)]
    if beside and (found := closest(leaf, beside)):
        return _question(found)
    if not beside or node is None or node[1] != "Config":
        return ""
    elsewhere = list(_keys())  # a key of a part, given without the part's name
    found = closest(leaf, {key.rpartition(".")[2] for key in elsewhere})
    return _question(next((key for key in elsewhere if found and key.endswith(f".{found}")), None))


def choice_meant(text: str) -> str:
    """Return what to add to Hydra's message about a choice that does not exist, which lists those that do."""
    found = re.search(r"Could not find '[^']*?([^'/]+)' Available options in '[^']*': ([\w \-]+)", text)
    return _question(closest(found[1], found[2].split())) if found else ""


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that one resembles most; None where none is alike."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1)), None)


def _question(name: str | None) -> str:
    return f" Did you mean {name}?" if name else ""


def _groups() -> list[str]:
    from experiments.configuration.compose import CONF_DIR

    return [str(path.relative_to(CONF_DIR)) for path in CONF_DIR.rglob("*") if path.is_dir()]


def _keys() -> Iterator[str]:
    """Yield every key of the standard configuration, as on the command line."""
    from experiments.configuration.compose import compose

    def below(node: Any, prefix: str) -> Iterator[str]:
        for name in node:
            yield f"{prefix}{name}"
            child = node._get_node(name)
            if hasattr(child, "_get_node") and not child._is_interpolation() and not child._is_missing():
                yield from below(child, f"{prefix}{name}.")

    yield from below(compose(), "")
