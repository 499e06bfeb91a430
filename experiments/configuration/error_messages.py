"""Errors as one line."""

import functools
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

from experiments.machine.terminal import any_terminal
from lightning_modules.errors import InputError

Arguments = ParamSpec("Arguments")
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
    if (quoted := _how_to_quote(error, text)) is not None:
        return quoted
    if text.startswith("Config group override must be a string") and (override := _override_at(error)) is not None:
        return f"{override}: expected the name of a choice; `python run.py --help` lists them"
    if module in ("hydra", "omegaconf"):
        from experiments.configuration.did_you_mean import choice_meant, did_you_mean

        key = re.search(r"full_key: (\S+)", text)
        text = re.sub(rf"\s*({'|'.join(NOISE)})", "", text)
        text = re.sub(r"(; )+$", "", text).replace(".; Key", "; key")
        if text.startswith("Could not override 'exp'"):
            return "exp: write +exp=NAME, with a plus; `python run.py --help` lists the names"
        return f"{key[1]}: {text}{did_you_mean(key[1], text)}" if key else text + choice_meant(text)
    return f"{type(error).__name__}: {text} (HYDRA_FULL_ERROR=1 shows where)"


def _how_to_quote(error: BaseException, text: str) -> str | None:
    """Say how a value is written that Hydra's grammar cannot read; None: the error is about something else."""
    from hydra.errors import OverrideParseException

    ambiguous = re.match(r"Ambiguous value for argument '(.*?)' 1\.", text)
    if isinstance(error, OverrideParseException):
        override, found = error.override, "the value has characters that Hydra's grammar uses"
    elif ambiguous is not None:
        override, found = ambiguous[1], "several values were found; -m makes a run of each, [a,b] is a list"
    else:
        return None
    key, is_given, value = override.partition("=")
    if not is_given:
        return f"{override}: expected KEY=VALUE"
    # Within quotes a backslash counts before a quote alone.
    escaped = re.sub(r'(\\*)("|$)', lambda found: 2 * found[1] + found[2].replace('"', '\\"'), value)
    quoted = shlex.quote(f'{key}="{escaped}"')
    return f"{override}: {found}; to take it as it is, write it in quotes: {quoted}"


def _override_at(error: BaseException) -> str | None:
    """Return the override that Hydra was at when it failed, where its message does not name it."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        override = getattr(frame.f_locals.get("override"), "input_line", None)
        if override is not None:
            return str(override)
    return None


def command(main: Callable[Arguments, int]) -> Callable[Arguments, int]:
    """Make of what a command raises its one line and exit code 1; with HYDRA_FULL_ERROR=1 the traceback, as run.py.

    It can print to any terminal.

    Args:
        main: returns an exit code.
    """

    @functools.wraps(main)
    def told(*args: Arguments.args, **kwargs: Arguments.kwargs) -> int:
        any_terminal()
        try:
            return main(*args, **kwargs)
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") == "1":
                raise
            print(one_line(error), file=sys.stderr)
            return 1

    return told


def _on_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _chain(error: BaseException) -> list[BaseException]:
    """Return an error and the ones that caused it."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__
    return chain
