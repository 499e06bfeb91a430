"""log.csv: one row of losses and times for each epoch."""

import csv
import math
import os
from pathlib import Path

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import read_text

EXPECTED = "a row of losses for each epoch, as training writes them"
LOSS = "loss/total"


def read_log(path: Path) -> list[dict[str, float]]:
    """Read log.csv; what is missing of a row, or no number, is left out.

    Returns:
        A row for each epoch; none where there is no log, or nothing in it yet.

    Raises:
        InputError: it is no such file, or has other columns.
    """
    if not os.path.lexists(path):
        return []
    text = read_text(path, EXPECTED)
    try:
        table = csv.DictReader(text.splitlines())
        rows = list(table)
    except csv.Error as error:
        raise InputError(f"{path}: {error}; expected {EXPECTED}") from None
    if text.strip() and LOSS not in (table.fieldnames or ()):
        raise InputError(f"{path}: no column {LOSS}, expected {EXPECTED}")
    return [{key: number for key, text in row.items() if (number := _number(text)) is not None} for row in rows]


def _number(text: object) -> float | None:
    try:
        value = float(text) if isinstance(text, str) else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
