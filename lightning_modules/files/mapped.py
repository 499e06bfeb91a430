"""Arrays of float32 in memory-mapped files, for images that exceed the memory."""

import contextlib
import mmap
import sys
import weakref
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

# mmap's flag, from Linux's asm-generic/mman-common.h; Python has no name for it
MAP_NORESERVE = 0x4000


class _MappedFile(mmap.mmap):
    """A file in memory.

    Attributes:
        start: bytes of it before the numbers.
    """

    start: int


# By the address of their numbers; a file is forgotten with the last tensor of it.
_mapped: weakref.WeakValueDictionary[int, _MappedFile] = weakref.WeakValueDictionary()


def map_floats(path: Path, shape: tuple[int, ...], start: int = 0) -> Tensor:
    """Map little-endian float32 numbers of a file into memory. They may be more than fit: none is read before its use.

    What is written to the tensor is never written to the file. For that Linux would reserve memory as large as the
    file, and refuse where there is less; it is asked not to.

    Args:
        path: the file.
        shape: of the tensor.
        start: bytes of the file before it.

    Raises:
        OSError: the file cannot be mapped.
        TypeError: it is too short.
    """
    if not sys.platform.startswith("linux"):
        return torch.from_numpy(np.memmap(path, "<f4", "c", start, shape))
    with path.open("rb") as file:
        content = _MappedFile(file.fileno(), 0, mmap.MAP_PRIVATE | MAP_NORESERVE, mmap.PROT_READ | mmap.PROT_WRITE)
    content.start = start
    numbers = torch.from_numpy(np.ndarray(shape, "<f4", content, start))
    _mapped[numbers.data_ptr()] = content
    return numbers


def read_ahead(numbers: Tensor, rows: Tensor) -> None:
    """Let the system read some rows of a mapped file all at once; nothing happens where there is no such file.

    Otherwise each row is read when it is first touched, one after the other: a hundred times slower.

    Args:
        numbers: (N, ...) as :func:`map_floats` gave it, or any other tensor.
        rows: (B,) of it.
    """
    content = _mapped.get(numbers.data_ptr()) if numbers.device.type == "cpu" else None
    if content is None or not len(numbers):
        return
    size = numbers[0].nbytes
    for row in rows.tolist():
        first = content.start + row * size
        page = first // mmap.PAGESIZE * mmap.PAGESIZE
        with contextlib.suppress(OSError):  # it is no more than a hint
            content.madvise(mmap.MADV_WILLNEED, page, first + size - page)
