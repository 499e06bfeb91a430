"""Preprocessed images are kept in a file, by the content of what they were made from."""

import errno
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch

from experiments.configuration.compose import compose
from experiments.configuration.identity import identity
from experiments.configuration.validation import check
from experiments.machine.disk_errors import disk_errors_as_input_errors
from experiments.runs.building import particles_of
from lightning_modules.errors import InputError
from lightning_modules.particles import image_cache, stack_reader
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.particles.preprocessing import Preprocessing
from tests.particle_sets import D, N, images, particle_set, stack
from tests.test_disk_errors import files_of_at_most


def test_disk_residency_is_made_once_and_remade_when_the_stack_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, cache = particle_set(tmp_path), tmp_path / "cache"
    first = load_particles(files, "disk", cache)
    (stored,) = (cache / "preprocessed").glob("*.npy")
    written = stored.stat().st_mtime_ns
    with caplog.at_level(logging.INFO, logger="lightning_modules"):
        second = load_particles(files, "disk", cache)
    assert "found" in caplog.text and stored.stat().st_mtime_ns == written
    assert torch.equal(first.images, second.images)
    assert (first.norm, first.norm_real) == (second.norm, second.norm_real)
    assert torch.equal(second.preprocess(second.raw(np.arange(3))), second.images[:3])
    second.images[0] = 0
    assert torch.equal(load_particles(files, "disk", cache).images, first.images), "the file is never written to"
    stack(tmp_path / "particles.mrcs", images(seed=5))
    third = load_particles(files, "disk", cache)
    assert torch.equal(third.images, load_particles(files).images)
    inverted = load_particles(ParticleFiles(**{**vars(files), "invert": True}), "disk", cache)
    torch.testing.assert_close(inverted.images, -third.images)
    assert {path.suffix for path in (cache / "preprocessed").iterdir()} <= {".npy", ".json", ".lease", ".sum"}


def test_two_runs_that_need_the_same_images_make_them_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Path] = []
    write = image_cache._write
    monkeypatch.setattr(image_cache, "_write", lambda path, *rest: (made.append(path), write(path, *rest)))
    files = particle_set(tmp_path)
    with ThreadPoolExecutor(4) as threads:
        sets = list(threads.map(lambda _: load_particles(files, "disk", tmp_path / "cache"), range(4)))
    assert len(made) == 1
    assert all(torch.equal(each.images, sets[0].images) for each in sets)


def test_even_without_a_lease_nobody_disturbs_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was frozen for long has lost its lease and does not know it."""
    all_write, read = threading.Barrier(3), Preprocessing.chunks

    def chunks(self: Preprocessing, reader: Any) -> Any:
        for chunk in read(self, reader):
            yield chunk
            all_write.wait(60)

    monkeypatch.setattr(Preprocessing, "chunks", chunks)
    monkeypatch.setattr(image_cache, "lease_to_make", lambda path: nullcontext())
    monkeypatch.setattr(image_cache, "remove_unfinished", lambda path: None)
    files = particle_set(tmp_path)
    with ThreadPoolExecutor(3) as threads:
        sets = list(threads.map(lambda _: load_particles(files, "disk", tmp_path / "cache"), range(3)))
    monkeypatch.undo()
    expected = load_particles(files).images
    assert all(
        torch.equal(each.images, expected) for each in (*sets, load_particles(files, "disk", tmp_path / "cache"))
    )
    assert {path.suffix for path in (tmp_path / "cache" / "preprocessed").iterdir()} <= {".npy", ".json", ".sum"}


def test_what_is_there_is_used_without_a_word_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = particle_set(tmp_path)
    expected = cached(files, tmp_path).images

    def read_only(*_: Any) -> NoReturn:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    os.utime(files.particles, (0, 0))  # long settled, so that its checksum would be remembered
    monkeypatch.setattr(image_cache, "write_atomically", read_only)
    monkeypatch.setattr(image_cache, "lease_to_make", read_only)
    assert torch.equal(cached(files, tmp_path).images, expected)


def cached(files: ParticleFiles, folder: Path, residency: str = "memory", **options: Any) -> Particles:
    return load_particles(files, residency, folder / "cache", cache_images=True, **options)


def made_in(folder: Path) -> set[str]:
    return {path.stem for path in (folder / "cache" / "preprocessed").glob("*.npy")}


def test_the_same_bits_with_and_without_a_cache_and_in_any_chunks(tmp_path: Path) -> None:
    files = particle_set(tmp_path)
    plain = load_particles(files)
    for options in ({"chunk": 5}, {}, {"residency": "disk"}):
        found = cached(files, tmp_path, **options)
        assert torch.equal(found.images, plain.images) and (found.norm, found.norm_real) == (
            plain.norm,
            plain.norm_real,
        )
    assert torch.equal(load_particles(files, chunk=1).images, plain.images)
    assert len(made_in(tmp_path)) == 1
    found.images[0] = 0
    assert torch.equal(cached(files, tmp_path).images, plain.images)


def test_chunks_come_in_order_though_they_are_read_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = particle_set(tmp_path)
    expected, read = load_particles(files).images, stack_reader.StackImages.images

    def late(source: Any, index: Any = None) -> torch.Tensor:
        time.sleep(0.02 if index is not None and index[0] % 4 == 0 else 0)
        return read(source, index)

    monkeypatch.setattr(stack_reader.StackImages, "images", late)
    assert torch.equal(load_particles(files, chunk=2).images, expected)


def test_found_by_content_wherever_the_files_are(tmp_path: Path) -> None:
    files = particle_set(tmp_path)
    cached(files, tmp_path)
    copy = shutil.copy(files.particles, tmp_path / "moved.mrcs")
    assert torch.equal(cached(replace(files, particles=str(copy)), tmp_path).images, load_particles(files).images)
    assert len(made_in(tmp_path)) == 1


def test_another_input_or_setting_is_another_key(tmp_path: Path) -> None:
    files = particle_set(tmp_path)
    changes: list[dict[str, Any]] = [{}, {"invert": True}, {"window": False}, {"window_r": 0.7}, {"n_particles": 5}]
    for number, change in enumerate(changes, start=1):
        changed = replace(files, **change)
        assert torch.equal(cached(changed, tmp_path).images, load_particles(changed).images)
        assert len(made_in(tmp_path)) == number
    assert not torch.equal(cached(files, tmp_path, norm=(0.0, 9.0)).images, cached(files, tmp_path).images)
    path = Path(files.particles)
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of the last pixel, and a time that does not tell
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert torch.equal(cached(files, tmp_path).images, load_particles(files).images)
    assert len(made_in(tmp_path)) == len(changes) + 2


def test_checksums_are_remembered_once_a_file_has_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(stack(tmp_path / "p.mrcs"))
    long_ago = time.time_ns() - 10**10
    os.utime(path, ns=(long_ago, long_ago))
    first = image_cache.checksum(path, tmp_path)
    (note,) = tmp_path.glob("*.sum")
    monkeypatch.setattr(image_cache, "PIECE_BYTES", 1000)
    assert image_cache.checksum(path, tmp_path) == first, "not computed again, in other pieces"
    for damage in ("", "{}", "[1]", '{"file": 3, "sha256": 4}'):
        note.write_text(damage)
        assert image_cache.checksum(path, tmp_path) != first
    os.utime(path)
    note.unlink()
    image_cache.checksum(path, tmp_path)
    assert not list(tmp_path.glob("*.sum")), "a file that has just changed may change again"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-4]),
    "longer": lambda path: path.write_bytes(path.read_bytes() + bytes(4)),
    "empty": lambda path: path.write_bytes(b""),
    "no note": lambda path: path.with_suffix(".json").unlink(),
    "no JSON": lambda path: path.with_suffix(".json").write_text("{"),
    "no list": lambda path: path.with_suffix(".json").write_text("3"),
    "no norm": lambda path: path.with_suffix(".json").write_text('{"norm": [0, 0], "norm_real": [0, 1], "pieces": []}'),
    "other pieces": lambda path: path.with_suffix(".json").write_text(
        json.dumps({"norm": [0, 1], "norm_real": [0, 1], "start": 128, "pieces": [[-4, 0], [4 * N * D * D, 1]]})
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("residency", ["memory", "disk"])
def test_a_damaged_cache_is_made_anew(
    tmp_path: Path, residency: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    files = particle_set(tmp_path)
    expected = cached(files, tmp_path).images
    (stored,) = (tmp_path / "cache" / "preprocessed").glob("*.npy")
    DAMAGES[damage](stored)
    assert torch.equal(cached(files, tmp_path, residency).images, expected)
    assert torch.equal(cached(files, tmp_path, residency).images, expected)
    (warning,) = (record.message for record in caplog.records if record.levelno == logging.WARNING)
    assert f"{stored} is damaged" in warning and "made anew" in warning


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    files = particle_set(tmp_path)
    with files_of_at_most(5000), pytest.raises(InputError, match="make room"), disk_errors_as_input_errors(tmp_path):
        cached(files, tmp_path)
    assert {path.suffix for path in (tmp_path / "cache" / "preprocessed").iterdir()} <= {".lease", ".sum"}
    assert torch.equal(cached(files, tmp_path).images, load_particles(files).images)


def test_asked_for_in_the_configuration(tmp_path: Path) -> None:
    settings = ("data.n_particles=6", "data.box_px=16", "data.shift_px=0", f"paths.cache={tmp_path}/cache")
    plain, kept = (check(compose(*settings, f"data.cache_images={value}")) for value in ("false", "true"))
    assert identity(plain) == identity(kept)
    without = particles_of(plain)
    assert not (tmp_path / "cache" / "preprocessed").exists()
    assert torch.equal(particles_of(kept).images, without.images) and len(made_in(tmp_path)) == 1
