"""Files that several processes want, on any machine: one makes them, and the others wait for it.

Nothing relies on that for what is in the files: each writes under a name of its own, and renames what is whole.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import SoftFileLease

from lightning_modules.files.atomic import UNFINISHED

# A file is a lease as long as it is touched, so it works on every file system that a cluster's nodes share;
# flock does not. Who was killed on another machine is known to be gone after this time, on this machine at once.
LEASE_S, BEAT_S = 60.0, 15.0


def lease(path: Path, if_lost: Callable[[Any], None] | None = None) -> SoftFileLease:
    """Return a lease, to be held in a ``with`` statement: whoever wants it, too, waits.

    Args:
        path: of its file, in a folder that exists.
        if_lost: called, in another thread, when the holder was frozen for so long that somebody else took over.
    """
    return SoftFileLease(path, lease_duration=LEASE_S, heartbeat_interval=BEAT_S, on_compromise=if_lost)


def lease_to_make(path: Path) -> SoftFileLease:
    """Return the lease of a file or folder that is to be made; its folder exists."""
    return lease(path.with_suffix(".lease"))


def remove_unfinished(path: Path) -> None:
    """Remove what killed processes left of a file or folder; to be called under its lease."""
    for left in path.parent.glob(f"{UNFINISHED}{path.stem}-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)
