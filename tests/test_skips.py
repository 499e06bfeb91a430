"""A test that is skipped for a reason that nobody expected has failed: an empty suite is green, too."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = {
    "test_one.py": "import pytest\ndef test_a(): pytest.skip('no GPU here')\ndef test_b(): pass\n",
    "test_two.py": "import pytest\npytest.importorskip('no_such_library', reason='library gone')\n",
    "test_three.py": "import pytest\n@pytest.mark.xfail(strict=True)\ndef test_c(): assert False\n",
}


def outcome(folder: Path, *options: str) -> tuple[int, str]:
    for name, content in FILES.items():
        (folder / name).write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", "/dev/null", "--rootdir", folder, "-rs"]
    done = subprocess.run(
        [*command, *options, folder], cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["here", "in a worker"])
def test_only_what_is_expected_may_be_skipped(tmp_path: Path, workers: tuple[str, ...]) -> None:
    code, said = outcome(tmp_path, *workers, "--expected-skips=no GPU here|library gone")
    assert code == 0 and "no GPU here" in said and "library gone" in said
    code, said = outcome(tmp_path, *workers, "--expected-skips=library gone")
    assert code == 1 and "Skipped: no GPU here\nThis was not expected here" in said and "1 failed" in said
    code, said = outcome(tmp_path, *workers, "--expected-skips=no GPU here")
    assert code != 0 and "library gone\nThis was not expected here" in said


def test_without_the_option_anything_may_be(tmp_path: Path) -> None:
    code, said = outcome(tmp_path)
    assert code == 0 and "2 skipped" in said
