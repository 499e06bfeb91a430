"""A results folder from somebody else: no command runs, builds or resolves what its configuration names."""

import shutil
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from experiments.__main__ import main
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import one_line
from experiments.runs.execution import execute
from tests.test_earlier_runs import EARLIER, FOLDERS

SECRET = "a-secret-of-this-machine"
HIDDEN = "hidden: {a: oc, b: env, c: create}\n"
VALUES = {
    "the environment": "${oc.env:SECRET}",
    "the environment, by a hidden name": "${${hidden.a}.${hidden.b}:SECRET}",
    "the environment, in a list": "['${${hidden.a}.${hidden.b}:SECRET}']",
    "another object": "'${${hidden.a}.${hidden.c}:{_target_:builtins.open,file:MARKER,mode:w}}'",
}
COMMANDS = ("verify", "volumes", "figures", "report", "claims", "status", "seeds", "capacity")
EXPERIMENTS = {"infer": "task.source", "shift_1px": "task.source", "audit": "audit.run"}


def poisoned(folder: Path, value: str) -> Path:
    """Return a finished run of which one value would be computed."""
    run = folder / "runs" / "simulated" / "baseline" / FOLDERS["baseline"]
    shutil.copytree(EARLIER / "simulated" / "baseline" / FOLDERS["baseline"], run)
    path, value = run / "config.yaml", value.replace("MARKER", str(folder / "ran"))
    text = path.read_text(encoding="utf-8").replace("name: baseline", f"name: {value}")
    path.write_text(text + HIDDEN, encoding="utf-8")
    return run


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_nothing_of_a_foreign_configuration_is_run_or_shown(
    tmp_path: Path, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SECRET", SECRET)
    run = poisoned(tmp_path, value)
    for command in COMMANDS:
        of_one = command in ("verify", "volumes", "figures")
        main([command, str(run if of_one else tmp_path / "runs"), *(["--first", "1"] if command == "volumes" else [])])
    out = (f"paths.runs={tmp_path}/out", f"paths.cache={tmp_path}/out")
    refusals = []
    for experiment, key in EXPERIMENTS.items():
        with pytest.raises(Exception) as refused:
            execute(compose(f"+exp={experiment}", f"{key}={run}", "trainer.accelerator=cpu", *out))
        refusals.append(one_line(refused.value))
    said = "".join(capsys.readouterr())
    assert said.count("would be computed") >= 3 and all("would be computed" in text for text in refusals[:2])
    assert SECRET not in said + "".join(refusals) and not (tmp_path / "ran").exists()
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]


SWAPPED = {
    "decoder": "experiments.tracking.loggers.wandb_logger",
    "latents": "experiments.tasks.train.Train",
    "model": "lightning_modules.simulation.particles.SimulatedParticles",
    "task": "hydra_plugins.grid.grid_sweeper.GridSweeper",
    "data": "lightning_modules.latents.table_init.RandomLatents",
}


@pytest.mark.parametrize(("slot", "target"), SWAPPED.items(), ids=SWAPPED)
def test_what_the_suite_builds_elsewhere_is_not_built_in_this_slot(
    tmp_path: Path, slot: str, target: str, capsys: pytest.CaptureFixture[str]
):
    run = poisoned(tmp_path, "baseline")
    config = OmegaConf.load(run / "config.yaml")
    del config["hidden"]
    config[slot]._target_ = target
    OmegaConf.save(config, run / "config.yaml")
    for command in ("verify", "volumes", "figures"):
        assert main([command, str(run), *(["--first", "1"] if command == "volumes" else [])]) == 1
        assert f"it would build {target} as {slot}, which no file of conf/{slot} names" in "".join(capsys.readouterr())


def test_a_part_within_a_part_is_refused_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = poisoned(tmp_path, "baseline")
    config = OmegaConf.load(run / "config.yaml")
    del config["hidden"]
    config.decoder.width = {"_target_": "lightning_modules.networks.slice_decoder.SliceDecoder"}
    OmegaConf.save(config, run / "config.yaml")
    assert main(["verify", str(run)]) == 1
    assert "SliceDecoder as decoder.width" in "".join(capsys.readouterr())
