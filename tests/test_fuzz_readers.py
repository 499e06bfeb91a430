"""Every reader gives a value or one clear line, whatever is in the file.

``python -m tests.fuzz KIND --seconds 60`` tries far more, guided by coverage.
"""

import tempfile
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from tests.hostile import KINDS
from tests.mutations import mutated

N_EXAMPLES = 60


def outcome(kind: str, content: bytes, folder: Path) -> str:
    """Read a file with some content; return "value", or the line with which it is refused.

    Raises:
        AssertionError: the line is none, or does not name a file.
        Exception: the reader let it through.
    """
    (folder / kind).write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            KINDS[kind].read(folder / kind)
    except InputError as error:
        line = str(error)
        assert "\n" not in line and len(line) < 3000, line
        assert str(folder) in line or kind in line, line
        return line
    return "value"


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_read_or_refused(kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        KINDS[kind].make(folder / kind)
        sound = (folder / kind).read_bytes()
        assert outcome(kind, sound, folder) == "value"

        @settings(
            max_examples=N_EXAMPLES,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(seed=st.integers(0, 2**32))
        def try_one(seed: int) -> None:
            outcome(kind, mutated(sound, seed), folder)

        try_one()


@pytest.mark.parametrize("kind", ["p.pkl", "i.pkl", "p.npz", "i.npy", "x.txt", "config.yaml", "metrics.json", "x.star"])
def test_any_bytes_are_read_or_refused(kind: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        KINDS[kind].make(folder / kind)

        @settings(max_examples=N_EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
        def try_one(content: bytes) -> None:
            outcome(kind, content, folder)

        try_one()
