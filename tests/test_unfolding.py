"""A small file asks for no more memory or time than its own size justifies."""

import pickle
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from experiments.audit.model import read_state
from experiments.report.capacity import encoder_weights
from experiments.runs.stored_results import read_weights
from lightning_modules.errors import InputError
from lightning_modules.files.pickle_sizes import refuse_false_sizes
from lightning_modules.files.regular_files import regular_file
from lightning_modules.files.safe_numpy import load_npy, load_npz
from lightning_modules.files.safe_pickle import load_arrays
from tests.hostile import call
from tests.particle_sets import ctf, dump, rotations, shifts


@pytest.fixture(autouse=True)
def _in_a_moment():
    started = time.monotonic()
    yield
    assert time.monotonic() - started < 20


# Tuples of the same tuple twice, nested 60 deep: small to write, endless to hash.
SHARED = b"K\x01" + b"2\x86" * 60


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}" + SHARED + b"K\x02s.",
        b"\x80\x04\x8f(" + SHARED + b"\x90.",
        b"\x80\x04(" + SHARED + b"\x91.",
        b"\x80\x02}K\x01q\x01" + b"h\x01h\x01\x86q\x01" * 60 + b"h\x01K\x02s.",
    ],
    ids=["a key", "in a set", "in a frozen set", "by the memo"],
)
def test_tuples_that_take_for_ever_to_hash_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "p.pkl").write_bytes(content)
    with pytest.raises(InputError, match=r"p\.pkl: found \d+ bytes that are no whole pickle \(tuples that unfold"):
        load_arrays(tmp_path / "p.pkl")


SOUND: list[Any] = [
    (rotations(), shifts()),
    ctf(),
    [np.arange(3)] * 100,
    {"a": (1, (2, (3, np.ones(2)))), "b": [1.5, None, True]},
    list(range(10_000)),
    {1, 2, 3},
    np.float32(2),
    [(i, i + 1) for i in range(1000)],
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("which", range(len(SOUND)))
def test_sound_pickles_of_every_protocol_are_read(tmp_path: Path, protocol: int, which: int) -> None:
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(SOUND[which], protocol))
    assert pickle.dumps(load_arrays(tmp_path / "p.pkl")) is not None
    with (tmp_path / "p.pkl").open("rb") as file:
        refuse_false_sizes(file)


def test_a_type_of_a_million_parts_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "p.pkl").write_bytes(call("numpy dtype", "i4," * 1_000_000, False, True))
    with pytest.raises(InputError, match=r"an array of i4,i4,i4,i4,i4,i\.\.\., not of numbers"):
        load_arrays(tmp_path / "p.pkl")
    header = f"{{'descr': '{'i4,' * 1_000_000}', 'fortran_order': False, 'shape': (1,), }}\n".encode()
    (tmp_path / "i.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header + bytes(100))
    with pytest.raises(InputError, match=r"i\.npy: damaged"):
        load_npy(tmp_path / "i.npy")


HOLES = 200 * 10**9


@pytest.mark.parametrize("name", ["p.pkl", "i.npy", "l.npz", "last.ckpt", "log.csv"])
def test_a_file_of_holes_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(b"\x93NUMPY\x01\x00" if name == "i.npy" else b"\x80\x02")
        file.truncate(HOLES)
    readers = {"p.pkl": load_arrays, "i.npy": load_npy, "l.npz": load_npz, "last.ckpt": read_weights}
    with pytest.raises(InputError, match=rf"{name}: {HOLES:,} bytes, of which [\d,]+ are stored and the rest is holes"):
        readers.get(name, lambda path: regular_file(path, "a log"))(path)


def test_a_file_with_some_holes_is_read(tmp_path: Path) -> None:
    with (tmp_path / "i.npy").open("wb") as file:
        np.save(file, np.zeros(1_000_000))
    assert load_npy(tmp_path / "i.npy").shape == (1_000_000,)
    dump(tmp_path / "c.pkl", ctf())
    regular_file(tmp_path / "c.pkl", "CTF")


EXPANDING = {
    "one number, repeated": {"a": torch.ones(1).expand(10**9, 3)},
    "rows that overlap": {"a": torch.ones(1000).as_strided((900, 100), (1, 1))},
    "the same numbers many times": dict(zip(map(str, range(50)), [torch.ones(1000)] * 50, strict=True)),
}


@pytest.mark.parametrize("weights", EXPANDING.values(), ids=EXPANDING)
def test_tensors_that_hold_more_than_their_file_are_refused(tmp_path: Path, weights: dict[str, torch.Tensor]) -> None:
    torch.save({"state_dict": weights, "model_state_dict": weights}, tmp_path / "last.ckpt")
    for read in (read_weights, read_state):
        with pytest.raises(InputError, match=r"last\.ckpt: .*tensors of [\d,]+ bytes in a file of"):
            read(tmp_path / "last.ckpt")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "last.ckpt").rename(tmp_path / "checkpoints" / "last.ckpt")
    from tests.hostile import config_yaml

    config_yaml(tmp_path / "config.yaml")
    with pytest.raises(InputError, match=r"tensors of [\d,]+ bytes in a file of"):
        encoder_weights(tmp_path)
