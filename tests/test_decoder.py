"""The decoder renders what cryoDRGN's renders, and descends along the same gradients."""

from typing import Any

import numpy as np
import pytest
import torch
from cryodrgn.models import ResidLinearMLP
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.networks import residual_mlp as residual_mlp_module
from lightning_modules.networks import slice_decoder as decoder_module
from lightning_modules.networks.residual_mlp import residual_mlp
from lightning_modules.networks.slice_decoder import DOMAINS, PE_TYPES, SliceDecoder

BOX_PX, ZDIM, BATCH = 16, 4, 3


def slice_decoder(box_px: int = BOX_PX, **settings: Any) -> SliceDecoder:
    torch.manual_seed(0)
    model = SliceDecoder(ImageFormation(box_px), ZDIM, **{"layers": 2, "width": 40, **settings})
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):  # cryoDRGN's start is small; a forgotten bias must show
            nn.init.normal_(parameter)
    return model


def poses_and_z(batch: int = BATCH) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.linalg.qr(torch.randn(batch, 3, 3))[0], torch.randn(batch, ZDIM)


def render_by_cryodrgn(model: SliceDecoder, rotations: Tensor, z: Tensor) -> Tensor:
    """Evaluate the whole lattice by cryoDRGN's own forward pass: HetOnlyVAE.cat_z and decode."""
    formation = ImageFormation(model.lattice_px - 1)
    coords = formation.coords @ rotations
    x = torch.cat([coords, z[:, None].expand(-1, coords.shape[1], -1)], dim=-1)
    if model.is_fourier and not hasattr(model.decoder, "zdim"):  # pe_type none: its forward wants the DC pixel
        half = coords.shape[1] // 2
        real, imaginary = model.decoder.decode(x[:, :half]).unbind(-1)
        return torch.cat([real - imaginary, (real + imaginary).flip(-1)], dim=-1)
    return model.decoder(x).view(len(z), -1)


def gradients(y_hat: Tensor, z: Tensor, model: nn.Module) -> dict[str, Tensor]:
    """Gradients of a loss that is sensitive to every pixel."""
    weights = torch.linspace(0.5, 1.5, y_hat.numel()).view_as(y_hat)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loss = (weights * (y_hat - 1).square()).mean()
    found = torch.autograd.grad(loss, [z, *parameters.values()])
    return dict(zip(["z", *parameters], found, strict=True))


def assert_same_direction(ours: dict[str, Tensor], theirs: dict[str, Tensor], tolerance: float) -> None:
    for name, gradient in theirs.items():
        difference = (ours[name] - gradient).norm() / gradient.norm()
        assert difference < tolerance, f"{name}: gradients differ by {difference:.2e} in norm"


SETTINGS = [
    *({"pe_type": pe_type, "domain": domain} for pe_type in PE_TYPES for domain in DOMAINS),
    {"activation": "leaky_relu"},
    {"pe_dim": 5},
    {"pe_dim": 6, "width": 6 * 6 + ZDIM},  # cryoDRGN adds the input to the output of the first layer
    {"pe_type": "none", "width": 3 + ZDIM},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
class TestAsCryodrgn:
    def test_float32_values_and_gradients(self, settings: dict[str, Any]) -> None:
        model, (rotations, z) = slice_decoder(**settings), poses_and_z()
        z.requires_grad_()
        ours, theirs = model(rotations, z), render_by_cryodrgn(model, rotations, z)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.detach().abs().max()))
        assert_same_direction(gradients(ours, z, model), gradients(theirs, z, model), 1e-4)

    def test_bfloat16_within_its_precision(self, settings: dict[str, Any]) -> None:
        model, (rotations, z) = slice_decoder(**settings), poses_and_z()
        z.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            ours = model(rotations, z)
        theirs = render_by_cryodrgn(model, rotations, z)
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() / theirs.norm() < 0.05
        assert_same_direction(gradients(ours, z, model), gradients(theirs, z, model), 0.05)


