"""log.csv: one row of losses and times for each epoch."""

import csv
import math
from pathlib import Path


def read_log(path: Path) -> list[dict[str, float]]:
    """Read log.csv; what is missing or no number is left out."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error):
        return []
    return [{key: number for key, text in row.items() if (number := _number(text)) is not None} for row in rows]


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
