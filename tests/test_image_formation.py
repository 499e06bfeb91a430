"""Centring, CTF and phase flip on the masked lattice are cryoDRGN's."""

import numpy as np
import pytest
import torch
from cryodrgn import ctf as cryodrgn_ctf
from cryodrgn import fft
from cryodrgn.lattice import Lattice

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from tests import particle_sets

BOXES = (30, 32, 64, 128)
B = 5


def hartley(box_px: int) -> torch.Tensor:
    """(B, L, L) symmetrized Hartley transforms of noise, with unit variance."""
    y = fft.symmetrize_ht(fft.ht2_center(torch.from_numpy(particle_sets.images(B, box_px))))
    return y / y.std()


@pytest.mark.parametrize("box_px", BOXES)
def test_lattice_is_the_one_cryodrgn_gives_its_decoder(box_px: int) -> None:
    lattice = Lattice(box_px + 1, extent=0.5)
    formation = ImageFormation(box_px)
    mask = lattice.get_circular_mask((box_px + 1) // 2)
    assert torch.equal(formation.mask, mask)
    assert torch.equal(formation.coords, lattice.coords[mask] / lattice.extent / 2)
    assert formation.n_pixels == mask.sum() == len(formation.freqs)


@pytest.mark.parametrize("box_px", (*BOXES, 320))
def test_reversing_the_masked_vector_is_minus_k(box_px: int) -> None:
    formation = ImageFormation(box_px)
    assert torch.equal(formation.freqs.flip(0), -formation.freqs)


@pytest.mark.parametrize("box_px", BOXES)
def test_centring_equals_cryodrgns(box_px: int) -> None:
    y = hartley(box_px)
    shift_px = torch.from_numpy(particle_sets.shifts(B)).float() * (box_px + 1)
    lattice = Lattice(box_px + 1, extent=0.5)
    expected = lattice.translate_ht(y.view(B, -1), shift_px.unsqueeze(1)).view(B, -1)
    formation = ImageFormation(box_px)
    actual = formation.centre(y.view(B, -1)[:, formation.mask], shift_px)
    torch.testing.assert_close(actual, expected[:, formation.mask], rtol=1e-5, atol=2e-5)


def test_shifting_and_unshifting_is_the_identity() -> None:
    formation = ImageFormation(32)
    y = hartley(32).view(B, -1)[:, formation.mask]
    shift_px = torch.from_numpy(particle_sets.shifts(B)).float() * 33
    moved = formation.centre(y, shift_px)
    assert (moved - y).abs().max() > 0.1
    torch.testing.assert_close(formation.centre(moved, -shift_px), y, rtol=1e-5, atol=1e-5)


def test_centring_by_whole_pixels_is_a_roll_of_the_image() -> None:
    box_px = 32
    formation = ImageFormation(box_px)
    image = torch.from_numpy(particle_sets.images(1, box_px))
    rolled = torch.roll(image, (-3, 2), dims=(1, 2))
    y, expected = (fft.symmetrize_ht(fft.ht2_center(x)).view(1, -1)[:, formation.mask] for x in (image, rolled))
    # The outermost rows are copies of each other (Nyquist): there H(-k) is not what its place says.
    interior = formation.coords[:, :2].abs().amax(dim=1) < 0.5
    actual = formation.centre(y, torch.tensor([[2.0, -3.0]]))
    torch.testing.assert_close(actual[:, interior], expected[:, interior], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("box_px", BOXES)
def test_ctf_equals_cryodrgns(box_px: int) -> None:
    ctf_params = torch.from_numpy(particle_sets.ctf(B, box_px)[:, 1:])
    lattice = Lattice(box_px + 1, extent=0.5)
    freqs = lattice.freqs2d.expand(B, -1, 2) / ctf_params[:, 0].view(B, 1, 1)
    expected = cryodrgn_ctf.compute_ctf(freqs, *torch.split(ctf_params[:, 1:], 1, 1))
    formation = ImageFormation(box_px)
    actual = formation.ctf(ctf_params)
    assert actual.shape == (B, formation.n_pixels)
    torch.testing.assert_close(actual, expected[:, formation.mask], rtol=1e-5, atol=1e-5)


def test_phase_flip_makes_signal_times_ctf_positive() -> None:
    formation = ImageFormation(32)
    ctf = formation.ctf(torch.from_numpy(particle_sets.ctf(B, 32)[:, 1:]))
    assert (ctf < 0).any()
    torch.testing.assert_close(formation.phase_flip(ctf, ctf), ctf.abs())


def test_gradients_reach_image_shift_and_defocus() -> None:
    formation = ImageFormation(30)
    y = torch.randn(2, formation.n_pixels, requires_grad=True)
    shift_px = torch.randn(2, 2, requires_grad=True)
    ctf_params = torch.from_numpy(particle_sets.ctf(2, 30)[:, 1:]).requires_grad_()
    (formation.centre(y, shift_px) * formation.ctf(ctf_params)).square().sum().backward()
    for tensor in (y, shift_px, ctf_params):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all() and tensor.grad.abs().sum() > 0


@pytest.mark.slow
def test_both_compile_as_one_graph() -> None:
    formation = ImageFormation(30)
    ctf_params = torch.from_numpy(particle_sets.ctf(2, 30)[:, 1:])
    y, shift_px = torch.randn(2, formation.n_pixels), torch.randn(2, 2)

    def encoder_input(y: torch.Tensor) -> torch.Tensor:
        return formation.phase_flip(formation.centre(y, shift_px), formation.ctf(ctf_params))

    compiled = torch.compile(encoder_input, fullgraph=True)
    torch.testing.assert_close(compiled(y), encoder_input(y), rtol=1e-4, atol=1e-4)


def test_phases_stay_in_float32_under_autocast() -> None:
    formation = ImageFormation(64)
    y, shift_px = torch.randn(2, formation.n_pixels), torch.full((2, 2), 20.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = formation.centre(y, shift_px)
    assert torch.equal(actual, formation.centre(y, shift_px))


def test_lattice_stays_out_of_checkpoints() -> None:
    assert ImageFormation(30).state_dict() == {}


@pytest.mark.parametrize("box_px", [31, 98, 196, 0])
def test_boxes_that_cryodrgns_lattice_cannot_have_are_refused(box_px: int) -> None:
    with pytest.raises(InputError, match=f"box of {box_px} px"):
        ImageFormation(box_px)


def test_all_usual_boxes_are_accepted() -> None:
    for box_px in (32, 64, 96, 100, 128, 160, 180, 192, 200, 256, 300, 320):
        assert ImageFormation(box_px).n_pixels == pytest.approx(np.pi * box_px**2 / 4, rel=0.02)


@pytest.mark.parametrize("box_px", BOXES)
def test_image_undoes_the_hartley_transform_of_what_the_mask_holds(box_px: int) -> None:
    formation = ImageFormation(box_px)
    y = hartley(box_px).view(B, -1)[:, formation.mask]
    image = formation.image(y)
    assert image.shape == (B, box_px, box_px)
    again = fft.symmetrize_ht(fft.ht2_center(image / box_px)).view(B, -1)
    torch.testing.assert_close(again[:, formation.mask], y, rtol=1e-4, atol=1e-4)
    outside = torch.ones_like(formation.mask)
    outside[formation.mask] = False
    assert again[:, outside].abs().max() < 1e-3
    # A quarter of the lattice lies outside the circle, and the transform keeps the sum of squares.
    assert image.std() == pytest.approx(float(y.std()) * np.sqrt(np.pi / 4), rel=0.06)


def test_image_of_a_smooth_blob_is_where_it_was() -> None:
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    blob = torch.exp(-((x - 20) ** 2 + (y - 9) ** 2) / 8)[None]
    formation = ImageFormation(32)
    back = formation.image(fft.symmetrize_ht(fft.ht2_center(blob)).view(1, -1)[:, formation.mask]) / 32
    torch.testing.assert_close(back - back.mean(), blob - blob.mean(), rtol=0, atol=1e-3)
