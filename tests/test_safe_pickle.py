"""Arrays come out of pickles as they went in; anything else is refused and does not run."""

import collections
import pickle
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.files.safe_pickle import load_arrays

ARRAYS: list[Any] = [
    np.arange(6, dtype=np.float32).reshape(2, 3),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(4, dtype=">f8"),
    np.array(["a", "bc"]),
    np.array([True, False]),
    np.arange(5)[::2],
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: f"{array.dtype}")
def test_arrays_come_back(tmp_path: Path, array: np.ndarray, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps((array, [array], {"a": array}), protocol=protocol))
    first, (second,), named = load_arrays(path)
    for loaded in (first, second, named["a"]):
        # numpy itself brings foreign bytes into the machine's order where the protocol is old.
        assert loaded.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(loaded, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "plain", [[1, 2], {3, 4}, range(5), np.float64(2.5), np.int32(7), None, "text", b"bytes", slice(1, 2)]
)
def test_plain_values_come_back(tmp_path: Path, plain: Any, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(plain, protocol=protocol))
    assert load_arrays(path) == plain


@pytest.mark.parametrize("core", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_pickles_of_numpy_1_and_2_are_read(tmp_path: Path, core: str) -> None:
    written = pickle.dumps(np.arange(3.0), protocol=2)
    own = np.zeros(1).__reduce__()[0].__module__
    path = tmp_path / "a.pkl"
    path.write_bytes(written.replace(own.encode(), core.encode()))
    np.testing.assert_array_equal(load_arrays(path), np.arange(3.0))


@pytest.mark.parametrize("name", ["toy_rot_trans", "test_ctf", "relion31_poses", "relion31_ctf"])
def test_cryodrgns_own_pickles_are_read(shared_data: Path, name: str) -> None:
    path = shared_data / "particles" / f"{name}.pkl"
    with path.open("rb") as file:
        expected = pickle.load(file)
    for actual, array in zip(load_arrays(path), expected, strict=True):
        np.testing.assert_array_equal(actual, array)


class Attack:
    """Would create a file when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = (function, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("inside_an_array", [False, True])
def test_code_in_a_pickle_does_not_run(tmp_path: Path, protocol: int, inside_an_array: bool) -> None:
    trace, path = tmp_path / "trace", tmp_path / "poses.pkl"
    attack: Any = Attack(subprocess.check_call, ["touch", str(trace)])
    if inside_an_array:
        attack = np.array([attack, None], dtype=object)
    path.write_bytes(pickle.dumps(attack, protocol=protocol))
    with pytest.raises(InputError, match=r"poses\.pkl: holds (subprocess|commands)\.check_call"):
        load_arrays(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists(), "the attack is real"


def test_methods_cannot_be_reached_through_an_admitted_class(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93.")
    with pytest.raises(InputError, match=r"numpy\.ndarray\.tofile"):
        load_arrays(path)


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (torch.zeros(2), r"torch.*\.numpy\(\)"),
        (collections.OrderedDict(a=1), r"collections\.OrderedDict"),
        (Path("x"), r"pathlib"),
    ],
)
def test_other_objects_are_named(tmp_path: Path, value: Any, named: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(value))
    with pytest.raises(InputError, match=named):
        load_arrays(path)


def test_damaged_files_are_one_clear_line(tmp_path: Path) -> None:
    whole = pickle.dumps((np.zeros((4, 3, 3)), np.zeros((4, 2))))
    path = tmp_path / "poses.pkl"
    damaged = [whole[:cut] for cut in range(len(whole))] + [b"not a pickle", b"\x80\x04.", b"MAP " * 300]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(InputError) as raised:
            load_arrays(path)
        assert str(raised.value).startswith(str(path))
        assert "\n" not in str(raised.value)
    with pytest.raises(InputError, match="missing"):
        load_arrays(tmp_path / "missing.pkl")
