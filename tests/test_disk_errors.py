"""A disk that is full, broken or read-only is told in one line; nothing is half-written, nothing damaged."""

import errno
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.machine.disk_errors import disk_errors_as_input_errors
from experiments.runs import execution
from experiments.runs.run import Run
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import UNFINISHED, write_atomically
from tests.hostile import as_somebody
from tests.tiny import trusted
from tests.world import configuration


class Writes:
    """A task that writes a file of some size in the run's folder."""

    n_bytes = 1 << 20

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        write_atomically(run.folder / "latents.npz", lambda path: path.write_bytes(bytes(self.n_bytes)))
        return {"loss/total": 1.0}


@pytest.fixture(autouse=True)
def _trusted() -> Iterator[None]:
    with trusted(Writes):
        yield


@contextmanager
def files_of_at_most(n_bytes: int) -> Iterator[None]:
    """Let the system refuse to write more than that into a file, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def config_in(folder: Path) -> Any:
    config = configuration(f"paths.runs={folder}/runs", f"paths.cache={folder}/cache").copy()
    config.task._target_ = "tests.test_disk_errors.Writes"
    return config


def test_a_run_on_a_full_disk_ends_in_one_line_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    config = config_in(tmp_path)
    with (
        files_of_at_most(100_000),
        pytest.raises(InputError, match=r"cannot be read or written \(.*make room") as raised,
    ):
        execution.execute(config)
    assert "\n" not in str(raised.value)
    assert not [path for path in tmp_path.rglob("*") if UNFINISHED in path.name or path.stem == "metrics"]
    assert execution.execute(config).metrics == {"loss/total": 1.0}


def test_what_is_there_stays_whole_when_the_disk_is_full(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.save({"a": torch.zeros(10)}, path)
    before = path.read_bytes()
    with files_of_at_most(1000), pytest.raises(InputError, match="make room"), disk_errors_as_input_errors(tmp_path):
        write_atomically(path, lambda unfinished: torch.save({"a": torch.zeros(100_000)}, unfinished))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EIO"])
def test_what_a_disk_answers_names_the_file(tmp_path: Path, number: str) -> None:
    code = getattr(errno, number)
    with (
        pytest.raises(InputError, match=rf"metrics\.json: .*{os.strerror(code)}"),
        disk_errors_as_input_errors(tmp_path),
    ):
        raise OSError(code, os.strerror(code), str(tmp_path / "metrics.json"))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    for error in (OSError("odd"), RuntimeError("shapes"), FileNotFoundError(errno.ENOENT, "gone")):
        with pytest.raises(type(error)) as raised, disk_errors_as_input_errors(tmp_path):
            raise error
        assert raised.value is error


def test_a_read_only_folder_is_refused_and_stays_as_it_is() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config = config_in(Path(name))
        run = Run.of(config)
        run.folder.mkdir(parents=True)
        (run.folder / "config.yaml").write_text("old")
        (run.folder / "log.csv").write_text("epoch\n")
        for path in [*Path(name).rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
        with as_somebody(), pytest.raises(InputError, match=r"ermission denied.*mend the permissions") as raised:
            execution.execute(config)
        assert run.folder.name in str(raised.value) and "\n" not in str(raised.value)
        found = {path.name: path.read_text() for path in run.folder.iterdir()}
        assert found == {"config.yaml": "old", "log.csv": "epoch\n"}
        for path in Path(name).rglob("*"):
            path.chmod(0o755)


def test_a_finished_run_may_lie_in_a_read_only_folder() -> None:
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        config = config_in(Path(name))
        run = Run.of(config)
        run.folder.mkdir(parents=True)
        (run.folder / "metrics.json").write_text(json.dumps({"loss/total": 2.0}))
        for path in [*Path(name).rglob("*")]:
            path.chmod(0o755 if path.is_dir() else 0o444)
        with as_somebody():
            assert execution.execute(config).metrics == {"loss/total": 2.0}
