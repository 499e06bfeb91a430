"""The matched filter compares an image with templates at the particle's own pose: orientation tells it nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from experiments.configuration.compose import compose
from experiments.runs.execution import execute
from lightning_modules.encoder_inputs.altered import ConsistentMetadata, RotatedInput, ShiftedInput
from lightning_modules.encoder_inputs.augmented import AugmentedInput
from lightning_modules.encoder_inputs.encoder_input import EncoderInput
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.latents import matched_filter
from lightning_modules.latents.matched_filter import Interpolate, MatchedFilter
from lightning_modules.networks.slice_decoder import rotate
from lightning_modules.particles.digits import PlainImages
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.small_models import ZDIM, cryo_vae, particles_in, train, weights
from tests.tiny import tiny

D = 16
INDEX = torch.arange(6)
CONSISTENT = ConsistentMetadata()


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), box_px=D)


@pytest.fixture(scope="module")
def unwindowed(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    """The window does not move with the image: without it, the facts below are exact."""
    return particles_in(tmp_path_factory.mktemp("unwindowed"), box_px=D, window=False)


def pose_aware(particles: Particles, encoder_input: EncoderInput | None = None, **changes: int) -> CryoVAE:
    torch.manual_seed(0)
    sizes = {"n_templates": 3, "grid": 9, "radius": D // 2, "layers": 1, "width": 8} | changes
    latents = MatchedFilter(ImageFormation(D), len(particles), ZDIM, **sizes)
    return cryo_vae(particles, encoder_input, latents)


def statistics(model: CryoVAE) -> Tensor:
    assert isinstance(model.latents, MatchedFilter)
    with torch.no_grad():
        return model.latents.statistics(model.observe(INDEX).x)


@pytest.mark.parametrize(
    "altered",
    [
        RotatedInput(90, CONSISTENT),
        RotatedInput(180, CONSISTENT),
        RotatedInput(270, CONSISTENT),
        ShiftedInput(2, -1, metadata=CONSISTENT),
    ],
    ids=["90", "180", "270", "shift"],
)
def test_an_image_turned_or_shifted_with_its_metadata_has_the_same_statistics(
    unwindowed: Particles, altered: EncoderInput
) -> None:
    torch.testing.assert_close(
        statistics(pose_aware(unwindowed, altered)), statistics(pose_aware(unwindowed)), rtol=1e-3, atol=1e-5
    )


def test_an_image_that_is_said_to_be_unaltered_has_others(unwindowed: Particles) -> None:
    own = statistics(pose_aware(unwindowed))
    for altered in (RotatedInput(90), ShiftedInput(2, -1)):
        assert (statistics(pose_aware(unwindowed, altered)) - own).abs().max() > 0.1 * own.abs().max()


def test_augmentation_by_quarter_turns_changes_nothing(particles: Particles) -> None:
    turned = AugmentedInput(max_shift_px=0)
    model = pose_aware(particles, turned)
    own = statistics(model)
    turned.start_epoch(3)
    assert turned.quarter_turns[INDEX].any()
    torch.testing.assert_close(statistics(model), own, rtol=1e-3, atol=1e-5)


def test_a_slice_at_the_turned_pose_is_the_turned_slice() -> None:
    formation = ImageFormation(D)
    rotations = torch.linalg.qr(torch.randn(4, 3, 3))[0]
    turns = torch.arange(4)
    for at in (turns, 3):
        points = rotate(formation.coords, formation.turn_poses(rotations, at))
        as_is = rotate(formation.coords, rotations)
        turned = torch.stack([formation.turn(as_is[..., axis], at) for axis in range(3)], dim=-1)
        torch.testing.assert_close(points, turned, rtol=0, atol=1e-7)


def test_the_statistics_are_inner_products_and_squared_norms_of_projections(particles: Particles) -> None:
    """Templates that are linear in the frequency are interpolated exactly, so their projections have a formula."""
    model = pose_aware(particles)
    slopes, offsets = torch.randn(3, 3), torch.randn(3)
    axis = torch.linspace(-1, 1, 9)
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).view(-1, 3)
    model.latents.templates.data = grid @ slopes + offsets
    observed = model.observe(INDEX)
    assert observed.ctf is not None and observed.rotations is not None
    frequencies = 2 * rotate(model.formation.coords, observed.rotations)
    projections = (frequencies @ slopes + offsets) * observed.ctf[..., None]
    products = (projections * observed.y[..., None]).sum(1) / projections.shape[1] ** 0.5
    norms = projections.square().mean(1)
    expected = torch.cat([products * matched_filter.PRODUCT_GAIN, norms * matched_filter.NORM_GAIN], dim=1)
    torch.testing.assert_close(statistics(model), expected, rtol=1e-4, atol=1e-4)


def test_q_from_the_statistics_can_be_the_exact_posterior(particles: Particles) -> None:
    """For a volume V0 + z V1 in white noise, with the templates V0, V1 and V0 + V1."""
    model, noise_variance = pose_aware(particles), 0.3
    both = torch.randn(9**3, 2) * 0.3
    model.latents.templates.data = torch.cat([both, both.sum(1, keepdim=True)], dim=1)
    observed = model.observe(INDEX)
    assert observed.ctf is not None and observed.rotations is not None
    with torch.no_grad():
        half = 2 * model.formation.coords[: observed.y.shape[1] // 2]
        halves = model.latents._slices(rotate(half, observed.rotations))
    upper, lower = halves.chunk(2, dim=1)
    slices = torch.cat([upper, lower.flip(1)], dim=1)[..., :2] * observed.ctf[..., None]
    v0, v1 = slices.unbind(-1)
    variance = 1 / (1 + v1.square().sum(1) / noise_variance)
    mean = variance * (v1 * (observed.y - v0)).sum(1) / noise_variance

    m = observed.y.shape[1]
    products, norms = statistics(model).chunk(2, dim=1)
    products, norms = products * m**0.5 / matched_filter.PRODUCT_GAIN, norms * m / matched_filter.NORM_GAIN
    v0_times_v1 = (norms[:, 2] - norms[:, 0] - norms[:, 1]) / 2
    ours = 1 / (1 + norms[:, 1] / noise_variance)
    torch.testing.assert_close(ours, variance, rtol=1e-4, atol=0)
    torch.testing.assert_close(ours * (products[:, 1] - v0_times_v1) / noise_variance, mean, rtol=1e-3, atol=1e-4)


def test_interpolation_and_its_gradient_are_those_of_a_weighted_sum_of_rows() -> None:
    table = torch.randn(50, 4, requires_grad=True)
    weights_, corners = torch.rand(30, 8), torch.randint(50, (30, 8), dtype=torch.int32)
    out = torch.randn(30, 4)
    (grad,) = torch.autograd.grad(Interpolate.apply(table, weights_, corners), table, out)
    expected = nn.functional.embedding_bag(corners, table, per_sample_weights=weights_, mode="sum")
    torch.testing.assert_close(Interpolate.apply(table, weights_, corners), expected)
    torch.testing.assert_close(grad, torch.autograd.grad(expected, table, out)[0])


def test_training_moves_templates_and_lowers_the_loss(particles: Particles) -> None:
    model = pose_aware(particles)
    eps = torch.zeros(len(INDEX), ZDIM)
    before, loss = weights(model)["latents.templates"], model.elbo(model.observe(INDEX), eps, 0.1).total.item()
    train(model, max_epochs=10)
    assert not np.array_equal(weights(model)["latents.templates"], before)
    assert model.elbo(model.observe(INDEX), eps, 0.1).total.item() < loss


def test_templates_have_no_higher_frequencies_than_asked_for(particles: Particles) -> None:
    low = pose_aware(particles, radius=3)
    assert len(low.latents.pixels) < len(pose_aware(particles).latents.pixels) / 4
    frequencies = low.formation.coords[low.latents.pixels].norm(dim=1) * D
    assert frequencies.max() <= 3 + 1e-4


def test_a_grid_without_a_centre_and_pictures_without_poses_are_refused(particles: Particles, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"latents.grid=8: expected an odd number"):
        pose_aware(particles, grid=8)
    with pytest.raises(InputError, match="pictures were found, expected particles with poses"):
        MatchedFilter(PlainImages(64), 10, ZDIM, 3, 9, 8, 1, 8)
    with pytest.raises(InputError, match="pictures were found, expected particles with poses"):
        execute(compose("+exp=mnist_vae", "data=digits", "latents=matched_filter", f"paths.runs={tmp_path}"))


def test_new_particles_are_encoded_and_altered_ones_too(tmp_path: Path) -> None:
    heldout = tiny(tmp_path, "+exp=pose_aware", "task=heldout", "task.n_samples=2", "task.search.steps=3")
    assert heldout.metrics["heldout/amortization_gap"] is not None
    source = tiny(tmp_path, "+exp=pose_aware")
    turned = tiny(tmp_path, "+exp=rotate_90_consistent", f"task.source={source.folder}")
    as_in_the_paper = tiny(tmp_path, "+exp=rotate_90", f"task.source={source.folder}")
    moved = "amortization/displacement_ratio"
    assert turned.metrics[moved] < as_in_the_paper.metrics[moved] / 2


def test_its_folder_is_a_decoder_to_cryodrgn(tmp_path: Path) -> None:
    from cryodrgn.models import load_decoder

    run = tiny(tmp_path, "+exp=pose_aware")
    folder = run.folder / "cryodrgn"
    decoder, _ = load_decoder(str(folder / "config.yaml"), weights=str(folder / "weights.pkl"))
    assert sum(parameter.numel() for parameter in decoder.parameters()) > 0
