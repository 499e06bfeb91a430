"""Every command works in a plain terminal, under the C locale, and with python -OO."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.machine.terminal import HANDLER, any_terminal
from tests.tiny import ON_A_PLANE

ROOT = Path(__file__).resolve().parents[1]
BY_LOCALE = ("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "PYTHONCOERCECLOCALE", "PYTHONIOENCODING")
PLAIN = {"LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONOPTIMIZE": "2"}
# As above, but Python takes the locale at its word: file names and text are ASCII.
STRICT = {**PLAIN, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def call(environment: dict[str, str], *arguments: str | Path) -> tuple[int, str]:
    """Run Python; return the exit code and what it printed."""
    kept = {name: value for name, value in os.environ.items() if name not in BY_LOCALE}
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**kept, "OMP_NUM_THREADS": "1", **environment},
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.returncode, done.stdout.decode(errors="surrogateescape")


def commands() -> list[str]:
    """Modules that are commands."""
    files = sorted((ROOT / "experiments").rglob("*.py"))
    with_main = [path for path in files if "\nif __name__ ==" in path.read_text(encoding="utf-8")]
    parts = [path.relative_to(ROOT).with_suffix("").parts for path in with_main]
    return [".".join(part for part in names if part != "__main__") for names in parts]


def test_every_command_tells_errors_and_prints_the_same_way() -> None:
    for name in commands():
        path = ROOT / f"{name.replace('.', '/')}.py"
        path = path if path.exists() else path.with_suffix("") / "__main__.py"
        assert "\n@command\ndef main(" in path.read_text(encoding="utf-8"), name


@pytest.mark.slow
def test_every_command_has_its_help_in_a_plain_terminal_without_docstrings() -> None:
    script = (
        "import runpy, sys\n"
        f"for name in {commands()!r}:\n"
        "    sys.argv = [name, '--help']\n"
        "    try:\n"
        "        runpy.run_module(name, run_name='__main__', alter_sys=True)\n"
        "    except SystemExit as end:\n"
        "        assert not end.code, name\n"
        "        print('helped', name)\n"
    )
    code, said = call({**PLAIN, "PYTHONWARNINGS": "ignore::RuntimeWarning"}, "-c", script)
    assert code == 0, said
    assert re.findall(r"^helped (\S+)$", said, re.MULTILINE) == commands()


def test_what_an_encoding_lacks_is_spelled_in_ascii_and_file_names_keep_their_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "ascii"))
    any_terminal()
    print("3.5 Å ± 2 µs × 90° \u2192 ö", end=" ")
    print(
        os.fsdecode(b"caf\xe9").encode("utf-8", "surrogateescape").decode("ascii", "surrogateescape"),
        end="",
        flush=True,
    )
    assert written.getvalue() == rb"3.5 A +- 2 us x 90 deg \u2192 \xf6 " + b"caf\xe9"
    assert sys.stdout.errors == HANDLER


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plain") / "ö Å µ"


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    """The folder of a run whose path is not in ASCII, trained in a plain terminal."""
    code, said = call(PLAIN, "run.py", *ON_A_PLANE, f"paths.runs='{folder}/runs'", f"paths.cache='{folder}/cache'")
    assert code == 0 and "Traceback" not in said and "Logging error" not in said, said
    (config,) = (folder / "runs").glob("*/*/*/config.yaml")
    return config.parent


@pytest.mark.slow
@pytest.mark.parametrize("command", ["status", "claims", "verify", "figures", "volumes", "report", "seeds", "capacity"])
def test_the_commands_work_on_a_folder_whose_name_is_not_in_ascii(command: str, trained: Path, folder: Path) -> None:
    of_one_run = command in ("verify", "figures", "volumes")
    more = ["--first", "2"] if command == "volumes" else []
    for environment in (PLAIN, STRICT) if command in ("status", "claims") else (PLAIN,):
        code, said = call(environment, "-m", "experiments", command, trained if of_one_run else folder / "runs", *more)
        assert "Traceback" not in said and "Error" not in said, said
        assert code == 0 or command == "capacity", said  # there is no capacity sweep to read


@pytest.mark.slow
def test_a_configuration_is_shown_and_a_name_beyond_the_locale_is_refused_in_one_line(tmp_path: Path) -> None:
    code, said = call(PLAIN, "run.py", "--cfg", "job", f"paths.runs='{tmp_path}/ö'")
    assert code == 0 and r"\xf6" in said, said
    code, said = call(STRICT, "run.py", *ON_A_PLANE, f"paths.runs='{tmp_path}/ö'", f"paths.cache='{tmp_path}/ö'")
    assert code == 1 and "Traceback" not in said and "Logging error" not in said, said
    assert "set PYTHONUTF8=1" in said.splitlines()[-1]
