"""Threads wait for each other in a loop only where nobody else wants the processor."""

import os
import subprocess
import sys
import time

import pytest

from experiments.machine import hardware


@pytest.fixture(autouse=True)
def _no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="how many programs run, is read from Linux's /proc")
def test_another_program_is_noticed() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            deadline = time.monotonic() + 30
            while not hardware.others_running():
                assert time.monotonic() < deadline
        finally:
            busy.kill()


@pytest.mark.parametrize(("others", "expected"), [(True, "3000"), (False, None)])
def test_beside_another_program_threads_wait_briefly(
    others: bool, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "others_running", lambda: others)
    hardware.wait_briefly_beside_others()
    assert os.environ.get("GOMP_SPINCOUNT") == expected


@pytest.mark.parametrize("name", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"])
def test_what_the_user_has_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "others_running", lambda: True)
    monkeypatch.setenv(name, "17")
    hardware.wait_briefly_beside_others()
    assert os.environ[name] == "17" and len({"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys()) == 1
