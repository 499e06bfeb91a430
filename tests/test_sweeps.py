"""Many runs: what is finished is left out, what others need comes first, and what came of each is told."""

import json
import os
import socket
import threading
import time

import pytest

from experiments.configuration.compose import compose
from experiments.runs import execution, state
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.sweeps import planning
from experiments.tasks.train import Train
from lightning_modules.errors import InputError
from tests.tiny import SETTINGS


def wanted(tmp_path, *overrides):
    where = f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"
    return planning.wanted(overrides, compose(*SETTINGS, *where, *overrides))


def finish(run):
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.json").write_text(json.dumps({"loss/total": 1.0}))


def names(plan):
    return [entry.run.config.name for entry in plan]


def test_sources_come_first_and_the_rest_stays_in_order(tmp_path):
    grid = [wanted(tmp_path, f"+exp={exp}") for exp in ("shift_1px", "vlt_zero", "vlt_pretrained_frozen", "baseline")]
    plan = planning.plan(grid)
    assert names(plan) == ["vlt_zero", "baseline", "shift_1px", "vlt_pretrained_frozen"]
    assert [entry.needs for entry in plan] == [(), (), (1,), (1,)]


def test_each_seed_has_its_own_source(tmp_path):
    plan = planning.plan(
        [wanted(tmp_path, f"+exp={exp}", f"seed={s}") for s in (0, 1) for exp in ("baseline", "shift_1px")]
    )
    assert [(entry.run.config.seed, entry.needs) for entry in plan] == [(0, ()), (1, ()), (0, (0,)), (1, (1,))]


def test_a_source_that_is_not_in_the_sweep_is_left_to_the_first_that_needs_it(tmp_path):
    plan = planning.plan([wanted(tmp_path, f"+exp={exp}") for exp in ("shift_1px", "rotate_90", "vlt_pretrained")])
    assert [entry.needs for entry in plan] == [(), (0,), (0,)]


def test_a_source_of_a_source_is_waited_for(tmp_path):
    grid = [("+exp=shift_1px", "task.source=baseline_small"), ("+exp=baseline_small",)]
    assert names(planning.plan([wanted(tmp_path, *overrides) for overrides in grid])) == ["baseline_small", "shift_1px"]


def test_finished_runs_are_left_out_and_so_is_the_wait_for_them(tmp_path):
    grid = [wanted(tmp_path, f"+exp={exp}") for exp in ("baseline", "shift_1px")]
    finish(grid[0].run)
    plan = planning.plan(grid)
    assert names(plan) == ["shift_1px"] and plan[0].needs == ()


def test_overwriting_a_source_makes_those_that_need_it_wait(tmp_path):
    grid = [wanted(tmp_path, f"+exp={exp}", "overwrite=true") for exp in ("shift_1px", "baseline")]
    for entry in grid:
        finish(entry.run)
    plan = planning.plan(grid)
    assert names(plan) == ["baseline", "shift_1px"] and plan[1].needs == (0,)
    with planning.submitted(plan, tmp_path):
        assert [entry.run.metrics for entry in plan] == [None, None]
    # A job that is queued again continues: it is not told to start over.
    assert all(entry.overrides[-1] == "overwrite=false" for entry in plan)


def test_the_same_run_twice_is_carried_out_once(tmp_path):
    assert len(planning.plan([wanted(tmp_path, "seed=0"), wanted(tmp_path, "+exp=baseline")])) == 1


def test_precision_is_decided_once_for_all_jobs(tmp_path):
    composed = compose(*SETTINGS, "precision=auto", f"paths.runs={tmp_path}", "+exp=shift_1px")
    entry = planning.wanted((), composed, auto_precision="bfloat16")
    assert entry.overrides == ("precision=bfloat16",)
    assert entry.run.config.precision.name == entry.run.source().config.precision.name == "bfloat16"
    assert planning.wanted((), composed, auto_precision="float32").run.folder != entry.run.folder


