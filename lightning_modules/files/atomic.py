"""Files that are whole or not there: written under another name, then renamed."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished-"  # what files are called while they are written


def write_atomically(path: Path, write: Callable[[Path], Any]) -> Path:
    """Write a file under another name, and give it its own when it is whole.

    Args:
        path: where it belongs.
        write: writes the file at the path that it is given.

    Returns:
        ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f"{UNFINISHED}{path.stem}-", suffix=path.suffix)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        write(unfinished)
        unfinished.chmod(0o666 & ~_umask())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def link_atomically(path: Path, other: Path) -> Path:
    """Give a file a second name, whoever had that before; copy it where the file system has no hard links.

    Args:
        path: the file.
        other: the name.

    Returns:
        ``other``.
    """

    def link(unfinished: Path) -> None:
        unfinished.unlink()
        try:
            os.link(path, unfinished)
        except OSError:
            shutil.copyfile(path, unfinished)

    return write_atomically(other, link)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
