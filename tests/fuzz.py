"""Search for files that break a reader: ``python -m tests.fuzz KIND --seconds 60``; KIND ``all``: each in turn.

Guided by coverage where atheris is installed (``pip install atheris``), else by chance alone. What broke the reader
is kept in --keep, to be made a test.
"""

import argparse
import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

try:
    import atheris
except ImportError:
    atheris = None

# Those whose lines guide the search: they are told to say which of them run, while they are imported.
MODULES = ["lightning_modules", "experiments", "cryodrgn.starfile", "omegaconf", "yaml", "zipfile", "pickletools"]
with contextlib.nullcontext() if atheris is None else atheris.instrument_imports(MODULES):
    from tests.hostile import KINDS
    from tests.mutations import mutated
    from tests.test_fuzz_readers import outcome


logging.disable()


class Search:
    """Counts what was tried, and keeps what breaks a reader, one file of each kind of failure."""

    def __init__(self, kind: str, folder: Path, keep: Path) -> None:
        self.kind, self.folder, self.keep = kind, folder, keep
        self.tried = self.values = 0
        self.failures: dict[str, Path] = {}
        KINDS[kind].make(folder / kind)
        self.sound = (folder / kind).read_bytes()

    def try_one(self, content: bytes) -> None:
        """Read one file."""
        self.tried += 1
        try:
            self.values += outcome(self.kind, content, self.folder) == "value"
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__} in {Path(last.filename).name}:{last.lineno}"
            if name not in self.failures:
                self.keep.mkdir(parents=True, exist_ok=True)
                path = self.keep / f"{len(self.failures)}-{self.kind}"
                path.write_bytes(content)
                self.failures[name] = path
                print(f"{self.kind}: {name}: {str(error)[:200]}: {path}", flush=True)

    def report(self) -> None:
        """Say what came of it."""
        print(
            f"{self.kind}: {self.tried:,} tried, {self.values:,} read, {len(self.failures)} kinds of failure",
            flush=True,
        )


def by_chance(search: Search, seconds: float) -> None:
    """Try mutations in the order of their seeds."""
    until, seed = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        search.try_one(mutated(search.sound, seed))
        seed += 1


def by_coverage(search: Search, seconds: float) -> None:
    """Let atheris choose; it ends the process, so this does not return."""
    corpus = search.folder / "corpus"
    corpus.mkdir()
    (corpus / "sound").write_bytes(search.sound)
    until = time.monotonic() + seconds

    def one(content: bytes) -> None:
        search.try_one(content)
        if time.monotonic() > until:
            search.report()
            shutil.rmtree(search.folder)
            os._exit(bool(search.failures))  # atheris takes any other way out for a crash

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        choice = mutated(content, seed) if seed % 2 else bytes(atheris.Mutate(content, most))
        return choice[:most]

    options = [f"-max_len={max(4096, 2 * len(search.sound))}", "-len_control=0", "-verbosity=0"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], one, custom_mutator=mutate)
    atheris.Fuzz()


def main() -> int:
    """Fuzz one reader, or each in a process of its own; returns the exit code, 1 where one was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("kind", choices=[*KINDS, "all"], metavar="KIND", help=f"all, {', '.join(KINDS)}")
    parser.add_argument("--seconds", type=float, default=60, help="for each kind")
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="folder for files that break a reader")
    options = parser.parse_args()
    if options.kind == "all":
        command = [sys.executable, "-m", "tests.fuzz", "--seconds", str(options.seconds), "--keep", str(options.keep)]
        return max(subprocess.run([*command, kind], check=False).returncode for kind in KINDS)
    with tempfile.TemporaryDirectory() as name:
        search = Search(options.kind, Path(name), options.keep)
        if atheris is None:
            by_chance(search, options.seconds)
        else:
            by_coverage(search, options.seconds)
    search.report()
    return int(bool(search.failures))


if __name__ == "__main__":
    sys.exit(main())
