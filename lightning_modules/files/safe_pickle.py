"""Pickles of arrays, read without running what is in them.

cryoDRGN keeps poses, CTF and indices in pickles. ``pickle.load`` runs any code that a file names, so only
numpy arrays and plain containers are admitted here.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.errors import InputError
from lightning_modules.files.pickle_sizes import refuse_false_sizes
from lightning_modules.files.regular_files import read_bytes

# Numbers and texts. Objects, and records that may hold some, are pointers to memory that a file could make up.
PLAIN_KINDS = "biufcSU"
MAX_PICKLE_BYTES = 1 << 31  # poses of twenty million particles


class _Dtype:
    """Stands for ``numpy.dtype`` while a pickle is read: its own way of taking on a state believes everything."""

    def __init__(self, code: str | bytes, *_: Any) -> None:
        text = code.decode("ascii") if isinstance(code, bytes) else str(code)
        if len(text) > 16:  # a kind and a size; a list of a million would be read, one by one
            raise pickle.UnpicklingError(f"an array of {text[:16]}..., not of numbers")
        self.dtype = np.dtype(text)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])

    def of(self, n_bytes: int | None = None) -> np.dtype:
        """Return the dtype of an array; ``n_bytes``: of a single value."""
        if self.dtype.kind not in PLAIN_KINDS:
            raise pickle.UnpicklingError(f"an array of {self.dtype}, not of numbers")
        if n_bytes is not None and n_bytes != self.dtype.itemsize:
            raise pickle.UnpicklingError(f"{n_bytes} bytes for a value of {self.dtype}")
        return self.dtype


class _Array(np.ndarray):
    """An array while a pickle is read; numpy itself compares shape and bytes."""

    def __setstate__(self, state: tuple) -> None:
        version, shape, dtype, is_fortran, content = state
        super().__setstate__((version, shape, dtype.of(), is_fortran, _bytes(content)))


def _reconstruct(subtype: Any, shape: Any, dtype: Any) -> np.ndarray:
    """Stand in for numpy's maker of empty arrays, which allocates any shape that it is told."""
    return np.zeros(0, np.int8).view(_Array)


def _scalar(dtype: _Dtype, content: Any) -> np.generic:
    content = _bytes(content)
    return np.frombuffer(content, dtype.of(len(content)))[0]


def _frombuffer(content: Any, dtype: _Dtype, shape: tuple, order: str) -> np.ndarray:
    content = content if isinstance(content, bytearray) else _bytes(content)  # keeps the array writable
    return np.frombuffer(content, dtype.of()).reshape(shape, order="F" if order == "F" else "C")


def _bytes(content: Any) -> bytes:
    """Return what an array is made of; Python 2 wrote bytes as text."""
    if isinstance(content, str):
        return content.encode("latin1")
    if not isinstance(content, bytes | bytearray):
        raise pickle.UnpicklingError(f"an array made of {type(content).__name__}")
    return bytes(content)


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which protocol 2 uses to write bytes; no other codec is reachable."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return text.encode("latin1")


def _bytearray(content: bytes | str = b"", encoding: str = "latin1") -> bytearray:
    """Stand in for ``bytearray``, which makes as many zeros as it is told."""
    return bytearray(_latin1(content, encoding) if isinstance(content, str) else _bytes(content))


def _of_items(kind: type) -> Any:
    """Stand in for a container's class, which would also unfold a range."""

    def make(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple | set | frozenset | dict):
            raise pickle.UnpicklingError(f"{kind.__name__} of {type(items).__name__}")
        return kind(items)

    return make


# numpy moved them from numpy.core to numpy._core in 2.0, and files of both kinds exist.
_NUMPY_MAKERS: dict[tuple[str, str], Any] = {
    ("multiarray", "_reconstruct"): _reconstruct,
    ("multiarray", "scalar"): _scalar,
    ("numeric", "_frombuffer"): _frombuffer,
}
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): "numpy.ndarray",  # only named in files, never called
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _latin1,
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for (module, name), maker in _NUMPY_MAKERS.items()
    },
    ("__builtin__", "xrange"): range,
    **{
        (builtins, name): kind
        for builtins in ("builtins", "__builtin__")
        for name, kind in {
            **{kind.__name__: _of_items(kind) for kind in (list, tuple, dict, set, frozenset)},
            **{"complex": complex, "slice": slice, "range": range, "bytearray": _bytearray},
        }.items()
    },
}


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickler that knows numpy arrays and plain containers, and nothing else."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            pass
        if module.split(".")[0] == "torch":
            mend = "convert its tensors with .numpy() and write it again"
        else:
            mend = "keep only numpy arrays in it, or do not trust it"
        raise InputError(f"{self._path}: holds {module}.{name}, expected numpy arrays only; {mend}")


def load_arrays(path: str | Path) -> Any:
    """Read a pickle of numpy arrays in plain containers, written under numpy 1 or 2 by any Python.

    Args:
        path: file that ``pickle.dump`` wrote; of several pickles one after another, the first is read.

    Returns:
        What was pickled: an array, or a tuple, list or dict of arrays.

    Raises:
        InputError: the file is missing, empty, truncated, no pickle, or names anything but numpy arrays and
            plain containers. Nothing of the file has been run then.
    """
    return load_each(path, 1)[0]


def load_each(path: str | Path, n: int) -> list[Any]:
    """Read the first n pickles that stand one after another in a file, as mu and logvar do in cryoDRGN's z.pkl.

    Arguments and errors of :func:`load_arrays`; it is one, too, if there are fewer.
    """
    expected = "a pickle of numpy arrays"
    path = Path(path)
    content = read_bytes(path, expected, MAX_PICKLE_BYTES)
    file = io.BytesIO(content)
    try:
        return [_next(file, path) for _ in range(n)]
    except InputError:
        raise
    # A damaged pickle can fail in nearly any way: every opcode works on whatever is on the stack.
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        found = f"{len(content)} bytes that are no whole pickle ({reason})" if content else "an empty file"
        raise InputError(f"{path}: found {found}, expected {expected}; copy or make it again") from None


def _next(file: io.BytesIO, path: Path) -> Any:
    start = file.tell()
    refuse_false_sizes(file)
    file.seek(start)
    return _without_subclass(_ArrayUnpickler(file, path).load(), {})


def _without_subclass(value: Any, done: dict[int, Any]) -> Any:
    """Turn the arrays in containers back into numpy's own; each container once, however often it is named."""
    if isinstance(value, _Array):
        return value.view(np.ndarray)
    if not isinstance(value, list | tuple | dict):
        return value
    if id(value) not in done:
        if isinstance(value, dict):
            new: Any = {key: _without_subclass(item, done) for key, item in value.items()}
        else:
            new = type(value)([_without_subclass(item, done) for item in value])
        done[id(value)] = new
    return done[id(value)]
