"""One bad folder among many: it is a row that says why, and every command goes on with the others."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.__main__ import main
from experiments.runs.folders import DAMAGED, FINISHED, find
from experiments.sweeps.status import status_of
from tests import world

HUGE = 1 << 40


def endless(path: Path) -> None:
    """A file that holds nothing and is a terabyte long."""
    with path.open("wb") as file:
        file.truncate(HUGE)


def written(content: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content) and None


def linked(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


ANY_FILE = {
    "a pipe": os.mkfifo,
    "a device": linked("/dev/zero"),
    "a loop of links": linked("config.yaml/../log.csv"),
    "endless": endless,
    "no UTF-8": written(b"\xff\xfe\x00epoch,loss/total\n"),
}
DAMAGED_BY = {
    **{f"log.csv, {name}": ("log.csv", make) for name, make in ANY_FILE.items()},
    **{f"config.yaml, {name}": ("config.yaml", make) for name, make in ANY_FILE.items()},
    **{f"metrics.json, {name}": ("metrics.json", make) for name, make in ANY_FILE.items()},
    "log.csv, other columns": ("log.csv", written(b"a,b\n1,2\n")),
    "log.csv, garbage": ("log.csv", written(bytes(range(1, 128)) * 50)),
    "config.yaml, deeply nested": ("config.yaml", written(b"[" * 30_000)),
    "config.yaml, a list": ("config.yaml", written(b"[1, 2]")),
    "config.yaml, wrong types": (
        "config.yaml",
        written(b"name: [1]\nseed: {}\ndata: 3\ntask: 1\nlatents: 2\ntrainer: []\n"),
    ),
}
HARMLESS = {
    "log.csv, torn": ("log.csv", written(b"epoch,loss/total,time/epoch_s\n1,0.5,2.0\n2,0.")),
    "log.csv, short": ("log.csv", written(b"epoch,loss/total\n1,0.5\n2\n")),
    "log.csv, empty": ("log.csv", written(b"")),
    "job.json, other types": (
        "job.json",
        written(json.dumps({"sweep": [1], "slurm": {}, "log": 3, "started": ""}).encode()),
    ),
    "job.json, nested": ("job.json", written(b"[" * 100_000)),
    "failed.json, a list": ("failed.json", written(b"[]")),
    **{f"job.json, {name}": ("job.json", make) for name, make in ANY_FILE.items()},
    **{f"run.log, {name}": ("run.log", make) for name, make in ANY_FILE.items()},
    **{f".running, {name}": (".running", make) for name, make in ANY_FILE.items()},
}


def two_runs(folder: Path) -> tuple[Path, Path]:
    """A sound run, and one to be damaged."""
    sound, other = (
        world.make(folder, "+exp=baseline", f"seed={seed}", metrics=world.numbers(seed), mu=world.informed(seed))
        for seed in (0, 1)
    )
    return sound, other


def damage(folder: Path, name: str, make: Callable[[Path], None]) -> None:
    (folder / name).unlink(missing_ok=True)
    make(folder / name)


@pytest.mark.parametrize(("name", "make"), DAMAGED_BY.values(), ids=DAMAGED_BY)
def test_a_damaged_run_is_a_row_that_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, make: Callable[[Path], None]
) -> None:
    sound, other = two_runs(tmp_path)
    damage(other, name, make)
    started = time.monotonic()
    statuses = {run.folder: run.status for run in find([tmp_path])}
    assert statuses == {sound: FINISHED, other: DAMAGED}
    assert main(["status", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "1 finished" in said and "1 damaged" in said and name in said
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("name", "make"), HARMLESS.values(), ids=HARMLESS)
def test_what_a_result_does_not_need_does_not_damage_it(
    tmp_path: Path, name: str, make: Callable[[Path], None]
) -> None:
    _, other = two_runs(tmp_path)
    damage(other, name, make)
    assert {run.status for run in find([tmp_path])} == {FINISHED}
    assert status_of(other).state == "finished"


@pytest.mark.parametrize("case", ["log.csv, a pipe", "config.yaml, endless", "metrics.json, a device"])
def test_every_command_goes_on_with_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str) -> None:
    _, other = two_runs(tmp_path)
    damage(other, *DAMAGED_BY[case])
    name = DAMAGED_BY[case][0]
    for command in ("status", "report", "claims", "seeds", "capacity"):
        main([command, str(tmp_path)])
    assert (tmp_path / "report.html").exists()
    assert name in (tmp_path / "report.html").read_text(encoding="utf-8")
    capsys.readouterr()
    for command in ("verify", "volumes --first 1", "figures"):
        command, *options = command.split()
        assert main([command, str(other), *options]) != 0
        assert "Traceback" not in "".join(capsys.readouterr())


def test_a_link_that_leads_back_is_followed_once(tmp_path: Path) -> None:
    sound, other = two_runs(tmp_path)
    for parent in (sound.parent, tmp_path):
        (parent / "back").symlink_to(tmp_path)
        (parent / "again").symlink_to(parent)
    assert {run.folder for run in find([tmp_path])} == {sound, other}


@pytest.mark.parametrize("name", ["cryodrgn", "wandb", "figures", "volumes", "checkpoints"])
def test_runs_are_known_by_what_they_are_and_not_by_their_names(tmp_path: Path, name: str) -> None:
    sound, _ = two_runs(tmp_path / name)
    for inner in ("cryodrgn", "wandb"):  # files of other programs, inside of a run and beside it
        for folder in (sound / inner, tmp_path / inner / "files"):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "config.yaml").write_text("dataset_args: {particles: a.mrcs}\nmodel_args: {zdim: 8}\n")
    assert {run.folder.parts[-2] for run in find([tmp_path])} == {"baseline"}
    assert len(find([tmp_path])) == 2


def test_escape_sequences_in_names_do_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound, _ = two_runs(tmp_path)
    config = (sound / "config.yaml").read_text(encoding="utf-8")
    (sound / "config.yaml").write_text(config.replace("name: baseline", 'name: "\\e[31mred\\nline"'), encoding="utf-8")
    main(["status", str(tmp_path)])
    said = capsys.readouterr().out
    assert "\x1b" not in said and "\\x1b[31mred\\nline" in said
