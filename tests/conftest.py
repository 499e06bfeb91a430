"""Fixtures that every test file may use."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real small inputs made by others; the test is skipped where it is missing."""
    if not SHARED.is_dir():
        pytest.skip(f"real inputs are not here: {SHARED}")
    return SHARED
