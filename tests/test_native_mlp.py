"""The decoder's C++ computes what torch's operations compute, as exactly, whatever the sizes."""

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from cryodrgn.models import ResidLinearMLP
from torch import Tensor, nn

from lightning_modules.image_formation import ImageFormation
from lightning_modules.networks import native_library, native_mlp
from lightning_modules.networks.native_library import without_native_code
from lightning_modules.networks.residual_mlp import residual_mlp
from lightning_modules.networks.slice_decoder import SliceDecoder

pytestmark = pytest.mark.usefixtures("native")

SIZES = {  # items, rows of each, inputs, width, outputs, hidden layers
    "the paper's at 32 px": (8, 398, 96, 256, 2, 3),
    "an odd number of rows, tails everywhere": (3, 77, 90, 48, 2, 2),
    "fewer rows than threads": (1, 1, 10, 32, 1, 1),
    "wide": (2, 131, 96, 512, 2, 2),
}


def network_and_input(size: str, activation: type[nn.Module] = nn.ReLU) -> tuple[nn.Module, Tensor, Tensor]:
    items, rows, inputs, width, outputs, layers = SIZES[size]
    torch.manual_seed(0)
    network = ResidLinearMLP(inputs + 4, layers, width, outputs, activation)
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.1)
    x = torch.randn(items, rows, inputs).bfloat16()  # exact, so that rounding on the way is what differs
    return network, x, torch.randn(items, 4, requires_grad=True)


def seen(y: Tensor) -> Tensor:
    """What the loss takes from y: every row counts differently."""
    return torch.sin(torch.arange(y.numel(), dtype=torch.float32)).view_as(y)


def outcome(network: nn.Module, x: Tensor, z: Tensor, of: list[Tensor] | None = None) -> dict[str, Tensor]:
    """Outputs, and gradients of a function of them: those of z and the parameters, or of others."""
    y = residual_mlp(network, x, z)
    parameters = {"z": z, **dict(network.named_parameters())} if of is None else dict(enumerate(of))
    found = torch.autograd.grad((seen(y) * y).sum(), list(parameters.values()))
    return {"y": y.detach(), **dict(zip(map(str, parameters), found, strict=True))}


def rounded(values: Tensor) -> Tensor:
    return values.bfloat16().double()


@torch.no_grad()
def expected_outcome(network: nn.Module, x: Tensor, z: Tensor) -> dict[str, Tensor]:
    """The same in float64, but for what a layer gives and its gradient, and for the weights: they are rounded."""
    layers = [getattr(layer, "linear", layer) for layer in list(network.main)[::2]]
    slope, n = getattr(network.main[1], "negative_slope", 0.0), x.shape[-1]
    weights = [rounded(layer.weight) for layer in layers[:-1]] + [layers[-1].weight.double()]
    weights[0] = weights[0][:, :n]
    biases = [layer.bias.double() for layer in layers]
    hidden = [x.double()]
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        u = hidden[-1] @ w.t() + b
        if i == 0:
            u += (z.double() @ layers[0].weight.double()[:, n:].t())[:, None]
        elif i < len(layers) - 1:
            u += hidden[-1]
        hidden.append(u if i == len(layers) - 1 else rounded(torch.where(u > 0, u, slope * u)))
    found, g = {"y": hidden.pop()}, seen(hidden[-1][..., : len(biases[-1])]).double()
    unrounded = g
    for i in reversed(range(len(layers))):
        name = f"main.{2 * i}" + (".linear" if 0 < i < len(layers) - 1 else "")
        found[f"{name}.bias"] = unrounded.sum((0, 1))
        dw = torch.einsum("bro,bri->oi", g, hidden[i])
        if i == 0:
            dw = torch.cat([dw, unrounded.sum(1).t() @ z.double()], dim=1)
            found["z"] = unrounded.sum(1) @ layers[0].weight.double()[:, n:]
        found[f"{name}.weight"] = dw
        dh = g @ weights[i] + (g if 0 < i < len(layers) - 1 else 0)
        unrounded = torch.where(hidden[i] > 0, dh, slope * dh)
        g = rounded(unrounded)
    return found