def test_images_are_independent_of_how_they_are_grouped(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (rotations, z) = slice_decoder(), poses_and_z(5)
    z.requires_grad_()
    together = model(rotations, z)
    monkeypatch.setattr(decoder_module, "CACHED_ROWS", 1)  # one image at a time
    apart = model(rotations, z)
    torch.testing.assert_close(apart, together, rtol=1e-5, atol=1e-6)
    assert_same_direction(gradients(apart, z, model), gradients(together, z, model), 1e-5)


def test_bfloat16_without_the_fused_product(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (rotations, z) = slice_decoder(), poses_and_z()
    z.requires_grad_()
    monkeypatch.setattr(residual_mlp_module, "_cpu_fuses", lambda: False)
    with torch.autocast("cpu", torch.bfloat16):
        plain = model(rotations, z)
    theirs = render_by_cryodrgn(model, rotations, z)
    assert (plain - theirs).norm() / theirs.norm() < 0.05
    assert_same_direction(gradients(plain, z, model), gradients(theirs, z, model), 0.05)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 2), (7, 2), (5, 7)], ids=["plain", "in = hidden", "out = hidden"])
def test_the_residual_mlp_hands_gradients_to_its_input(inputs: int, outputs: int) -> None:
    torch.manual_seed(0)
    network, x = ResidLinearMLP(inputs, 2, 7, outputs, nn.LeakyReLU), torch.randn(2, 4, inputs, requires_grad=True)
    ours, theirs = residual_mlp(network, x), network(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    to_x = [torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs)]
    torch.testing.assert_close(*to_x, rtol=1e-4, atol=1e-5)


def test_parameters_have_cryodrgns_names() -> None:
    model = slice_decoder(pe_type="gaussian")
    assert {name.split(".")[0] for name in model.state_dict()} == {"decoder"}
    assert "decoder.rand_freqs" in model.state_dict()
    frequencies = model.decoder.rand_freqs.detach().clone()
    rotations, z = poses_and_z()
    model(rotations, z).sum().backward()
    assert torch.equal(frequencies, model.decoder.rand_freqs) and model.decoder.rand_freqs.grad is None


def test_slices_of_opposite_views_are_mirror_images() -> None:
    """A rotation by pi about an axis in the plane flips the slice: the volume has one value at each frequency."""
    model, (rotations, z) = slice_decoder(), poses_and_z()
    about_x = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
    side = model.lattice_px
    formation = ImageFormation(BOX_PX)
    seen, opposite = torch.zeros(2, BATCH, side * side)
    seen[:, formation.mask] = model(rotations, z).detach()
    opposite[:, formation.mask] = model(about_x @ rotations, z).detach()
    np.testing.assert_allclose(opposite.view(-1, side, side).flip(1), seen.view(-1, side, side), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", [{"pe_type": "geometric"}, {"domain": "real"}], ids=str)
def test_what_cryodrgn_does_not_have_is_named(settings: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        slice_decoder(**settings)


@pytest.mark.parametrize("n_threads", [1, 2, 3, 4])
def test_gradients_of_weights_are_sums_over_rows_however_many_threads_share_them(n_threads: int) -> None:
    generator = torch.Generator().manual_seed(0)
    g, h = (torch.randn(8 * 37, width, generator=generator).bfloat16() for width in (48, 32))
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        found = residual_mlp_module._sum_of_products(g, h)
    finally:
        torch.set_num_threads(before)
    expected = g.double().t() @ h.double()
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 2**-8 * expected.abs().max()


EVERY_BFLOAT16 = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)


def test_the_relu_of_every_bfloat16_number_is_torchs() -> None:
    found, expected = residual_mlp_module._activate(EVERY_BFLOAT16.clone(), 0.0), torch.relu(EVERY_BFLOAT16)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert found.isnan().sum() == 2 * 127, "what is no number stays none, whatever its sign"


def test_a_gradient_passes_where_the_relu_is_above_zero_bit_by_bit() -> None:
    h = residual_mlp_module._activate(EVERY_BFLOAT16.clone(), 0.0)
    h = h[~h.isnan()]
    g = torch.randn(len(h), generator=torch.Generator().manual_seed(0)).bfloat16()
    found = residual_mlp_module._activate_backward(g.clone(), h, 0.0)
    assert torch.equal(found, torch.where(h > 0, g, 0))
