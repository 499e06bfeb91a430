"""Code that was compiled once is loaded again only from a folder that nobody else can write to, and only if whole."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lightning_modules.networks import native_library
from lightning_modules.private_folder import NAME, private_folder

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "cache"


def test_it_is_made_for_this_user_alone(cache: Path) -> None:
    folder = private_folder("native")
    assert folder == cache / NAME / "native"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]


def test_a_folder_that_others_could_read_is_shut(cache: Path) -> None:
    (cache / NAME).mkdir(parents=True, mode=0o755)
    assert private_folder("native") == cache / NAME / "native"
    assert (cache / NAME).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("planted", ["writable by all", "a link", "a file"])
def test_one_that_somebody_else_could_have_filled_is_left_alone(planted: str, cache: Path, tmp_path: Path) -> None:
    folder = cache / NAME
    cache.mkdir()
    if planted == "writable by all":
        folder.mkdir()
        folder.chmod(0o777)
    elif planted == "a link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.write_text("")
    assert private_folder("native") == tmp_path / f"{NAME}-{os.getuid()}" / "native"


def test_one_of_another_user_is_left_alone(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / NAME).mkdir(parents=True, mode=0o700)
    somebody_else = os.getuid() + 1
    monkeypatch.setattr("os.getuid", lambda: somebody_else)
    assert private_folder("native") is None


def test_a_library_that_is_cut_short_or_exchanged_is_compiled_again(tmp_path: Path) -> None:
    native_library._keep(tmp_path, "x", b"library")
    assert native_library._kept(tmp_path, "x") == b"library"
    for content in (b"libr", b"another", b""):
        (tmp_path / "x.so").write_bytes(content)
        assert native_library._kept(tmp_path, "x") is None
    native_library._keep(tmp_path, "x", b"library")
    (tmp_path / "x.sha256").unlink()
    assert native_library._kept(tmp_path, "x") is None


READ_ONLY = """
import numba.core.caching as caching
for kind in vars(caching).values():
    if isinstance(kind, type) and kind.__name__.startswith(("_InTree", "_UserWide")):
        kind.from_function = classmethod(lambda *_: None)
from experiments.figures.latent_maps import _umap
print(_umap().__name__)
"""


def test_umap_is_compiled_where_packages_and_home_are_read_only(tmp_path: Path) -> None:
    """As in a container: numba's own choice of folders refuses to cache, and umap cannot be imported."""
    environment = {**os.environ, "HOME": "/nowhere", "XDG_CACHE_HOME": "/dev/null/cache", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY], env=environment, capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.stdout.strip() == "umap", done.stderr[-1000:]
