"""What a user types, and what comes back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tiny import ON_A_PLANE

ROOT = Path(__file__).resolve().parents[1]


def suite(*arguments, cwd=ROOT, **environment):
    """Call run.py in a process of its own."""
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.mark.slow
def test_a_run_ends_with_its_folder_as_the_last_line(tmp_path):
    done = suite(*ON_A_PLANE, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    assert done.returncode == 0, done.stderr
    folder = Path(done.stdout.splitlines()[-1])
    assert folder.parent.parent == tmp_path / "runs" / "simulated" and (folder / "metrics.json").is_file()
    said = done.stderr.splitlines()
    assert f"baseline: {folder}" in said and not [line for line in said if "(INFO)" in line or "GPU available" in line]
    assert f"INFO baseline: {folder}" in (folder / "run.log").read_text()


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_failure_and_ends_with_exit_code_1(tmp_path):
    where = f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"
    done = suite("-m", "+exp=evil_twin_permuted,baseline", "data.n_particles=1", *ON_A_PLANE[1:], *where)
    assert done.returncode == 1
    assert "evil_twin_permuted" in done.stderr.splitlines()[-1] and "its own twin" in done.stderr.splitlines()[-1]
    assert len(list((tmp_path / "runs").rglob("metrics.json"))) == 1


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["+exp=evil_twin_nois"], "evil_twin_noise"),
        (["trainer.max_epoch=3"], "Did you mean max_epochs?"),
        (["trainer.max_epochs=abc"], "trainer.max_epochs"),
        (["batch_size=0"], "batch_size=0: expected at least 1"),
        (["data=cryodrgn"], "data.particles is not set"),
        (["data=cryodrgn", "data.particles=nowhere.mrcs", "data.poses=p.pkl"], "nowhere.mrcs"),
        (["precision=half"], "expected one of [auto, float32, bfloat16]"),
        (["exp=vlt_zero"], "+exp=NAME"),
        (["+exp=shift_1px", "task.source=nothing"], "neither an experiment"),
    ],
)
def test_a_failure_is_one_last_line_without_traceback(tmp_path, arguments, expected):
    done = suite(*arguments, f"paths.runs={tmp_path}", HYDRA_FULL_ERROR="0")
    assert done.returncode == 1
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_hydra_full_error_shows_where():
    assert "Traceback" in suite("batch_size=0", HYDRA_FULL_ERROR="1").stderr


def test_the_papers_data_set_says_what_to_download_and_where_to_put_it(tmp_path):
    done = suite("data=empiar10076", f"paths.runs={tmp_path}", EMPIAR10076=str(tmp_path / "here"))
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    for part in ("EMPIAR", "10076", "cryodrgn downsample", "particles.128.mrcs", str(tmp_path / "here")):
        assert part in last


def test_help_explains_itself():
    shown = suite("--help").stdout
    for part in ("+exp=evil_twin_noise", "table_lr", "evil_twin_permuted_large", "data.n_particles"):
        assert part in shown


def test_the_configuration_reads_well():
    lines = suite("+exp=evil_twin_noise", "--cfg", "job").stdout.splitlines()
    assert lines[:3] == ["name: evil_twin_noise", "seed: 0", "batch_size: 8"]
    assert not [line for line in lines if "???" in line or line.startswith("schema")]


def test_experiments_complete_in_the_shell():
    done = suite("-sc", "query=bash", COMP_LINE="run.py +exp=evil_twin_no", COMP_POINT="24")
    assert "evil_twin_noise" in done.stdout


ODD = [
    "/tmp/a~b",
    "a=b",
    "/tmp/a,b",
    "/tmp/a#b",
    "/tmp/a[b",
    "/tmp/a]b",
    "a(b",
    "/tmp/\u00e9,b #c",
    "it's",
    'a"b',
    "back\\slash=",
    "a=b\\",
]


@pytest.mark.parametrize("value", ODD)
def test_a_value_that_hydra_cannot_read_is_shown_quoted_so_that_it_can(value):
    import shlex

    from hydra.core.override_parser.overrides_parser import OverridesParser

    from experiments.configuration.compose import compose
    from experiments.configuration.error_messages import one_line

    try:
        compose(f"paths.runs={value}")
    except Exception as error:
        said = one_line(error)
    assert said.startswith(f"paths.runs={value}: ") and "\n" not in said
    (quoted,) = shlex.split(said.partition("write it in quotes: ")[2])
    assert compose(quoted).paths.runs == value
    assert OverridesParser.create().parse_override(quoted).key_or_group == "paths.runs"


def test_help_shows_the_defaults_that_a_run_has():
    import re

    from omegaconf import OmegaConf

    from experiments.configuration.compose import compose

    shown = suite("--help").stdout.partition("Most-used settings")[2].partition("The slots")[0]
    settings = dict(re.findall(r"\s([\w.]+)=(\S+)", shown))
    config = compose()
    for key in ("lr", "table_lr", "trainer.max_epochs", "data.n_particles", "zdim", "batch_size", "seed"):
        assert float(settings[key]) == OmegaConf.select(config, key), key


def test_a_failure_is_one_line_and_nothing_else():
    done = suite("seed=-1")
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["seed=-1: expected at least 0 (of weights, order, noise in z, twins)"]
