"""Runs are found in whatever state they are, and nothing about them is taken for granted."""

import pytest

from experiments.runs.folders import DAMAGED, FAILED, FINISHED, UNFINISHED, find, look
from lightning_modules.errors import InputError
from tests import world

NO_NUMBER = """epoch,loss/total,loss/kl
1,2.5,nan
2,,x
"""
TRACEBACK = """2026-01-01 10:00:00,000 INFO baseline: runs/x
2026-01-01 10:00:09,000 ERROR failed: loss became nan; lower lr
Traceback (most recent call last):
  File "a.py", line 1, in <module>
lightning_modules.errors.InputError: loss became nan; lower lr
"""
STARTED_AGAIN = "2026-01-01 11:00:00,000 INFO baseline: runs/x\n"
INTERRUPTED = """2026-01-01 10:00:09,000 ERROR failed:
Traceback (most recent call last):
KeyboardInterrupt
"""
WITHOUT_WORDS = """2026-01-01 10:00:09,000 ERROR failed:
Traceback (most recent call last):
MemoryError
"""


@pytest.fixture
def folder(tmp_path):
    return world.make(tmp_path, "+exp=baseline", "seed=3", metrics=None)


def test_a_run_without_metrics_is_unfinished_and_says_how_far_it_came(folder):
    found = look(folder)
    assert (found.status, found.problem, found.name, found.seed) == (UNFINISHED, "5 of 16 epochs done", "baseline", 3)


@pytest.mark.parametrize("log, status, problem", [
    (TRACEBACK, FAILED, "loss became nan; lower lr"),
    (WITHOUT_WORDS, FAILED, "MemoryError"),
    (TRACEBACK + STARTED_AGAIN, UNFINISHED, "5 of 16 epochs done"),
    (INTERRUPTED, UNFINISHED, "5 of 16 epochs done"),
    ("no log line at all", UNFINISHED, "5 of 16 epochs done"),
])  # fmt: skip
def test_the_last_attempt_decides_whether_it_failed(folder, log, status, problem):
    (folder / "run.log").write_text(log)
    assert (look(folder).status, look(folder).problem) == (status, problem)


def test_a_finished_run_has_its_numbers(folder):
    (folder / "metrics.json").write_text('{"loss/total": 0.5, "loss/kl": null, "x": "text"}')
    found = look(folder)
    assert found.status == FINISHED and found.problem == ""
    assert [found.number(key) for key in ("loss/total", "loss/kl", "x", "missing")] == [0.5, None, None, None]


@pytest.mark.parametrize("name, text", [("config.yaml", "a: [1"), ("config.yaml", "a: ${b}"), ("metrics.json", "{")])
def test_a_damaged_file_is_named_in_one_line(folder, name, text):
    (folder / name).write_text(text)
    found = look(folder)
    assert found.status == DAMAGED and name in found.problem and "\n" not in found.problem


def test_what_is_no_number_in_the_log_is_left_out(folder):
    (folder / "log.csv").write_text(NO_NUMBER)
    assert look(folder).rows == [{"epoch": 1, "loss/total": 2.5}, {"epoch": 2}]


def test_a_run_is_found_once_from_any_folder_above_it(folder, tmp_path):
    (folder / "cryodrgn").mkdir()
    (folder / "cryodrgn" / "config.yaml").write_text("players: 3")
    for roots in ([tmp_path], [folder], [folder.parent, tmp_path]):
        assert [found.folder for found in find(roots)] == [folder]


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_where_there_is_no_run_one_line_says_so(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=name):
        find([tmp_path / name])
