"""The C++ of this folder's ``native/``, compiled where it runs, once for each processor and torch."""

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from lightning_modules.files.atomic import write_atomically
from lightning_modules.private_folder import private_folder
from lightning_modules.processor import cpu_flags

logger = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "native"
COMPILE = ("-std=c++20", "-O3", "-march=native", "-fopenmp", "-fPIC", "-w")
# What it is written in; products in bfloat16 are fast where these are.
NEEDED = {"avx512_bf16", "avx512bw", "avx512vl", "avx512f"}
_enabled = True


@contextlib.contextmanager
def without_native_code() -> Iterator[None]:
    """Leave everything to torch's operations."""
    global _enabled
    before, _enabled = _enabled, False
    try:
        yield
    finally:
        _enabled = before


def library() -> ctypes.CDLL | None:
    """Return the library; None: it is not wanted, or cannot be had. Where a compiler fails, the log says why."""
    return _loaded() if _enabled else None


def is_loaded() -> bool:
    """Return whether this process has had a use for the library."""
    return _loaded.cache_info().currsize > 0 and _loaded() is not None


@functools.cache
def _loaded() -> ctypes.CDLL | None:
    if not cpu_flags() >= NEEDED:
        return None
    try:
        with tempfile.TemporaryDirectory() as scratch:
            loaded = ctypes.CDLL(str(_compiled(Path(scratch))))
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        logger.info("the networks' C++ is not used, torch's operations do the same: %s", _reason(error))
        return None
    return loaded if loaded.usable() else None


def _compiled(scratch: Path) -> Path:
    """Return the shared library, from a folder of the user's own where it is there already.

    Args:
        scratch: an empty folder, which the library is put into.

    Raises:
        OSError: there is no compiler, or not torch's OpenMP.
        subprocess.SubprocessError: the compiler failed.
    """
    compiler = shlex.split(os.environ.get("CXX", "")) or [shutil.which("g++") or shutil.which("c++") or ""]
    if not compiler[0]:
        raise OSError("no C++ compiler was found; install g++, or set CXX")
    openmp = _openmp()
    source = [path.read_text(encoding="utf-8") for path in sorted(FOLDER.iterdir())]
    made_of = (*source, *COMPILE, *compiler, torch.__version__, openmp, *sorted(cpu_flags()))
    name = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    folder = private_folder("native")
    if folder is not None and (content := _kept(folder, name)) is not None:
        library = scratch / "library.so"
        library.write_bytes(content)  # loaded from here: nobody can exchange it after it was checked
        return library
    logger.info("compiling the networks for this processor, once")
    made = _compile(compiler, openmp, scratch)
    if folder is not None:
        _keep(folder, name, made.read_bytes())
    return made


def _kept(folder: Path, name: str) -> bytes | None:
    """Return the library that was compiled earlier; None: there is none, or not all of it."""
    try:
        content = (folder / f"{name}.so").read_bytes()
        checksum = (folder / f"{name}.sha256").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None
    return content if hashlib.sha256(content).hexdigest() == checksum else None


def _keep(folder: Path, name: str, content: bytes) -> None:
    """Keep a library with its checksum, if there is room."""
    checksum = hashlib.sha256(content).hexdigest()
    with contextlib.suppress(OSError):
        write_atomically(folder / f"{name}.so", lambda path: path.write_bytes(content))
        write_atomically(folder / f"{name}.sha256", lambda path: path.write_text(checksum, encoding="utf-8"))


def _compile(compiler: list[str], openmp: str, folder: Path) -> Path:
    home, made = Path(torch.__file__).parent, folder / "library.so"
    objects = []
    for source in sorted(FOLDER.glob("*.cpp")):
        objects.append(f"{folder}/{source.stem}.o")
        _run([*compiler, *COMPILE, f"-I{home / 'include'}", "-c", str(source), "-o", objects[-1]])
    # Against the OpenMP that torch has loaded: another one would have threads of its own.
    linked = [*objects, "-shared", "-o", str(made), f"-L{home / 'lib'}", "-ltorch_cpu", "-lc10", openmp]
    _run([*compiler, *linked, "-Wl,--no-undefined"])
    return made


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=300)


def _openmp() -> str:
    """Return the file of the OpenMP that torch runs on; other packages may have loaded others."""
    parallel = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    address = ctypes.cast(parallel, ctypes.c_void_p).value or 0
    for line in Path("/proc/self/maps").read_text(encoding="utf-8").splitlines():
        first, end = (int(bound, 16) for bound in line.split()[0].split("-"))
        if first <= address < end:
            return line.split(maxsplit=5)[-1]
    raise OSError("torch's OpenMP was not found")


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        told = " ".join(error.stderr.decode(errors="replace").split())[-300:]
        return f"{error.cmd[0]} ended with exit code {error.returncode}" + (f": {told}" if told else "")
    return " ".join(str(error).split())[-300:]
