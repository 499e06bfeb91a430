"""All runs for the paper: which, in what order, side by side, and what happens when one fails or all are stopped."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from experiments import paper
from experiments.claims import paper_claims
from experiments.configuration.compose import CONF_DIR
from experiments.paper import Job, Workers, jobs, main
from tests import world


def program(tmp_path, text):
    """A stand-in for run.py."""
    path = tmp_path / "program.py"
    path.write_text(text)
    return (sys.executable, str(path))


def test_every_claim_finds_the_seeds_that_it_needs():
    found = {(job.experiment, job.seed) for job in jobs()}
    judged = {*paper_claims.CRYO_EM, "mnist_vae", "mnist_vlt"}
    assert {(name, seed) for name in judged for seed in (0, 1)} <= found
    assert len(found) == len(list(jobs()))


def test_what_others_start_from_comes_first():
    order = [(job.experiment, job.seed) for job in jobs()]
    assert order[:2] == [("baseline", 0), ("baseline", 1)]
    assert order.index(("mnist_vae", 0)) < order.index(("mnist_shift_1", 0))


def test_only_what_is_asked_for_and_what_exists_is_run():
    assert [job.name for job in jobs(only=["vlt_zero"])] == ["vlt_zero seed=0", "vlt_zero seed=1"]
    assert all((CONF_DIR / "exp" / f"{job.experiment}.yaml").is_file() for job in jobs())


def test_jobs_run_side_by_side_and_never_more_than_asked_for(tmp_path):
    text = "import sys, time; from pathlib import Path; Path(__file__).with_name('r' + sys.argv[1][5:]).touch()"
    text += "; time.sleep(0.5)"
    start = time.monotonic()
    workers = Workers(2, tmp_path / "logs", program(tmp_path, text))
    most = 0

    def watch():
        nonlocal most
        while workers.seconds == [] or workers.n_left:
            most = max(most, len(workers.running))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert workers.carry_out([Job(name, 0) for name in "abcd"]) == []
    watcher.join()
    assert sorted(path.name for path in tmp_path.glob("r*")) == ["ra", "rb", "rc", "rd"]
    assert most == 2 and time.monotonic() - start >= 1


def test_each_has_one_thread_and_its_arguments(tmp_path):
    text = "import os, sys; print(os.environ['OMP_NUM_THREADS'], *sys.argv[1:])"
    Workers(1, tmp_path / "logs", program(tmp_path, text)).carry_out([Job("vlt_zero", 1, ("lr=1e-3",))])
    assert (tmp_path / "logs" / "vlt_zero-1.log").read_text() == "1 +exp=vlt_zero seed=1 lr=1e-3\n"


def test_a_failure_is_told_with_its_last_line_and_the_others_go_on(tmp_path, capsys):
    text = "import sys; print('noise'); print('it broke'); sys.exit('+exp=b' in sys.argv)"
    failures = Workers(1, tmp_path / "logs", program(tmp_path, text)).carry_out([Job(name, 0) for name in "abc"])
    assert len(failures) == 1 and failures[0].startswith("b seed=0 failed: it broke (see ")
    assert "c seed=0:" in capsys.readouterr().out


def test_stopping_stops_the_runs_and_starts_no_more(tmp_path):
    waits = program(tmp_path, "import os, time; print(os.getpid(), flush=True); time.sleep(60)")
    text = (
        "import signal, sys; from pathlib import Path; from experiments.paper import Job, Workers\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        f"w = Workers(2, Path({str(tmp_path / 'logs')!r}), {waits!r})\n"
        "try: w.carry_out([Job(n, 0) for n in 'abcd'])\n"
        "except KeyboardInterrupt: sys.exit(130)"
    )
    started = subprocess.Popen([sys.executable, "-c", text], cwd=CONF_DIR.parent)
    logs = [tmp_path / "logs" / f"{name}-0.log" for name in "ab"]
    while not all(log.exists() and log.read_text().strip() for log in logs):
        assert started.poll() is None
        time.sleep(0.05)
    started.send_signal(signal.SIGTERM)
    assert started.wait(timeout=30) == 130
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["a-0.log", "b-0.log"]
    for log in logs:
        with pytest.raises(ProcessLookupError):
            os.kill(int(log.read_text().split()[0]), 0)


def test_what_is_finished_is_not_run_again_and_the_report_is_made(tmp_path, monkeypatch, capsys):
    world.make(tmp_path, "+exp=baseline", "seed=0", metrics=world.numbers(0))
    monkeypatch.setattr(Workers, "carry_out", lambda self, wanted: [job.name for job in wanted])
    overrides = [f"paths.runs={tmp_path}", "trainer.accelerator=cpu", "precision=float32"]
    assert main([*overrides, "--only", "baseline"]) == 1  # the other seed, which the stand-in says has failed
    said = capsys.readouterr()
    assert "1 of 2 runs are finished; 1 to go" in said.out and "1 failed: baseline seed=1" in said.err
    assert (tmp_path / "claims.json").exists() and (tmp_path / "report.html").exists()


def test_a_mistaken_override_is_one_line(capsys):
    assert main(["trainer.max_epoch=3", "--only", "baseline"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_the_programs_default_is_the_suites_own():
    assert Path(paper.ROOT / paper.RUN[1]).is_file()
