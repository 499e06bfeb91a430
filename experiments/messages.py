"""Errors as one line."""

import difflib
import re
from dataclasses import fields

from experiments.schema import SCHEMAS
from lightning_modules.errors import InputError

# What Hydra and OmegaConf add to their messages, and nobody needs.
NOISE = (r"full_key: \S+", r"(object|reference)_type=\S+", "To append [^;]*", "Config search path.*")


def one_line(error: BaseException) -> str:
    """Say in one line what went wrong.

    Args:
        error: ours, Hydra's, or an unexpected one.

    Returns:
        For an :class:`InputError` its message; for Hydra's and OmegaConf's what they say, with the full key
        first; for others also their type, and how to see the traceback.
    """
    chain = _chain(error)
    for part in chain:  # Hydra wraps what the parts that it builds raise
        if isinstance(part, InputError):
            return _on_one_line(part)
    text = "; ".join(dict.fromkeys(_on_one_line(part) for part in chain if str(part)))
    module = type(error).__module__.partition(".")[0]
    if module in ("hydra", "omegaconf"):
        key = re.search(r"full_key: (\S+)", text)
        text = re.sub(rf"\s*({'|'.join(NOISE)})", "", text)
        text = re.sub(r"(; )+$", "", text).replace(".; Key", "; key")
        if text.startswith("Could not override 'exp'"):
            return "exp: write +exp=NAME, with a plus; `python run.py --help` lists the names"
        return f"{key[1]}: {text}{_nearest(key[1], text)}" if key else text
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows where)"


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _nearest(full_key: str, text: str) -> str:
    """Name the valid key of the same node that a misspelt one resembles."""
    node = re.search(r"not in '(\w+)'", text)
    schemas = [schema for schema in SCHEMAS.values() if node and schema.__name__ == node[1]]
    known = [f.name for schema in schemas for f in fields(schema)]
    found = difflib.get_close_matches(full_key.rpartition(".")[2], known, n=1)
    return f" Did you mean {found[0]}?" if found else ""


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the ones that caused it."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain
