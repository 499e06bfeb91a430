"""MNIST's files are found where people keep them, checked to the last byte, and downloaded whole or not at all."""

import functools
import gzip
import hashlib
import http.server
import threading
from pathlib import Path

import numpy as np
import pytest

from lightning_modules.errors import InputError
from lightning_modules.files import idx_files

N, D = 12, 28
PIXELS = np.random.default_rng(0).integers(0, 256, (N, D, D), dtype=np.uint8)
DIGITS = np.arange(N, dtype=np.uint8) % 10


def idx(values: np.ndarray, magic: int, shape: tuple[int, ...] | None = None) -> bytes:
    return np.array([magic, *(shape or values.shape)], ">u4").tobytes() + values.tobytes()


IMAGES, LABELS = idx(PIXELS, idx_files.IMAGES), idx(DIGITS, idx_files.LABELS)
PACKED = {"images": gzip.compress(IMAGES), "labels": gzip.compress(LABELS)}
NAMES = {"images": "t10k-images-idx3-ubyte", "labels": "t10k-labels-idx1-ubyte"}


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small set in MNIST's place, and no network."""
    for kind, content, values in (("images", IMAGES, PIXELS), ("labels", LABELS, DIGITS)):
        known = idx_files.FILES["test", kind]
        small = known._replace(shape=values.shape, md5=md5(content), md5_packed=md5(PACKED[kind]))
        monkeypatch.setitem(idx_files.FILES, ("test", kind), small)
    monkeypatch.setattr(idx_files, "MIRRORS", ("http://127.0.0.1:9/", "http://localhost:9/"))
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.mark.parametrize("folder", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_are_found_plain_or_packed_also_in_torchvisions_folders(
    tmp_path: Path, folder: str, packed: bool
) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    for kind, content in (("images", IMAGES), ("labels", LABELS)):
        path = place / (NAMES[kind] + ".gz" * packed)
        path.write_bytes(PACKED[kind] if packed else content)
    assert np.array_equal(idx_files.read(tmp_path, "test", "images"), PIXELS)
    assert np.array_equal(idx_files.read(tmp_path, "test", "labels"), DIGITS)


def test_files_packed_anew_are_still_mnists(tmp_path: Path) -> None:
    (tmp_path / f"{NAMES['labels']}.gz").write_bytes(gzip.compress(LABELS, compresslevel=1, mtime=1))
    assert np.array_equal(idx_files.read(tmp_path, "test", "labels"), DIGITS)


DAMAGED = {
    "empty": (b"", "0 bytes, expected 9,424"),
    "cut in the header": (IMAGES[:10], "10 bytes, expected 9,424"),
    "cut in the pixels": (IMAGES[:-1], "9,423 bytes, expected 9,424"),
    "too long": (IMAGES + b"x", "more bytes, expected 9,424"),
    "labels": (LABELS + bytes(9999), "magic number 2049, expected 2051"),
    "little-endian": (np.array([idx_files.IMAGES, N, D, D], "<u4").tobytes() + PIXELS.tobytes(), "magic number"),
    "other count": (idx(PIXELS, idx_files.IMAGES, (N + 1, D, D)), "number of items 13, expected 12"),
    "huge count": (idx(PIXELS, idx_files.IMAGES, (2**32 - 1, D, D)), "number of items 4294967295, expected 12"),
    "other size": (idx(PIXELS, idx_files.IMAGES, (N, D, 2 * D)), "columns 56, expected 28"),
    "one pixel differs": (IMAGES[:-1] + bytes([IMAGES[-1] ^ 1]), "MD5 checksum"),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path: Path, kind: str, packed: bool) -> None:
    content, message = DAMAGED[kind]
    path = tmp_path / (NAMES["images"] + ".gz" * packed)
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(InputError) as raised:
        idx_files.read(tmp_path, "test", "images")
    assert str(raised.value).startswith(f"{path}: ") and message in str(raised.value)
    assert "\n" not in str(raised.value)


BROKEN_GZIP = {
    "no gzip": b"this is a page of a server",
    "cut": PACKED["images"][:-200],
    "cut in the checksum": PACKED["images"][:-4],
    "bytes turned": PACKED["images"][:500] + bytes(50) + PACKED["images"][550:],
}


@pytest.mark.parametrize("kind", BROKEN_GZIP)
def test_a_gz_file_that_cannot_be_unpacked_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"{NAMES['images']}.gz"
    path.write_bytes(BROKEN_GZIP[kind])
    with pytest.raises(InputError, match="damaged, or not MNIST's own") as raised:
        idx_files.read(tmp_path, "test", "images")
    assert str(raised.value).startswith(f"{path}: ")


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / f"{NAMES['images']}.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(IMAGES[:16])
        for _ in range(40):
            file.write(bytes(1 << 20))
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(InputError, match="more bytes"):
        idx_files.read(tmp_path, "test", "images")
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_without_a_network_one_line_says_what_to_do(tmp_path: Path) -> None:
    root = tmp_path / "here"
    with pytest.raises(InputError) as raised:
        idx_files.read(root, "test", "images")
    for part in (f"data.root={root}", "t10k-images-idx3-ubyte.gz", "cannot be downloaded", "data=digits"):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server on this machine, which sends what is in its folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/"
    monkeypatch.setattr(idx_files, "MIRRORS", ("http://127.0.0.1:9/", address))
    yield folder
    server.shutdown()
    server.server_close()


def test_missing_files_are_downloaded_once_from_the_first_mirror_that_answers(tmp_path: Path, mirror: Path) -> None:
    for kind, packed in PACKED.items():
        (mirror / f"{NAMES[kind]}.gz").write_bytes(packed)
    root = tmp_path / "root"
    assert np.array_equal(idx_files.read(root, "test", "images"), PIXELS)
    assert [path.name for path in root.iterdir()] == ["t10k-images-idx3-ubyte.gz"]
    (mirror / f"{NAMES['images']}.gz").unlink()
    assert np.array_equal(idx_files.read(root, "test", "images"), PIXELS)


@pytest.mark.parametrize("sent", [b"<html>log in first</html>", PACKED["images"][:-100]])
def test_what_is_not_the_published_file_does_not_stay(tmp_path: Path, mirror: Path, sent: bytes) -> None:
    (mirror / f"{NAMES['images']}.gz").write_bytes(sent)
    with pytest.raises(InputError, match="it sent another file"):
        idx_files.read(tmp_path / "root", "test", "images")
    assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, mirror: Path) -> None:
    (mirror / f"{NAMES['images']}.gz").write_bytes(PACKED["images"])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=f"data.root={tmp_path}/file/root: .* cannot be written there"):
        idx_files.read(tmp_path / "file" / "root", "test", "images")
