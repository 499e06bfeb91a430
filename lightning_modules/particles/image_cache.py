"""Preprocessed images in a file, found again by the content of what they were made from.

The name of the file is a hash of every byte of the stacks and of all settings that decide the result: images that were
moved or copied are found, changed ones are not. Beside it are the norms and checksums. What is damaged is made anew.
"""

import hashlib
import json
import logging
import os
import shutil
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.lease import lease_to_make, remove_unfinished
from lightning_modules.files.mapped import map_floats
from lightning_modules.files.regular_files import is_regular, read_bytes
from lightning_modules.particles.preprocessing import Preprocessing
from lightning_modules.particles.stack_reader import StackReader

logger = logging.getLogger(__name__)

THREADS = min(8, os.cpu_count() or 1)
PIECE_BYTES = 1 << 26
# Of a file that is mapped, and not read before it is used, so many pieces are compared with their checksums.
PIECES_LOOKED_AT = 16
# A file that was changed this shortly before may be changed again without its time telling.
SETTLED_S = 2.0


@dataclass(frozen=True)
class About:
    """What is kept beside the images.

    Attributes:
        norm: mean and std of the Hartley transforms.
        norm_real: mean and std of the raw images.
        start: of the images in their file, in bytes.
        pieces: consecutive stretches of it, each its length in bytes and its CRC-32.
    """

    norm: tuple[float, float]
    norm_real: tuple[float, float]
    start: int
    pieces: list[tuple[int, int]]


def images_of(work: Preprocessing, cache_dir: Path, mapped: bool) -> tuple[Tensor, StackReader]:
    """Find preprocessed images, or make them; two processes that need them at once make them once.

    Args:
        work: what is to be preprocessed.
        cache_dir: they are in its folder ``preprocessed``.
        mapped: map the file into memory; if not, read it.

    Returns:
        (N, M) float32, which may be written to without changing the file, and the open stack.

    Raises:
        InputError: no room, or images that cannot be used.
    """
    folder = cache_dir / "preprocessed"
    folder.mkdir(parents=True, exist_ok=True)
    stored = folder / f"{key_of(work, folder)}.npy"
    with suppress(FileNotFoundError, ValueError):  # without a lease: a folder that is only read is enough
        return _found(stored, work, mapped)
    with lease_to_make(stored):
        try:
            return _found(stored, work, mapped)
        except FileNotFoundError:
            pass
        except ValueError as error:
            logger.warning("%s is damaged (%s) and made anew", stored, error)
            stored.unlink()
        remove_unfinished(stored)
        reader = work.open()
        _write(stored, work, reader)
        about = _read_about(stored.with_suffix(".json"))
    return (_map if mapped else _read)(stored, work.shape, about), reader


def _found(stored: Path, work: Preprocessing, mapped: bool) -> tuple[Tensor, StackReader]:
    """Return images that were made earlier.

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are damaged.
    """
    stored.stat()
    about = _read_about(stored.with_suffix(".json"))
    images = (_map if mapped else _read)(stored, work.shape, about)
    logger.info("preprocessed images found in %s", stored)
    return images, work.open(about.norm, about.norm_real)


def key_of(work: Preprocessing, folder: Path) -> str:
    """Hash all that decides the preprocessed images: stacks, rows, options, a given norm, cryoDRGN's version."""
    import cryodrgn

    files = work.files
    paths = dict.fromkeys((files.particles, *work.inventory.stacks))
    decisive: dict[str, Any] = {
        "stacks": [checksum(Path(path), folder) for path in paths],
        "rows": hashlib.sha256(work.selection.rows.tobytes()).hexdigest(),
        "options": (files.invert, files.window, files.window_r),
        "cryodrgn": cryodrgn.__version__,
        "format": 3,
        "norm": work.norm,
    }
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]


def checksum(path: Path, folder: Path) -> str:
    """Return the SHA-256 of the SHA-256 of a file's pieces.

    Args:
        path: the file.
        folder: remembers it for as long as the file's name, size, time and place on the disk stay the same.
    """
    stat = path.stat()
    now = [str(path.absolute()), stat.st_size, stat.st_mtime_ns, stat.st_ino]
    remembered = folder / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]}.sum"
    known = _parsed(remembered) if is_regular(remembered) else None
    if isinstance(known, dict) and known.get("file") == now and isinstance(known.get("sha256"), str):
        return str(known["sha256"])
    with ThreadPoolExecutor(THREADS) as pool:
        starts = range(0, stat.st_size, PIECE_BYTES)
        digests = pool.map(lambda start: hashlib.sha256(_piece(path, start, PIECE_BYTES)).digest(), starts)
        found = hashlib.sha256(b"".join(digests)).hexdigest()
    if time.time() - stat.st_mtime > SETTLED_S:
        with suppress(OSError):  # in a folder that is only read, it is computed each time
            _write_text(remembered, json.dumps({"file": now, "sha256": found}))
    return found


