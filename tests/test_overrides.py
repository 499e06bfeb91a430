"""A run's command line makes that run again."""

import shlex

import pytest

from experiments.configuration.compose import CONF_DIR, compose, to_dict
from experiments.configuration.overrides import command_line, overrides_of
from experiments.runs.run import Run
from lightning_modules.errors import InputError

HERE = ("trainer.accelerator=cpu", "precision=float32")  # what the hardware decides otherwise
EXPERIMENTS = sorted({path.stem for path in (CONF_DIR / "exp").glob("*.yaml")} - {"audit"})  # it needs a run


def run_of(*overrides):
    return Run.of(compose(*HERE, *overrides))


def again(run):
    return Run.of(compose("trainer.accelerator=cpu", *overrides_of(to_dict(run.config))))


@pytest.mark.parametrize("exp", EXPERIMENTS)
def test_every_experiment_is_its_name(exp):
    run = run_of(f"+exp={exp}")
    assert again(run).folder == run.folder
    assert f"+exp={exp}" in overrides_of(to_dict(run.config))


@pytest.mark.parametrize("overrides", [
    ["seed=3", "data.snr=0.05", "trainer.max_epochs=7"],
    ["encoder=large"],
    ["encoder.width=64", "zdim=4"],
    ["latents=lookup_table", "latents/init=zero", "latents.frozen=true"],
    ["latents=lookup_table", "latents/init=zero", "latents.init.logvar=-2"],
    ["encoder_input=rotated", "encoder_input.clockwise_deg=180"],
    ["metadata=consistent"],
    ["+exp=shift_1px", "encoder_input.dx_px=-3", "task.source=baseline_large"],
    ["beta=a", "beta_control=0.5"],
    ["beta=2.5e-3"],
    ["precision=bfloat16"],
    ["name=mine", "encoder_input=noise_twin"],
    ["data=empiar10076", "lr=3e-4"],
    ["data=cryodrgn", r"data.particles='/a b/it\'s, (1) {x}=$y\\.mrcs'", "data.poses='/p;q.pkl'", "data.invert=false"],
    ["data=cryodrgn", "data.particles='/x/<img src=x onerror=alert(1)>.mrcs'", "data.poses='/null'"],
])  # fmt: skip
def test_overrides_lead_back_to_the_same_run(overrides):
    run = run_of(*overrides)
    assert again(run).folder == run.folder


def test_they_say_only_what_differs():
    config = to_dict(run_of("+exp=vlt_zero", "seed=1", "encoder.width=64").config)
    assert sorted(overrides_of(config)) == ["+exp=vlt_zero", "encoder.width=64", "precision=float32", "seed=1"]


def test_a_command_line_survives_the_shell():
    overrides = ["+exp=baseline", "data.particles='a b.mrcs'", "paths.runs=$HOME; rm -rf x"]
    assert shlex.split(command_line(overrides)) == ["python", "run.py", *overrides]


def test_a_configuration_of_something_else_has_none():
    with pytest.raises(InputError, match="no overrides"):
        overrides_of({"players": 3})


def test_a_key_that_the_suite_no_longer_has_is_left_out():
    config = to_dict(run_of("+exp=vlt_zero").config) | {"was_once": 3}
    assert overrides_of(config) == ["+exp=vlt_zero", "precision=float32"]