def error(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("activation", [nn.ReLU, nn.LeakyReLU])
@pytest.mark.parametrize("size", SIZES)
def test_values_and_gradients_are_those_of_the_formula(size: str, activation: type[nn.Module], n_threads: int) -> None:
    network, x, z = network_and_input(size, activation)
    found, expected = outcome(network, x, z), expected_outcome(network, x, z)
    assert found.keys() == expected.keys()
    # Sums in another order make a rounding go the other way here and there: by 2^-8 of one number among many.
    errors = {name: error(found[name], value) for name, value in expected.items()}
    assert max(errors.values()) < 1e-2, errors


def test_the_same_threads_give_the_same_bits(n_threads: int) -> None:
    network, x, z = network_and_input("an odd number of rows, tails everywhere")
    once, again = outcome(network, x, z), outcome(network, x, z)
    assert all(torch.equal(once[name], again[name]) for name in once)


def test_a_gradient_that_is_not_asked_for_changes_no_other() -> None:
    network, x, z = network_and_input("the paper's at 32 px")
    everything = outcome(network, x, z)
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    assert torch.equal(outcome(network, x, z, of=[z])["0"], everything["z"])


def test_the_gradient_of_what_goes_in_is_torchs() -> None:
    network, _, z = network_and_input("the paper's at 32 px")
    x = torch.randn(8, 50, 96).bfloat16().requires_grad_()
    found = outcome(network, x, z, of=[x])["0"]
    with without_native_code():
        by_torch, exact = outcome(network, x, z, of=[x])["0"], outcome(network, x.float(), z, of=[x])["0"]
    assert found.dtype == torch.bfloat16 and error(found, exact.bfloat16()) < 1.3 * error(by_torch, exact.bfloat16())


def test_what_is_no_number_stays_none() -> None:
    network, x, z = network_and_input("the paper's at 32 px")
    x[3, 5] = torch.nan
    y = residual_mlp(network, x, z)
    assert y[3, 5].isnan().all() and y.isnan().sum() == 2


@pytest.mark.parametrize("box_px", [16, 30, 32])
@pytest.mark.parametrize("pe_type", ["geom_lowf", "geom_ft", "geom_full", "geom_nohighf", "linear_lowf"])
def test_slices_are_as_exact_as_torchs(pe_type: str, box_px: int, n_threads: int) -> None:
    torch.manual_seed(0)
    formation = ImageFormation(box_px)
    pe_dim = None if pe_type == "linear_lowf" else 11
    decoder = SliceDecoder(formation, 4, layers=2, width=64, pe_type=pe_type, pe_dim=pe_dim)
    rotations, z = torch.linalg.qr(torch.randn(5, 3, 3))[0], torch.randn(5, 4, requires_grad=True)
    rotations[0] = torch.eye(3)  # all points at z = 0, where both sides are asked for
    weights = torch.sin(torch.arange(5.0 * formation.n_pixels)).view(5, -1)

    def slices_and_gradients(bfloat16: bool) -> list[Tensor]:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            y = decoder(rotations, z)
        return [y, *torch.autograd.grad((weights * y).sum(), [z, *decoder.parameters()])]

    found = slices_and_gradients(True)
    with without_native_code():
        by_torch, exact = slices_and_gradients(True), slices_and_gradients(False)
    assert not torch.equal(found[0], by_torch[0]), "the two are the same code"
    for ours, theirs, value in zip(*(map(Tensor.detach, part) for part in (found, by_torch, exact)), strict=True):
        assert error(ours, value) < 1.5 * error(theirs, value) + 1e-2


def test_without_gradients_the_slices_are_the_same_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    decoder = SliceDecoder(ImageFormation(16), 4, layers=2, width=64)
    rotations, z = torch.linalg.qr(torch.randn(7, 3, 3))[0], torch.randn(7, 4)
    monkeypatch.setattr("lightning_modules.networks.slice_decoder.CACHED_ROWS", 200)  # two images
    with torch.autocast("cpu", torch.bfloat16):
        together = decoder(rotations, z)
        with torch.no_grad():
            torch.testing.assert_close(decoder(rotations, z), together.detach(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "why", ["float32", "weights in float64", "an odd width", "many outputs", "a residual at the end", "switched off"]
)
def test_what_it_is_not_made_for_is_left_to_torch(why: str) -> None:
    weights: list[Any] = [torch.zeros(32, 10), torch.zeros(32, 32), torch.zeros(2, 32)]
    dtype, residual = torch.bfloat16, [False, True, False]
    cpu = torch.device("cpu")
    assert native_mlp.takes(dtype, cpu, weights, residual)
    if why == "float32":
        dtype = torch.float32
    elif why == "weights in float64":
        weights[1] = weights[1].double()
    elif why == "an odd width":
        weights[:2] = torch.zeros(33, 10), torch.zeros(33, 33)
    elif why == "many outputs":
        weights[2] = torch.zeros(16, 32)
    elif why == "a residual at the end":
        residual[-1] = True
    else:
        with without_native_code():
            assert not native_mlp.takes(dtype, cpu, weights, residual)
        return
    assert not native_mlp.takes(dtype, cpu, weights, residual)


@pytest.mark.parametrize("compiler", ["none", "one that fails", "one that is not there"])
def test_without_a_compiler_torch_does_it_and_the_log_says_why(
    compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if compiler == "none":
        monkeypatch.setattr(shutil, "which", lambda _: None)
    else:
        monkeypatch.setenv("CXX", "/bin/false" if compiler == "one that fails" else str(tmp_path / "c++"))
    caplog.set_level(logging.INFO)
    assert native_library._loaded.__wrapped__() is None
    why = {"none": "no C++ compiler", "one that fails": "/bin/false ended with exit code 1"}.get(compiler, "c++'")
    assert "torch's operations do the same" in caplog.text and why in caplog.text and caplog.text.count("\n") <= 2
    assert not list(tmp_path.rglob("*.so")), "something half-made stays behind"


@pytest.mark.parametrize("keeps", [True, False], ids=["kept", "a cache that cannot be written"])
def test_it_is_compiled_once_and_kept_where_that_is_allowed(
    keeps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir() if keeps else cache.write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    assert native_library._loaded.__wrapped__().usable()
    kept = [path for path in tmp_path.rglob("*") if path.suffix == ".so"]
    assert len(kept) == keeps
    if keeps:
        made = kept[0].stat().st_mtime_ns
        assert native_library._loaded.__wrapped__().usable() and kept[0].stat().st_mtime_ns == made
