"""Images altered in real space: shifted and rotated, with the original's metadata or with those that follow."""

from pathlib import Path

import numpy as np
import pytest
import torch
from cryodrgn.dataset import ImageDataset
from torch import Tensor

from lightning_modules.encoder_inputs.altered import (
    AlteredInput,
    ConsistentMetadata,
    Fill,
    Motion,
    RotatedInput,
    ShiftedInput,
    turn_points,
)
from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particles import Particles
from lightning_modules.simulation.particles import SimulatedParticles
from lightning_modules.simulation.stack import clean_image, draw
from tests.particle_sets import images, stack
from tests.small_models import SpyLatents, cryo_vae, particles_in

N, D = 40, 32
INDEX = torch.tensor([3, 17, 0, 39])
FORMATION = ImageFormation(D)
CONSISTENT = ConsistentMetadata()


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=N, box_px=D)


@pytest.fixture(scope="module")
def unwindowed(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    """The window does not move with the image: without it, the facts below are exact."""
    return particles_in(tmp_path_factory.mktemp("unwindowed"), n=N, box_px=D, window=False)


def show(encoder_input: EncoderInput, particles: Particles, index: Tensor = INDEX) -> Tensor:
    """What a freshly prepared input gives for particles that need neither centring nor flipping."""
    encoder_input.prepare(particles, FORMATION, 0)
    return encoder_input(particles.images[index], torch.zeros(len(index), 2), None, index)


def seen_by_encoder(encoder_input: EncoderInput, particles: Particles) -> Tensor:
    """What reaches the encoder for the particles INDEX."""
    spy = SpyLatents()
    model = cryo_vae(particles, encoder_input, spy)
    model.infer(model.observe(INDEX))
    return spy.seen


def flipped(particles: Particles, images: Tensor) -> Tensor:
    """Images centred and phase-flipped by the metadata of the particles INDEX."""
    sign = FORMATION.ctf(particles.ctf_params[INDEX]).sign()
    return FORMATION.centre(images, particles.shifts_px[INDEX]) * sign


@pytest.mark.parametrize("altered", [ShiftedInput(3, 1), RotatedInput(90)], ids=["shifted", "rotated"])
def test_by_default_altered_images_keep_the_originals_shift_and_ctf(
    altered: AlteredInput, particles: Particles
) -> None:
    x = seen_by_encoder(altered, particles)
    images = particles.preprocess(altered.alter(particles.raw(INDEX.numpy())))
    assert torch.equal(x, flipped(particles, images))
    assert not torch.equal(x, flipped(particles, particles.images[INDEX]))


SHIFTS = [(1, 0), (0, 1), (5, 0), (-3, 7), (D, 0), (40, -40)]
FRACTIONS = [(0.5, 0), (-1.25, 2.75)]


@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
def test_shifting_there_and_back_is_the_identity(dx: int, dy: int, particles: Particles) -> None:
    raw = particles.raw(INDEX.numpy())
    assert torch.equal(ShiftedInput(-dx, -dy).alter(ShiftedInput(dx, dy).alter(raw)), raw)


def test_shift_goes_right_and_down_and_wraps() -> None:
    image = torch.tensor([[[1, 2, 3], [4, 5, 6], [7, 8, 9]]])
    assert ShiftedInput(1, 0).alter(image).tolist() == [[[3, 1, 2], [6, 4, 5], [9, 7, 8]]]
    assert ShiftedInput(0, 1).alter(image).tolist() == [[[7, 8, 9], [1, 2, 3], [4, 5, 6]]]


def test_a_fraction_of_a_pixel_moves_a_smooth_image_by_that_fraction() -> None:
    def wave(dx: float, dy: float) -> Tensor:
        x, y = torch.arange(D) - dx, torch.arange(D)[:, None] - dy
        return (torch.cos(2 * torch.pi * (3 * x - 2 * y) / D) + torch.sin(2 * torch.pi * y / D))[None]

    for dx, dy in FRACTIONS:
        torch.testing.assert_close(ShiftedInput(dx, dy).alter(wave(0, 0)), wave(dx, dy), rtol=0, atol=1e-5)


def test_a_filled_edge_is_the_mean_of_the_images_corners() -> None:
    raw = torch.from_numpy(images(3, D))
    raw[:, 10:20, 10:20] += 50  # the particle
    at = np.arange(D) - D / 2
    corners = raw[:, at**2 + at[:, None] ** 2 > (D / 2) ** 2].mean(dim=1)
    for dx, dy in ((2, 0), (0, -3), (-1, 4), (0.5, 0), (D, 0)):
        filled = ShiftedInput(dx, dy, edge=Fill()).alter(raw)
        wrapped = ShiftedInput(dx, dy).alter(raw)
        columns = slice(0, int(np.ceil(dx))) if dx > 0 else slice(D - int(np.ceil(-dx)), D)
        rows = slice(0, int(np.ceil(dy))) if dy > 0 else slice(D - int(np.ceil(-dy)), D)
        expected = wrapped.clone()
        expected[:, :, columns] = corners[:, None, None]
        expected[:, rows, :] = corners[:, None, None]
        torch.testing.assert_close(filled, expected)


def test_the_papers_alterations_are_the_defaults() -> None:
    image = torch.arange(16).view(1, 4, 4)
    assert torch.equal(ShiftedInput().alter(image), ShiftedInput(1, 0).alter(image))
    assert torch.equal(RotatedInput().alter(image), RotatedInput(90).alter(image))


def test_rotation_is_clockwise_as_displayed() -> None:
    image = torch.tensor([[[1, 2], [3, 4]]])
    rotated = RotatedInput(90).alter(image)
    assert rotated.tolist() == [[[3, 1], [4, 2]]]
    assert torch.equal(rotated[0, :, -1], image[0, 0])  # the top row is the right column


@pytest.mark.parametrize("angle", [90, 270, -90])
def test_four_quarter_turns_are_the_identity(angle: int, particles: Particles) -> None:
    raw = particles.raw(INDEX.numpy())
    turned = RotatedInput(angle).alter(raw)
    assert not torch.equal(turned, raw)
    for _ in range(3):
        turned = RotatedInput(angle).alter(turned)
    assert torch.equal(turned, raw)


def test_angles_add_up(particles: Particles) -> None:
    raw = particles.raw(INDEX.numpy())
    quarter = RotatedInput(90).alter(raw)
    assert torch.equal(RotatedInput(180).alter(raw), RotatedInput(90).alter(quarter))
    assert torch.equal(RotatedInput(-270).alter(raw), quarter)
    assert torch.equal(RotatedInput(0).alter(raw), raw)


def test_other_angles_are_refused() -> None:
    with pytest.raises(InputError, match=r"encoder_input\.clockwise_deg=45: expected a multiple of 90"):
        RotatedInput(45)


@pytest.mark.parametrize(
    "altered", [ShiftedInput(1, 0), ShiftedInput(0, -3), RotatedInput(90)], ids=lambda i: type(i).__name__
)
def test_altered_images_equal_an_altered_stack_read_by_cryodrgn(
    altered: AlteredInput, particles: Particles, tmp_path: Path
) -> None:
    raw = altered.alter(particles.raw(np.arange(N))).numpy()
    data = ImageDataset(stack(tmp_path / "altered.mrcs", np.ascontiguousarray(raw)), norm=list(particles.norm))
    expected = data[INDEX.numpy()]["y"].reshape(len(INDEX), -1)[:, FORMATION.mask]
    torch.testing.assert_close(show(altered, particles), expected, rtol=1e-6, atol=1e-6)


def test_roll_acts_before_the_window(particles: Particles, tmp_path: Path) -> None:
    shifted = ShiftedInput(6, 0)
    window = ImageDataset(particles.files.particles).window
    rolled_after = shifted.alter(particles.raw(np.arange(N)) * window).numpy()
    data = ImageDataset(stack(tmp_path / "after.mrcs", rolled_after), norm=list(particles.norm), window=False)
    rolled_after = data[INDEX.numpy()]["y"].reshape(len(INDEX), -1)[:, FORMATION.mask]
    assert (show(shifted, particles) - rolled_after).abs().max() > 0.1


def test_altering_by_nothing_is_the_identity_input(particles: Particles) -> None:
    expected = seen_by_encoder(IdentityInput(), particles)
    for altered in (
        ShiftedInput(0, 0),
        ShiftedInput(D, -D),
        RotatedInput(360),
        ShiftedInput(0, 0, edge=Fill()),
        ShiftedInput(0, 0, metadata=CONSISTENT),
        RotatedInput(360, metadata=CONSISTENT),
    ):
        torch.testing.assert_close(seen_by_encoder(altered, particles), expected, rtol=0, atol=0)


@pytest.mark.parametrize(("dx", "dy"), SHIFTS)
def test_told_of_its_shift_a_wrapped_image_is_the_original(dx: int, dy: int, unwindowed: Particles) -> None:
    expected = seen_by_encoder(IdentityInput(), unwindowed)
    kept = seen_by_encoder(ShiftedInput(dx, dy), unwindowed)
    told = seen_by_encoder(ShiftedInput(dx, dy, metadata=CONSISTENT), unwindowed)
    assert (dx % D, dy % D) == (0, 0) or (kept - expected).abs().max() > 1
    torch.testing.assert_close(told, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("dx", "dy"), FRACTIONS)
def test_told_of_its_shift_by_a_fraction_an_image_is_the_original_below_nyquist(
    dx: float, dy: float, unwindowed: Particles
) -> None:
    inside = (FORMATION.freqs.abs() < 0.49).all(dim=1)
    expected = seen_by_encoder(IdentityInput(), unwindowed)
    told = seen_by_encoder(ShiftedInput(dx, dy, metadata=CONSISTENT), unwindowed)
    torch.testing.assert_close(told[:, inside], expected[:, inside], rtol=0, atol=2e-4)


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_told_of_its_rotation_an_image_is_the_original_turned(angle: int, unwindowed: Particles) -> None:
    """About cryoDRGN's centre, the pixel (D/2, D/2): the pixel between is in the consistent shift."""
    original = seen_by_encoder(IdentityInput(), unwindowed)
    kept = seen_by_encoder(RotatedInput(angle), unwindowed)
    told = seen_by_encoder(RotatedInput(angle, metadata=CONSISTENT), unwindowed)
    expected = FORMATION.turn(original, angle // 90)
    assert (kept - expected).abs().max() > 1
    torch.testing.assert_close(told, expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_turned_lattice_is_the_turned_image(quarter_turns: int) -> None:
    grid = torch.full((D + 1, D + 1), torch.nan)
    values = torch.randn(FORMATION.n_pixels)
    grid.view(-1)[FORMATION.mask] = values
    expected = torch.rot90(grid, -quarter_turns).reshape(-1)[FORMATION.mask]
    assert torch.equal(FORMATION.turn(values[None], quarter_turns)[0], expected)
    assert torch.equal(FORMATION.turn(values[None], torch.tensor([quarter_turns]))[0], expected)


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_a_turned_ctf_is_the_ctf_of_the_turned_astigmatism(quarter_turns: int, particles: Particles) -> None:
    params = particles.ctf_params.clone()
    params[:, 1] += 3000  # an astigmatism that cannot be missed
    turned = params.clone()
    turned[:, 3] += 90 * quarter_turns
    ctf = FORMATION.ctf(params)
    expected = FORMATION.ctf(turned)
    assert quarter_turns == 2 or (ctf - expected).abs().max() > 0.5
    torch.testing.assert_close(FORMATION.turn(ctf, quarter_turns), expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_the_consistent_metadata_of_a_rotation_are_those_of_the_rotated_particle(angle: int) -> None:
    """A particle simulated with turned pose, shift and astigmatism is the turned image of the particle."""
    data = SimulatedParticles(n_particles=4, box_px=D, snr=float("inf"), astigmatism_angstrom=4000, shift_px=0.9)
    turns = angle // 90
    plane = np.linalg.matrix_power(np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]]), turns)
    for index in range(4):
        particle = draw(data, index)[0]
        shift, _ = CONSISTENT(RotatedInput(angle).motion, FORMATION, torch.from_numpy(particle.shift_px)[None], None)
        params = particle.ctf_params.copy()
        params[4] += angle
        turned = particle._replace(
            rotation=(plane @ particle.rotation).astype(np.float32), shift_px=shift[0].numpy(), ctf_params=params
        )
        image = clean_image(data, particle)
        expected = RotatedInput(angle).alter(torch.from_numpy(image)[None])[0].numpy()
        difference = clean_image(data, turned) - expected
        assert np.abs(image - expected).max() > 0.3 * image.std()
        # At Nyquist an image holds the CTF of -D/2 alone, whichever way it is turned.
        below_nyquist = np.delete(np.delete(np.fft.fft2(difference), D // 2, 0), D // 2, 1)
        assert np.abs(below_nyquist).max() < 1e-4 * np.abs(np.fft.fft2(expected)).max()


def test_the_window_is_all_that_a_consistent_shift_of_a_clean_particle_leaves(tmp_path: Path) -> None:
    from lightning_modules.particles.particles import load_particles

    data = SimulatedParticles(n_particles=40, box_px=D, snr=float("inf"), cache_dir=str(tmp_path))
    clean = load_particles(data.particle_files())
    expected = seen_by_encoder(IdentityInput(), clean)
    kept = seen_by_encoder(ShiftedInput(1, 0), clean)
    told = seen_by_encoder(ShiftedInput(1, 0, metadata=CONSISTENT), clean)
    assert (told - expected).norm() < 0.1 * (kept - expected).norm()


def test_a_turn_about_the_middle_of_an_even_box_moves_cryodrgns_centre_by_whole_pixels() -> None:
    assert [RotatedInput(angle).motion for angle in (0, 90, 180, 270)] == [
        Motion(0, (0, 0)),
        Motion(1, (-1, 0)),
        Motion(2, (-1, -1)),
        Motion(3, (0, -1)),
    ]
    dot = torch.zeros(1, D, D)
    dot[0, D // 2, D // 2] = 1
    for angle in (90, 180, 270):
        altered = RotatedInput(angle)
        row, column = np.unravel_index(int(altered.alter(dot).argmax()), (D, D))
        assert (column - D // 2, row - D // 2) == altered.motion.moved_px


def test_points_turn_as_images_do() -> None:
    assert turn_points(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 1).tolist() == [[0, 1], [-1, 0]]
    dot = torch.zeros(1, 5, 5)
    dot[0, 1, 4] = 1  # x = 2, y = -1 from the middle
    row, column = np.unravel_index(int(RotatedInput(90).alter(dot).argmax()), (5, 5))
    assert turn_points(torch.tensor([[2.0, -1.0]]), 1).tolist() == [[column - 2, row - 2]]


def test_without_ctf_nothing_is_flipped(tmp_path: Path) -> None:
    bare = particles_in(tmp_path, n=N, box_px=D, ctf=None, window=False)
    original = seen_by_encoder(IdentityInput(), bare)
    told = seen_by_encoder(RotatedInput(180, metadata=CONSISTENT), bare)
    torch.testing.assert_close(told, FORMATION.turn(original, 2), rtol=0, atol=2e-4)
