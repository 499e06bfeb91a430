"""Every fast way of training takes part in the measurements, and the plain ones that it is held against."""

import pytest

from experiments.benchmarks.measuring import PRECISIONS, precision_of, ways
from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from lightning_modules.networks import native_library


@pytest.mark.parametrize("gpu", [True, False])
def test_what_can_be_switched_off_takes_part_with_and_without(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "library", lambda: object())
    configs = {name: check(compose(*way)) for name, way in ways(gpu).items()}
    assert all(config.precision.name == precision_of(name) for name, config in configs.items())
    assert set(PRECISIONS) < set(configs)
    for name, config in configs.items():
        fast = name not in PRECISIONS
        assert config.trainer.capture is (fast and gpu)
        assert gpu or config.trainer.native is fast


def test_without_a_compiler_nothing_is_called_by_the_name_of_the_c_plus_plus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_library, "library", lambda: None)
    assert ways(gpu=False).keys() == set(PRECISIONS)
