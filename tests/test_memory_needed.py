"""Networks that cannot fit are refused before they are made, with the key that asks for them."""

from pathlib import Path

import pytest

from experiments.configuration.compose import compose, to_dict
from experiments.configuration.validation import check
from experiments.machine.memory import check_memory
from experiments.runs.building import model_of, particles_of
from lightning_modules.errors import InputError
from tests.tiny import SETTINGS, tiny


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("zdim=10000000", "zdim=10000000"),
        ("encoder.width=100000000", "encoder.layers=3, encoder.width=100000000"),
        ("latents.width=100000000", "latents.layers=3, latents.width=100000000"),
        ("decoder.layers=1000000000", "decoder.layers=1000000000"),
    ],
)
def test_what_cannot_fit_is_named_before_any_work(tmp_path: Path, override: str, named: str) -> None:
    with pytest.raises(InputError, match=rf"^.*{named}.*: about [\d,]+ GB of memory are needed and \d+ GB were found"):
        tiny(tmp_path, override)
    assert not list(tmp_path.iterdir())


def needed(*overrides: str) -> dict:
    return to_dict(check(compose(*SETTINGS, *overrides)))


@pytest.mark.parametrize("latents", ["encoder", "matched_filter"])
def test_the_estimate_is_below_what_the_networks_have(tmp_path: Path, latents: str) -> None:
    config = check(compose(*SETTINGS, f"latents={latents}", "decoder.width=64", f"paths.cache={tmp_path}"))
    model = model_of(config, particles_of(config))
    n_bytes = 16 * sum(parameter.numel() for parameter in model.parameters())
    check_memory(to_dict(config), n_bytes)
    with pytest.raises(InputError):
        check_memory(to_dict(config), n_bytes // 3)


def test_a_table_has_no_network() -> None:
    check_memory(needed("latents=lookup_table", "encoder.width=1000000"), 10**9)


def test_the_papers_sizes_fit_into_little_memory() -> None:
    for latents in ("encoder", "matched_filter"):
        check_memory(
            needed("data.n_particles=131899", "data.box_px=128", "encoder=large", f"latents={latents}"), 4 * 10**9
        )
