"""A folder of the user's own for what was made once and is loaded later, code among it: nobody else can write there."""

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

NAME = "amortize-or-memorize"


def private_folder(name: str) -> Path | None:
    """Return a folder below the user's cache or, where that cannot be written, below the temporary folder.

    Args:
        name: of the folder, below the suite's own.

    Returns:
        It exists, belongs to this user, and only this user can read or write it; None: no such folder can be had.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / NAME
    shared = Path(tempfile.gettempdir()) / f"{NAME}-{os.getuid()}"
    for above in (cache, shared):
        with suppress(OSError):
            above.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder = above / name
            if _is_private(above):
                folder.mkdir(mode=0o700, exist_ok=True)
                if _is_private(folder):
                    return folder
    return None


def _is_private(folder: Path) -> bool:
    """Tell whether a folder is this user's and nobody else could ever write there; shut it for readers, too."""
    found = folder.lstat()
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if not is_own or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return False
    folder.chmod(0o700)
    return os.access(folder, os.W_OK | os.X_OK)