def _write(stored: Path, work: Preprocessing, reader: StackReader) -> None:
    needed_bytes, free_bytes = 4 * work.shape[0] * work.shape[1], shutil.disk_usage(stored.parent).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"{stored.parent}: {free_bytes / 1e9:.1f} GB free, expected {needed_bytes / 1e9:.1f} GB for the "
            "preprocessed images; make room or set data.residency=memory data.cache_images=false"
        )

    def write(unfinished: Path) -> None:
        pieces: list[tuple[int, int]] = []
        with unfinished.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": work.shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            for _, hartley in work.chunks(reader):
                content = hartley.contiguous().numpy().astype("<f4", copy=False).data.cast("B")
                file.write(content)
                pieces.append((len(content), zlib.crc32(content)))
            file.flush()
            os.fsync(file.fileno())
        about = About((reader.norm[0], reader.norm[1]), (reader.norm_real[0], reader.norm_real[1]), start, pieces)
        # The images come last: where they are, the rest is too.
        _write_text(stored.with_suffix(".json"), json.dumps(asdict(about)))

    write_atomically(stored, write)


def _write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda unfinished: unfinished.write_text(text, encoding="utf-8"))


def _parsed(path: Path) -> Any:
    """Return what is in a JSON file; None where it is none."""
    try:
        return json.loads(read_bytes(path, "a file of the cache"))
    except (InputError, ValueError, RecursionError):
        return None


def _read_about(path: Path) -> About:
    found = _parsed(path)
    try:
        (mean, std), (mean_real, std_real) = found["norm"], found["norm_real"]
        pieces = [(int(length), int(crc)) for length, crc in found["pieces"]]
        norms = (float(mean), float(std)), (float(mean_real), float(std_real))
        start = int(found["start"])
    except (TypeError, ValueError, KeyError, OverflowError):
        raise ValueError(f"{path.name} does not say what is in it") from None
    if not np.isfinite(norms).all() or norms[0][1] <= 0 or start < 0 or min(pieces, default=(0, 0))[0] < 0:
        raise ValueError(f"{path.name} says what cannot be")
    return About(*norms, start, pieces)


def _check_size(stored: Path, shape: tuple[int, int], about: About) -> list[tuple[int, int, int]]:
    """Return start, length and checksum of each piece, all of which are there.

    Raises:
        ValueError: they are not.
    """
    lengths = [length for length, _ in about.pieces]
    expected = 4 * shape[0] * shape[1]
    if sum(lengths) != expected or stored.stat().st_size != about.start + expected:
        raise ValueError(f"{stored.stat().st_size:,} bytes")
    starts = about.start + np.cumsum([0, *lengths[:-1]])
    return [(int(start), length, crc) for start, (length, crc) in zip(starts, about.pieces, strict=True)]


def _read(stored: Path, shape: tuple[int, int], about: About) -> Tensor:
    """Read the images, all pieces side by side, and compare them with their checksums."""
    images = np.empty(shape, "<f4")
    content = images.reshape(-1).data.cast("B")

    def fill(piece: tuple[int, int, int]) -> bool:
        start, length, crc = piece
        part = content[start - about.start : start - about.start + length]
        with stored.open("rb", buffering=0) as file:
            file.seek(start)
            done = 0
            while done < length and (n := file.readinto(part[done:])):
                done += n
        return done == length and zlib.crc32(part) == crc

    with ThreadPoolExecutor(THREADS) as pool:
        if not all(pool.map(fill, _check_size(stored, shape, about))):
            raise ValueError("a checksum is wrong")
    return torch.from_numpy(images.astype(np.float32, copy=False))


def _map(stored: Path, shape: tuple[int, int], about: About) -> Tensor:
    """Map the images into memory, after a look at some of them."""
    pieces = _check_size(stored, shape, about)
    for start, length, crc in pieces[:: max(1, -(-len(pieces) // PIECES_LOOKED_AT))]:
        if zlib.crc32(_piece(stored, start, length)) != crc:
            raise ValueError("a checksum is wrong")
    return map_floats(stored, shape, about.start)


def _piece(path: Path, start: int, length: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(length)
