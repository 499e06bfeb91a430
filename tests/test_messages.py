"""Whatever goes wrong, the user reads one line that names the key."""

from dataclasses import fields

import pytest
from hydra.utils import instantiate

from experiments.configuration import validation
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import command, one_line
from experiments.configuration.schema import SCHEMAS
from lightning_modules.errors import InputError

# What the line must begin with, and what it must also say.
WRONG = {
    "seeed=1": ("seeed: ", "Did you mean seed?"),
    "trainer.max_epoch=3": ("trainer.max_epoch: ", "Did you mean max_epochs?"),
    "lr=abc": ("lr: ", "'abc'"),
    "lr=": ("lr: ", "''"),
    "seed=1.5": ("seed: ", "'1.5'"),
    "seed=null": ("seed: ", "not Optional"),
    "precision=float16": ("precision: ", "[auto, float32, bfloat16]"),
    "data.snr=high": ("data.snr: ", "'high'"),
    "encoder.layers=three": ("encoder.layers: ", "'three'"),
    "name=[1,2]": ("name: ", "list"),
    "+exp=vlt_zeros": ("In 'config': Could not find 'exp/vlt_zeros'", "vlt_zero_frozen"),
    "data=simulatd": ("In 'config': Could not find 'data/simulatd'", "simulated"),
    "encoder=huge": ("In 'config': Could not find 'encoder/huge'", "large small standard"),
    "exp=vlt_zero": ("exp: write +exp=NAME", ""),
    "data.box_px=": ("data.box_px: ", "''"),
    "latents.frozen=true": ("latents.frozen: ", "'frozen'"),
    "latents/init=zero": ("Could not override 'latents/init'", ""),
    "latents=null": ("latents=null: expected the name of a choice", "--help"),
    "encoder=3": ("encoder=3: expected the name of a choice", "--help"),
    "task/search=null": ("task/search=null: expected the name of a choice", "--help"),
    "beta=[1]": ("beta=[1]: expected a number from 0 on", "a, b, c, d"),
    "beta=-1": ("beta=-1: expected a number from 0 on", ""),
    "beta=nan": ("beta=nan: expected a finite number", ""),
    "beta=e": ("beta=e: expected a number from 0 on", ""),
    "lr=inf": ("lr=inf: expected a finite number", ""),
    f"seed={2**63}": (f"seed={2**63}: expected at most {2**63 - 1}", ""),
    f"data.seed={10**30}": (f"data.seed={10**30}: expected at most", ""),
    "name=../../x": ("name='../../x': expected a plain name", ""),
    "name=/x": ("name='/x': expected a plain name", ""),
    "name=.hidden": ("name='.hidden': expected a plain name", ""),
    "name=": ("name='': expected a plain name", ""),
    'name="a\nb"': (r"name='a\nb': expected a plain name", ""),
    'name="\x1b[31m"': (r"name='\x1b[31m': expected a plain name", ""),
    f"name={'a' * 101}": ("name='aaa", "at most 100 bytes"),
    "data.name=..": ("data.name='..': expected a plain name", ""),
    "lr 3": ("lr 3: expected KEY=VALUE", ""),
    "batch_size=0": ("batch_size=0: expected at least 1", ""),
    "epocs=3": ("epocs: ", "Did you mean trainer.max_epochs?"),
    "max_epochs=3": ("max_epochs: ", "Did you mean trainer.max_epochs?"),
    "encodr=large": ("encodr: ", "Did you mean encoder?"),
    "trainr.max_epochs=3": ("trainr: ", "Did you mean trainer?"),
    "data.n_particle=3": ("data.n_particle: ", "Did you mean n_particles?"),
    "+data.n_particle=3": ("data.n_particle: there is no such key", "Did you mean n_particles?"),
    "+exp=evil_twin_niose": ("In 'config': Could not find 'exp/evil_twin_niose'", "Did you mean evil_twin_noise?"),
    "data=simualted": ("In 'config': Could not find 'data/simualted'", "Did you mean simulated?"),
    "latents/int=zero": ("latents/int: ", "Did you mean latents/init?"),
}


def line_of(*overrides: str) -> str:
    with pytest.raises(Exception) as raised:
        validation.check(compose(*overrides))
    return one_line(raised.value)


@pytest.mark.parametrize("override", WRONG)
def test_a_wrong_override_is_one_line_that_begins_with_its_key(override: str) -> None:
    start, also = WRONG[override]
    line = line_of(override)
    assert "\n" not in line and line == line.strip()
    assert line.startswith(start)
    assert also in line
    assert "full_key" not in line and "object_type" not in line and "HYDRA_FULL_ERROR" not in line


def test_a_key_is_not_suggested_where_it_does_not_belong() -> None:
    assert "Did you mean" not in line_of("latents.frozen=true")
    assert line_of("+exp=vlt_zero", "latents.frozn=true").endswith("Did you mean frozen?")


def test_an_input_error_is_its_message() -> None:
    assert one_line(InputError("poses.pkl: 3 rows,\n  expected 5")) == "poses.pkl: 3 rows, expected 5"


def test_an_input_error_is_not_hidden_by_the_one_that_caused_it() -> None:
    with pytest.raises(InputError) as raised:
        try:
            raise ValueError("inner")
        except ValueError as error:
            raise InputError("outer") from error
    assert one_line(raised.value) == "outer"


def test_an_input_error_inside_of_hydras_is_what_counts() -> None:
    with pytest.raises(Exception) as raised:
        instantiate({"_target_": "lightning_modules.encoder_inputs.altered.RotatedInput", "clockwise_deg": 45})
    assert not isinstance(raised.value, InputError)
    assert one_line(raised.value) == "encoder_input.clockwise_deg=45: expected a multiple of 90"


def test_an_unexpected_error_says_its_type_and_where_to_look() -> None:
    line = one_line(RuntimeError("first\nsecond"))
    assert line == "RuntimeError: first second (HYDRA_FULL_ERROR=1 shows where)"


def test_an_error_without_a_message_still_says_something() -> None:
    assert one_line(ZeroDivisionError()).startswith("ZeroDivisionError")


def test_a_command_ends_in_one_line_or_in_a_traceback_where_that_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main(code: int) -> int:
        """Fail, or return."""
        if code:
            raise InputError("poses.pkl: no such file")
        return code

    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    assert main(0) == 0
    assert main(1) == 1
    assert capsys.readouterr().err == "poses.pkl: no such file\n"
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(InputError):
        main(1)


def test_every_key_has_a_line_of_help() -> None:
    for schema in SCHEMAS.values():
        for field in fields(schema):
            if not field.name.startswith("_"):
                text = field.metadata.get("help", "")
                assert text and "\n" not in text and len(text) < 120, f"{schema.__name__}.{field.name}"


def test_every_number_has_a_range_or_takes_any() -> None:
    any_number = {
        "defocus_angstrom", "dx_px", "dy_px", "mu_mean", "logvar_mean", "mu", "logvar", "clockwise_deg",
    }  # fmt: skip
    for schema in SCHEMAS.values():
        for field in fields(schema):
            if field.type in (int, float, int | None, float | None) and field.name not in any_number:
                limits = field.metadata["at_least"], field.metadata["above"]
                assert limits != (None, None), f"{schema.__name__}.{field.name}"
