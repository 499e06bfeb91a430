"""Text of a YAML file that can be parsed in little time and memory."""

from pathlib import Path
from typing import Any

import yaml

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes

SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MOST_BYTES, MOST_BRACKETS = 1 << 16, 500  # of brackets, open ones take PyYAML a time that grows with their square


def read_yaml(path: Path, expected: str) -> Any:
    """Read a YAML file of plain values, in little time and memory.

    Args:
        path: the file.
        expected: what it should be, for the message.

    Raises:
        InputError: missing, no regular file, too large, or no YAML of plain values.
    """
    content = read_bytes(path, expected)
    try:
        return yaml.load(checked_text(path, content), SafeLoader)
    except InputError:
        raise
    except Exception as error:  # YAML's are of many kinds, and RecursionError is none of them
        raise InputError(
            f"{path}: cannot be read ({' '.join(str(error).split())[:300]}); expected {expected}"
        ) from None


def checked_text(path: Path, content: bytes) -> str:
    """Return the text of a YAML file that can be parsed in little time and memory.

    Raises:
        InputError: it is too large.
        ValueError: it is no text, or its structure is none of a configuration.
    """
    if len(content) > MOST_BYTES:
        raise InputError(f"{path}: {len(content):,} bytes, expected the configuration of a run, at most {MOST_BYTES:,}")
    text = content.decode()
    if text.count("[") + text.count("{") > MOST_BRACKETS:
        raise ValueError(f"more than {MOST_BRACKETS} lists and nodes, expected plain values")
    # A few lines of aliases of aliases unfold to any size; a run's configuration has none.
    if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
        raise ValueError("it has aliases, expected plain values")
    return text
