"""The encoder's C++ computes what torch's operations compute, as exactly, whatever the sizes."""

from pathlib import Path

import pytest
import torch
from cryodrgn.models import MLP, ResidLinearMLP
from torch import Tensor, nn

from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.building import untrained_model
from experiments.runs.run import Run
from lightning_modules.latents.encoder import AmortizedEncoder
from lightning_modules.networks import native_few_rows
from lightning_modules.networks.native_few_rows import MOST_ROWS
from lightning_modules.networks.native_library import without_native_code
from lightning_modules.networks.residual_mlp import residual_mlp
from lightning_modules.particles.digits import PlainImages
from tests.tiny import SETTINGS

pytestmark = pytest.mark.usefixtures("native")

SIZES = {  # rows, inputs, hidden layers, width, outputs
    "the paper's at 32 px": (8, 797, 3, 256, 16),
    "an epoch's last": (5, 797, 3, 256, 16),
    "tails everywhere": (11, 35, 2, 50, 3),
    "fewer units than threads": (1, 3, 1, 2, 1),
    "residuals at both ends": (9, 32, 2, 32, 32),
    "as many rows as it takes": (MOST_ROWS, 64, 1, 48, 4),
}


def network_and_input(size: str, activation: type[nn.Module] = nn.ReLU) -> tuple[nn.Module, Tensor]:
    rows, *sizes = SIZES[size]
    torch.manual_seed(0)
    return ResidLinearMLP(*sizes, activation), torch.randn(1, rows, sizes[0])


def outcome(network: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """Outputs, and gradients of a function of them in which every output counts differently."""
    y = residual_mlp(network, x)
    weights = torch.sin(torch.arange(y.numel(), dtype=y.dtype)).view_as(y)
    parameters = dict(network.named_parameters())
    found = torch.autograd.grad((weights * y).sum(), list(parameters.values()))
    return {"y": y.detach(), **dict(zip(parameters, found, strict=True))}


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_as_exact_as_float32_can_be(
    size: str, activation: type[nn.Module], n_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, x = network_and_input(size, activation)
    calls = []
    monkeypatch.setattr(native_few_rows, "_call", lambda *a, call=native_few_rows._call: [calls.append(a[0]), call(*a)])
    found = outcome(network, x)
    assert calls == ["forward", "backward"]
    exact = outcome(network.double(), x.double())
    assert len(calls) == 2
    errors = {name: error(found[name].double(), value) for name, value in exact.items()}
    assert max(errors.values()) < 2e-6, errors


def test_a_network_without_residuals_is_one_too() -> None:
    torch.manual_seed(0)
    network, x = MLP(20, 1, 30, 4, nn.ReLU), torch.randn(1, 6, 20)
    found = outcome(network, x)
    exact = outcome(network.double(), x.double())
    assert all(error(found[name].double(), value) < 2e-6 for name, value in exact.items())


def test_the_same_threads_give_the_same_bits(n_threads: int) -> None:
    network, x = network_and_input("the paper's at 32 px")
    once, again = outcome(network, x), outcome(network, x)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_what_is_no_number_stays_none_and_a_unit_that_is_off_gives_zero() -> None:
    network, x = network_and_input("the paper's at 32 px")
    x[0, 3, 5] = torch.nan
    y = residual_mlp(network, x)[0]
    assert y[3].isnan().all() and not y[:3].isnan().any() and not y[4:].isnan().any()
    with torch.no_grad():
        network.main[0].bias[7] = -torch.inf  # times a slope of 0 it would be none
        assert residual_mlp(network, x)[0, 0].isfinite().all()


@pytest.mark.parametrize("why", ["many rows", "float64", "a bias for each", "x has a gradient", "switched off"])
def test_what_it_is_not_made_for_is_left_to_torch(why: str) -> None:
    rows, parameters = torch.zeros(MOST_ROWS, 4), [torch.zeros(5, 4), torch.zeros(1, 5)]
    assert native_few_rows.takes(rows, parameters)
    if why == "switched off":
        with without_native_code():
            assert not native_few_rows.takes(rows, parameters)
        return
    if why == "many rows":
        rows = torch.zeros(MOST_ROWS + 1, 4)
    elif why == "float64":
        parameters[0] = parameters[0].double()
    elif why == "a bias for each":
        parameters[1] = torch.zeros(2, 5)
    else:
        rows.requires_grad_()
    assert not native_few_rows.takes(rows, parameters)


def test_the_encoder_infers_by_it_what_it_infers_by_torch() -> None:
    torch.manual_seed(0)
    encoder, x = AmortizedEncoder(PlainImages(797), 8, zdim=4, layers=3, width=256), torch.randn(8, 797)
    mu, logvar = encoder(x, torch.arange(8))
    assert "NativeFewRows" in _made_by(mu)
    with without_native_code():
        mu_by_torch, logvar_by_torch = encoder(x, torch.arange(8))
    assert "NativeFewRows" not in _made_by(mu_by_torch)
    torch.testing.assert_close((mu, logvar), (mu_by_torch, logvar_by_torch), rtol=1e-5, atol=1e-6)


def _made_by(y: Tensor) -> str:
    names, function = [], y.grad_fn
    while function is not None:
        names.append(function.name())
        function = function.next_functions[0][0] if function.next_functions else None
    return " ".join(names)


@pytest.mark.parametrize("on", [True, False])  # not by the name of the fixture, which it would replace
def test_the_switch_holds_for_the_encoder_too(on: bool, tmp_path: Path) -> None:
    settings = [*SETTINGS, f"paths.cache={tmp_path}", f"trainer.native={str(on).lower()}"]
    model = untrained_model(Run(check(compose(*settings)), tmp_path), None)
    model.prepare()
    mu, _ = model.infer(model.observe(torch.arange(8)))
    assert ("NativeFewRows" in _made_by(mu)) is on