def test_a_configuration_that_cannot_be_used_is_reported_and_stops_no_other(tmp_path, capsys):
    bad, good = wanted(tmp_path, "batch_size=0"), wanted(tmp_path)
    assert isinstance(bad, planning.Refused) and planning.plan([good])
    finish(good.run)
    with pytest.raises(planning.SweepError, match=r"1 of 2 not finished.*batch_size=0: expected at least 1"):
        planning.report([bad, good])
    assert "1 finished, 1 failed" in capsys.readouterr().out


def test_a_run_that_is_waited_for_by_a_sweep_shows_as_waiting(tmp_path):
    from experiments.sweeps.status import status_of

    plan = planning.plan([wanted(tmp_path)])
    state.write_failure(plan[0].run.folder, "an earlier sweep's")
    with planning.submitted(plan, tmp_path):
        assert status_of(plan[0].run.folder).state == "waiting"
    assert status_of(plan[0].run.folder).state == "stopped"


def fails(self, run, source):
    raise InputError(f"{run.config.name} cannot be done")


def test_a_failed_source_fails_those_that_need_it_at_once_and_is_tried_once(tmp_path, monkeypatch):
    tried = []
    monkeypatch.setattr(Train, "__call__", lambda self, run, source: (tried.append(run), fails(self, run, source)))
    for exp in ("shift_1px", "baseline", "vlt_pretrained"):
        entry = wanted(tmp_path, f"+exp={exp}")
        with pytest.raises(InputError, match="baseline cannot be done"):
            execute(entry.run.config, in_sweep=True)
        failure = state.read_failure(entry.run.folder)
        assert failure is not None and "baseline cannot be done" in failure.reason
    assert len(tried) == 1
    assert "needs baseline (seed 0), which failed" in failure.reason


def test_the_next_sweep_tries_again(tmp_path, monkeypatch):
    entry = wanted(tmp_path, "+exp=shift_1px")
    with monkeypatch.context() as patched, pytest.raises(InputError):
        patched.setattr(Train, "__call__", fails)
        execute(entry.run.config, in_sweep=True)
    assert state.read_failure(entry.run.source().folder) is not None
    monkeypatch.setattr(Train, "__call__", lambda self, run, source: {"tried": "again"})
    with planning.submitted(planning.plan([entry]), tmp_path):
        source = execute(entry.run.source().config, in_sweep=True)
    assert source.metrics == {"tried": "again"} and state.read_failure(source.folder) is None


def test_who_runs_it_alone_tries_again_whatever_failed_before(tmp_path, monkeypatch):
    with monkeypatch.context() as patched, pytest.raises(InputError):
        patched.setattr(Train, "__call__", fails)
        execute(wanted(tmp_path).run.config, in_sweep=True)
    monkeypatch.setattr(Train, "__call__", lambda self, run, source: {"tried": "again"})
    run = execute(wanted(tmp_path).run.config)
    assert run.metrics == {"tried": "again"} and state.read_failure(run.folder) is None


def test_finished_runs_are_recognized_in_well_under_a_second_each(tmp_path):
    composed = [compose(*SETTINGS, f"paths.runs={tmp_path}", "+exp=shift_1px", f"seed={seed}") for seed in range(5)]
    for config in composed:
        finish(Run.of(config))
    began = time.process_time()
    assert planning.plan([planning.wanted((), config) for config in composed]) == []
    assert (time.process_time() - began) / 5 < 0.5


def test_the_log_of_a_waiting_process_names_who_it_waits_for(tmp_path, monkeypatch):
    run = wanted(tmp_path).run
    run.folder.mkdir(parents=True)
    is_waited_for = threading.Event()

    def hold():
        with state.lease(run.folder):
            is_held.set()
            is_waited_for.wait(30)
            (run.folder / "metrics.json").write_text("{}")

    is_held = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    is_held.wait(30)
    said = []
    monkeypatch.setattr(execution.logger, "info", lambda text, *parts: (said.append(text % parts), is_waited_for.set()))
    assert execute(run.config).metrics == {}
    holder.join()
    assert said == [f"waiting for baseline, which process {os.getpid()} on {socket.gethostname()} is at"]
