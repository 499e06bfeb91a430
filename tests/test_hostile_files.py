"""Whatever a file holds, wherever it lies: a value, or one line that names it. Nothing in it runs; nothing hangs."""

import json
import os
import pickle
import re
import signal
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from tests.hostile import KINDS, Code, as_somebody, config_yaml
from tests.hostile_cases import CASES, latents
from tests.particle_sets import N, dump, rotations, shifts

MOST_MEMORY = 64 << 20  # bytes; every file here is far smaller


def fifo(path: Path, sound: bytes) -> None:
    os.mkfifo(path)


def link_loop(path: Path, sound: bytes) -> None:
    path.symlink_to(path.with_name("other"))
    path.with_name("other").symlink_to(path)


FAULTS: dict[str, Callable[[Path, bytes], Any]] = {
    "missing": lambda path, sound: None,
    "empty": lambda path, sound: path.write_bytes(b""),
    "half": lambda path, sound: path.write_bytes(sound[: len(sound) // 2]),
    "another format": lambda path, sound: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8),
    "only zeros": lambda path, sound: path.write_bytes(bytes(4096)),
    "a folder": lambda path, sound: path.mkdir(),
    "a pipe": fifo,
    "a loop of links": link_loop,
    "a link to nowhere": lambda path, sound: path.symlink_to(path.with_name("nowhere")),
    "a link to a device": lambda path, sound: path.symlink_to("/dev/zero"),
}  # fmt: skip
NO_ERROR = {("metrics.json", "missing")}  # the run is unfinished


@contextmanager
def bounded(seconds: int = 300) -> Iterator[None]:
    """Fail if a reader waits, or takes more memory than the file could be worth."""

    def too_long(*_: Any) -> None:
        pytest.fail(f"still reading after {seconds} s")

    former = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(seconds)
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


def refusal(kind: str, folder: Path) -> str:
    """Return the line with which a file is refused."""
    with bounded(), pytest.raises(InputError) as raised:
        KINDS[kind].read(folder / kind)
    line = str(raised.value)
    assert "\n" not in line and len(line) < 1000
    return line


@pytest.mark.parametrize("kind", KINDS)
def test_a_sound_file_of_each_kind_is_read(tmp_path: Path, kind: str) -> None:
    KINDS[kind].make(tmp_path / kind)
    with bounded():
        assert KINDS[kind].read(tmp_path / kind) is not None


@pytest.mark.parametrize(("kind", "fault"), [pair for pair in product(KINDS, FAULTS) if pair not in NO_ERROR])
def test_what_is_no_such_file_is_refused_in_one_line(tmp_path: Path, kind: str, fault: str) -> None:
    path = tmp_path / kind
    KINDS[kind].make(path)
    sound = path.read_bytes()
    path.unlink()
    FAULTS[fault](path, sound)
    line = refusal(kind, tmp_path)
    named = (kind, str(tmp_path)) if fault == "half" else (kind,) if kind != "config.yaml" else (str(tmp_path),)
    assert any(name in line for name in named), line


@pytest.mark.parametrize("case", CASES)
def test_hostile_content_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    kind, make, message = CASES[case]
    make(tmp_path / kind)
    line = refusal(kind, tmp_path)
    assert re.search(message, line), line
    assert kind in line or str(tmp_path) in line


def test_the_table_has_what_it_promises() -> None:
    assert len(CASES) >= 60 and len(KINDS) * len(FAULTS) >= 60


@pytest.mark.parametrize("kind", ["p.pkl", "c.pkl", "i.pkl", "last.ckpt"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_code_in_a_file_does_not_run(tmp_path: Path, kind: str, protocol: int) -> None:
    trace, path = tmp_path / "trace", tmp_path / kind
    if kind == "last.ckpt":
        torch.save({"state_dict": Code(trace)}, path, pickle_protocol=max(protocol, 2))
    else:
        path.write_bytes(pickle.dumps((rotations(), Code(trace)), protocol))
    assert kind in refusal(kind, tmp_path)
    assert not trace.exists()
    torch.load(path, weights_only=False) if kind == "last.ckpt" else pickle.loads(path.read_bytes())
    assert trace.exists(), "the attack is real"


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_may_not_be_read_is_refused_in_one_line(kind: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / kind
        KINDS[kind].make(path)
        KINDS[kind].read(path)  # whatever else is needed is there, and read once
        Path(folder).chmod(0o777)
        for other in path.parent.rglob("*"):
            other.chmod(0o777)
        path.chmod(0)
        with as_somebody():
            line = refusal(kind, Path(folder))
        assert kind in line and "ermission" in line


def test_a_name_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"p\xff.pkl")
    dump(path, (rotations(), shifts()))
    with pytest.raises(InputError, match=r"p\\udcff\.pkl.*not in UTF-8.*rename it") as raised:
        KINDS["p.pkl"].read(path)
    str(raised.value).encode()


def test_latents_keys_may_be_more_than_are_read(tmp_path: Path) -> None:
    latents(extra=np.zeros(3))(tmp_path / "latents.npz")
    assert KINDS["latents.npz"].read(tmp_path / "latents.npz").mu.shape == (N, 2)


def test_a_configuration_may_build_all_that_conf_names(tmp_path: Path) -> None:
    config_yaml(tmp_path / "config.yaml")
    assert json.dumps(list(KINDS["config.yaml"].read(tmp_path / "config.yaml").config))
