"""Pickles of arrays, read without running what is in them.

cryoDRGN keeps poses, CTF and indices in pickles. ``pickle.load`` runs any code that a file names, so only
numpy arrays and plain containers are admitted here.
"""

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from lightning_modules.errors import InputError


def _latin1(text: str, encoding: str = "latin1") -> bytes:
    """Stand in for ``_codecs.encode``, which protocol 2 uses to write bytes; no other codec is reachable."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes encoded as {encoding}")
    return text.encode("latin1")


# Taken from numpy itself: it moved them from numpy.core to numpy._core in 2.0, and files of both kinds exist.
_NUMPY_MAKERS: dict[tuple[str, str], Any] = {
    ("multiarray", "_reconstruct"): np.zeros(1).__reduce__()[0],
    ("multiarray", "scalar"): np.float64(0).__reduce__()[0],
    ("numeric", "_frombuffer"): np.zeros(1).__reduce_ex__(5)[0],
}
_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _latin1,
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for (module, name), maker in _NUMPY_MAKERS.items()
    },
    ("__builtin__", "xrange"): range,
    **{
        (builtins, kind.__name__): kind
        for builtins in ("builtins", "__builtin__")
        for kind in (list, tuple, dict, set, frozenset, complex, bytearray, slice, range)
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
        path: file that ``pickle.dump`` wrote.

    Returns:
        What was pickled: an array, or a tuple, list or dict of arrays.

    Raises:
        InputError: the file is missing, empty, truncated, no pickle, or names anything but numpy arrays and
            plain containers. Nothing of the file has been run then.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _ArrayUnpickler(file, path).load()
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected a pickle of numpy arrays") from None
    # A damaged pickle can fail in nearly any way: every opcode works on whatever is on the stack.
    except Exception as error:
        size = path.stat().st_size
        found = "an empty file" if size == 0 else f"{size} bytes that are no whole pickle ({type(error).__name__})"
        raise InputError(f"{path}: found {found}, expected a pickle of numpy arrays; copy or make it again") from None
