"""Files that can be opened without waiting for anybody: no folder, no pipe, no device."""

import errno
import os
import stat
import sys
from pathlib import Path

from lightning_modules.errors import InputError

# A file may be as large as this, or so many times what of it is stored.
UNFOLDED_BYTES, UNFOLDED_TIMES = 1 << 28, 100
MAX_BYTES = 1 << 26  # of a text file in a run's folder: a log of a hundred thousand epochs is smaller
MAX_TABLE_BYTES = 1 << 32  # of a table of particles: ten million rows


def is_regular(path: str | Path) -> bool:
    """Tell whether there is a regular file, or a link to one; a name that no file can have is none."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  Path.is_file raises where a name is too long
    except (OSError, ValueError):
        return False


def regular_file(path: str | Path, expected: str) -> Path:
    """Return the path of a regular file that may be read. Opening a pipe would wait for ever.

    Args:
        path: what the user named.
        expected: what it should be, for the message.

    Raises:
        InputError: there is none, it is something else than a file, or it may not be read.
    """
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116
        if not stat.S_ISREG(mode):
            raise InputError(f"{path}: found {_kind(mode)}, expected {expected}")
        with Path(path).open("rb") as file:
            size, stored = _sizes(file.fileno())
            if size > max(UNFOLDED_BYTES, UNFOLDED_TIMES * stored):
                raise InputError(
                    f"{path}: {size:,} bytes, of which {stored:,} are stored and the rest is holes; expected {expected}"
                )
            return Path(path)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file, it is missing; expected {expected}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); expected {expected}") from None


def _sizes(descriptor: int) -> tuple[int, int]:
    """Return the size of a file, and how many bytes of it are stored; a file of holes takes no room on the disk."""
    found = os.fstat(descriptor)
    size, stored = found.st_size, 512 * getattr(found, "st_blocks", found.st_size)
    if size <= max(UNFOLDED_BYTES, UNFOLDED_TIMES * stored) or not hasattr(os, "SEEK_DATA"):
        return size, size
    stored = end = 0  # some file systems count no blocks: ask for the data themselves
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError:  # nothing but a hole is left
            break
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        stored += end - start
    return size, stored


def read_bytes(path: str | Path, expected: str, at_most: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file of bounded size.

    Args:
        path: what the user named.
        expected: what it should be, for the message.
        at_most: bytes.

    Raises:
        InputError: as :func:`regular_file`, or it is larger.
    """
    try:
        with regular_file(path, expected).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(min(size, at_most) + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected {expected}") from None
    if len(content) > at_most:
        raise InputError(f"{path}: more than {at_most:,} bytes, expected {expected}")
    return content


def read_text(path: str | Path, expected: str, at_most: int = MAX_BYTES) -> str:
    """Return the text of a regular file in UTF-8; arguments and errors of :func:`read_bytes`, or it is no text."""
    try:
        return read_bytes(path, expected, at_most).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: no text in UTF-8, expected {expected}") from None


def read_end(path: str | Path, at_most: int = 1 << 20) -> str:
    """Return the last part of a regular text file, a log; empty where there is none that can be read."""
    try:
        with regular_file(path, "a log").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - at_most))
            return file.read(at_most).decode(errors="replace")
    except (InputError, OSError):
        return ""


def check_file(path: str | Path, suffixes: tuple[str, ...], key: str) -> Path:
    """Return the path of a readable file with one of the suffixes.

    Args:
        path: file that the user named.
        suffixes: those that the key takes.
        key: configuration key, for the message.

    Raises:
        InputError: no such file, a folder, another extension, or not readable.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        locale = sys.getfilesystemencoding()
        cure = "rename it" if locale == "utf-8" else f"set PYTHONUTF8=1 (file names are read as {locale} here)"
        raise InputError(f"{key}: {str(path)!a}: its name is not in UTF-8, expected one that is; {cure}") from None
    if path.suffix not in suffixes:
        raise InputError(f"{key}: {path} ends in {path.suffix or 'nothing'!r}, expected one of {', '.join(suffixes)}")
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(
                f"{key}: {path} cannot be read ({error.strerror}); expected a {path.suffix} file"
            ) from None
        raise InputError(f"{key}: no file {path}; check the path (relative ones start at {Path.cwd()})") from None
    if stat.S_ISDIR(mode):
        raise InputError(f"{key}: {path} is a folder, expected a {path.suffix} file")
    if not stat.S_ISREG(mode):
        raise InputError(f"{key}: {path} is a pipe or a device, expected a {path.suffix} file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{key}: {path} may not be read by you; mend its permissions")
    if path.stat().st_size == 0:
        raise InputError(f"{key}: {path} is empty, expected a {path.suffix} file; copy it again")
    return path


def _kind(mode: int) -> str:
    kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(mode), "a device")
