"""metrics.json: the final numbers of a run. It is written last: where it is, the run is finished."""

import json
import os
from pathlib import Path
from typing import Any

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_bytes

_METRIC = (int, float, str, bool, type(None))


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """Return the final numbers in a run's folder; None while it is not finished.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / "metrics.json"
    if not os.path.lexists(path):
        return None
    content = read_bytes(path, "the metrics of a run")
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not valid JSON; delete the file to have it made again") from None
    if not isinstance(found, dict) or not all(isinstance(value, _METRIC) for value in found.values()):
        raise InputError(f"{path}: expected names and numbers alone; delete the file to have it made again")
    return found
