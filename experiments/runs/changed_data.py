"""Data that changed after a run had read them: told by size and time first, and only then by checksum."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.runs import provenance
from experiments.runs.checksums import DataFile
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import is_regular


def stamps_of(files: Mapping[str, DataFile]) -> dict[str, dict[str, Any]]:
    """Return path, size and time of change of each file of a run's data, and what its checksum takes."""
    return {name: _stamp(file) for name, file in files.items()}


def refuse_changed(run: Run) -> None:
    """Refuse to take the results of a run, or to go on with it, where its data are no longer what they were.

    A file that is gone has not changed: the results remain those of what it was.

    Raises:
        InputError: a file has other content than the run read.
    """
    record = provenance.read(run.folder) or {}
    stamps, checksums = record.get("files"), record.get("data")
    if not isinstance(stamps, dict) or not isinstance(checksums, dict):
        return
    for name, stamp in stamps.items():
        file = _file(stamp)
        if file is None or _stamp(file) == stamp:
            continue
        then, now = checksums.get(name), file.checksum()
        if then != now:
            done = "finished" if run.metrics is not None else "begun"
            raise InputError(
                f"{file.path}: the file has changed since {run.folder} was {done} with it ({_difference(then, now)}); "
                "overwrite=true starts over with the file as it is, name=OTHER makes another run beside that one"
            )


def _stamp(file: DataFile) -> dict[str, Any]:
    found = file.path.stat()
    return {
        "path": str(file.path),
        "bytes": found.st_size,
        "modified_ns": found.st_mtime_ns,
        "n_sampled": file.n_sampled,
    }


def _file(stamp: Any) -> DataFile | None:
    """Return the file of a stamp; None: it is gone, or no file that could be read to its end."""
    if not isinstance(stamp, dict) or not isinstance(stamp.get("path"), str) or not is_regular(stamp["path"]):
        return None
    n_sampled = stamp.get("n_sampled")
    return DataFile(Path(stamp["path"]), n_sampled if isinstance(n_sampled, int) else None)


def _difference(then: Any, now: dict[str, Any]) -> str:
    bytes_then = then.get("bytes") if isinstance(then, dict) else None
    if bytes_then != now["bytes"]:
        return f"{bytes_then} bytes then, {now['bytes']} bytes now"
    return f"still {now['bytes']} bytes, with other content"
