"""What a disk refuses is told in one line, as a wrong file is."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_modules.errors import InputError

REFUSED = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENAMETOOLONG")
    if hasattr(errno, name)
}

# Of torch, when what it writes does not fit: it loses the system's own reason.
TORCH_SIGNS = ("PytorchStreamWriter", "inline_container", "iostream error")


@contextmanager
def disk_errors_as_input_errors(folder: Path) -> Iterator[None]:
    """Turn what a full, read-only or broken disk answers into an InputError.

    Args:
        folder: named where the error does not name a file.

    Raises:
        InputError: names the file, or the folder, and what was refused.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise InputError(_line(error.filename or folder, error.strerror or "")) from error
    except RuntimeError as error:  # torch's way of saying that a checkpoint could not be written
        if not any(sign in str(error) for sign in TORCH_SIGNS):
            raise
        raise InputError(_line(folder, "a checkpoint could not be written")) from error


def _line(path: object, reason: str) -> str:
    return (
        f"{path}: cannot be read or written ({reason}); make room or mend the permissions, and the same command "
        "continues from the last checkpoint"
    )
