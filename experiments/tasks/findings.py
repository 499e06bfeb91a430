"""What verification says about a number: it holds, it does not, it cannot be checked, or it was not recomputed."""

import math
from typing import Any, NamedTuple

HOLDS, FAILS, UNKNOWN, NOT_RECOMPUTED = "holds", "DOES NOT HOLD", "cannot be checked", "not recomputed"
COLUMN = 1 + max(map(len, (HOLDS, FAILS, UNKNOWN, NOT_RECOMPUTED)))  # of the verdicts, when they are printed


class Finding(NamedTuple):
    """What came of one check.

    Attributes:
        what: was checked.
        verdict: one of the four above; only FAILS is a failure.
        found: the numbers.
    """

    what: str
    verdict: str
    found: str


def compare(what: str, stored: Any, recomputed: Any, tolerance: float) -> Finding:
    """Compare two values; a number may differ by a fraction of itself, and a value that is missing by nothing."""
    found = f"stored {stored}, recomputed {recomputed} (tolerance {tolerance:g})"
    numbers = isinstance(stored, int | float) and isinstance(recomputed, int | float)
    same = (
        math.isclose(stored, recomputed, rel_tol=tolerance, abs_tol=tolerance**2) if numbers else stored == recomputed
    )
    return Finding(what, HOLDS if same else FAILS, found)
