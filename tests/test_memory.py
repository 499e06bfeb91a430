"""Images that are more than fit into memory can be mapped all the same; none are held twice."""

import dataclasses
import gc
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from lightning_modules.encoder_inputs.encoder_input import fetch
from lightning_modules.files.mapped import _mapped, _MappedFile, map_floats
from lightning_modules.vae.posterior_search import PosteriorSearch
from tests.tiny import tiny


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="how much memory there is, is read from Linux's /proc")
def test_a_file_larger_than_memory_and_swap_can_be_mapped(tmp_path: Path) -> None:
    total = sum(
        int(line.split()[1])
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        if line.startswith(("MemTotal", "SwapTotal"))
    )
    n, path = 4 * total * 1024 // 4 // 1000, tmp_path / "images"  # four times all totals, in rows of 1000 numbers
    try:
        path.touch()
        os.truncate(path, 4000 * n)
    except OSError as error:
        pytest.skip(f"the file system holds no such file, be it sparse: {error}")
    last = np.arange(1000, dtype="<f4")
    with path.open("r+b") as file:
        file.seek(4000 * (n - 1))
        file.write(last.tobytes())
    images = map_floats(path, (n, 1000))
    assert torch.equal(images[torch.tensor([0, n - 1])], torch.stack([torch.zeros(1000), torch.from_numpy(last)]))
    assert path.stat().st_blocks * 512 < 1e6, "sparse"


def test_numbers_are_read_from_where_they_start_and_never_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content := b"ab" + np.arange(7, dtype="<f4").tobytes())
    found = map_floats(tmp_path / "file", (2, 3), start=2)
    assert found.tolist() == [[0, 1, 2], [3, 4, 5]]
    found += 1
    assert (tmp_path / "file").read_bytes() == content
    with pytest.raises(TypeError, match="buffer is too small"):
        map_floats(tmp_path / "file", (3, 3), start=2)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux is asked to read ahead")
def test_rows_are_asked_for_before_they_are_read_and_a_file_is_forgotten_with_its_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[int, int, int]] = []
    monkeypatch.setattr(_MappedFile, "madvise", lambda _, *call: asked.append(call))
    rows = np.arange(5000 * 3, dtype="<f4").reshape(3, 5000)
    (tmp_path / "file").write_bytes(bytes(100) + rows.tobytes())
    numbers = map_floats(tmp_path / "file", (3, 5000), start=100)
    address = numbers.data_ptr()
    assert address in _mapped
    found = fetch(numbers, torch.tensor([2, 0]), torch.zeros(1))
    assert np.array_equal(found, rows[[2, 0]])
    page = mmap.PAGESIZE
    for (what, start, length), first in zip(asked, (100 + 2 * 20_000, 100), strict=True):
        assert what == mmap.MADV_WILLNEED and start % page == 0
        assert first - page < start <= first and start + length == first + 20_000
    del numbers
    gc.collect()
    assert address not in _mapped
    fetch(torch.zeros(3, 2), torch.tensor([0]), torch.zeros(1))
    assert len(asked) == 2, "other tensors are in memory"


class LookedError(Exception):
    """Ends a run: what was to be seen was seen."""


def look_after_a_move(model: Any) -> NoReturn:
    """Take copies of the particles, as on a GPU, and see whether anybody still holds the first ones."""
    first = weakref.ref(model.particles.images)
    model.take(dataclasses.replace(model.particles, images=model.particles.images.clone()))
    gc.collect()
    assert first() is None, "the images are held twice"
    raise LookedError


def test_particles_that_a_training_took_to_a_gpu_do_not_stay_in_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiments.tasks.train.fit", lambda run, model, *_: look_after_a_move(model))
    with pytest.raises(LookedError):
        tiny(tmp_path)


def test_particles_that_a_search_took_to_a_gpu_do_not_stay_in_memory_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tiny(tmp_path, "trainer.max_epochs=1")
    monkeypatch.setattr(PosteriorSearch, "__call__", lambda self, model, *_: look_after_a_move(model))
    with pytest.raises(LookedError):
        tiny(tmp_path, "+exp=infer", f"task.source={source.folder}", "task/search=adam")
