"""Rooms import one way, and the linter says so; every command is listed and can be run by its name."""

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from experiments.__main__ import COMMANDS, main

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "imported"),
    [
        ("experiments/metrics/fsc.py", "experiments.runs.run"),
        ("experiments/configuration/compose.py", "torch"),
        ("lightning_modules/elbo.py", "experiments.runs.run"),
        ("lightning_modules/files/atomic.py", "lightning_modules.particles.particles"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, module: str, imported: str):
    for name in ("experiments", "lightning_modules"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a", encoding="utf-8") as file:
        file.write(f"import {imported}\n")
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and imported.split(".")[0] in done.stdout and "BROKEN" in done.stdout


def test_every_command_is_there_and_listed(capsys: pytest.CaptureFixture[str]):
    assert all(callable(import_module(module).main) for module, _ in COMMANDS.values())
    assert main([]) == 0
    listed = capsys.readouterr().out
    assert all(f"  {name} " in listed for name in COMMANDS)


@pytest.mark.parametrize("page", ["README.md", *sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("docs/*.md"))])
def test_what_the_documentation_names_is_there(page: str):
    text = (ROOT / page).read_text(encoding="utf-8")
    for module, names in re.findall(r"^\s*from (experiments[\w.]*) import ([\w, ]+)$", text, flags=re.MULTILINE):
        for name in names.split(", "):
            assert getattr(import_module(module), name).__module__ == module, f"{name} is not at home in {module}"
    for path in re.findall(r"`((?:experiments|lightning_modules)/[\w./]*)`", text):
        assert (ROOT / path).exists(), path
    assert not re.search(r"-m experiments\.", text)
    for name in re.findall(r"-m experiments (\w+)", text):
        assert name in COMMANDS, name


def test_a_misspelt_command_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["reprot", "runs"]) == 2
    assert capsys.readouterr().err == "reprot: there is no such command. Did you mean report?\n"


def test_a_room_holds_at_most_fifteen_modules_and_says_what_belongs_there():
    for package in ("experiments", "lightning_modules"):
        for room in (path.parent for path in (ROOT / package).glob("*/__init__.py")):
            assert len([path for path in room.glob("*.py") if path.name != "__init__.py"]) <= 15, room
            assert (room / "__init__.py").read_text(encoding="utf-8").startswith('"""'), room
