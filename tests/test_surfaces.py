"""Pictures and meshes of isosurfaces show what is there, where it is."""

import numpy as np
import pytest

from experiments.volumes.isosurface import displayed, frame_of, mesh, render, threshold_of
from experiments.volumes.ray_caster import view_of_box

D = 32


def blob(*at_px: float, radius_px: float = 6.0, box_px: int = D) -> np.ndarray:
    """A ball with a soft edge, 1 inside and 0 outside; its surface at 0.5 has the radius. ``at_px`` is x, y, z."""
    axis = np.arange(box_px) - box_px // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(sum((c - a) ** 2 for c, a in zip((x, y, z), at_px or (0, 0, 0), strict=True)))
    return (1 / (1 + np.exp(2 * (distance - radius_px)))).astype(np.float32)


def opaque(picture: np.ndarray) -> np.ndarray:
    return picture[..., 3] / 255


def centre_of(picture: np.ndarray, frame: float, box_px: int = D) -> np.ndarray:
    """Right and down of the opaque pixels' mean, in px of the volume from the centre."""
    side, weight = len(picture), opaque(picture)
    axis = frame * box_px * ((np.arange(side) + 0.5) / side - 0.5)
    return np.array([(weight.sum(0) @ axis), (weight.sum(1) @ axis)]) / weight.sum()


@pytest.mark.parametrize("box_px", [D, 64])
@pytest.mark.parametrize("frame", [0.85, 0.6])
def test_a_ball_is_a_disc_of_its_radius(frame, box_px):
    side = 128
    picture = render(blob(radius_px=box_px / 5, box_px=box_px), 0.5, side, frame=frame)
    assert picture.shape == (side, side, 4)
    assert picture.dtype == np.uint8
    px = side / (frame * box_px)
    assert opaque(picture).sum() == pytest.approx(np.pi * (box_px / 5 * px) ** 2, rel=0.03)
    assert opaque(picture)[side // 2, side // 2] == 1
    assert np.unique(opaque(picture)).size > 2, "the edge is not smooth"
    assert opaque(picture)[0].sum() == 0


@pytest.mark.parametrize("at", [(7, 0, 0), (0, 7, 0), (0, 0, 7), (-4, 5, 3)])
def test_every_picture_has_the_same_view(at):
    picture = render(blob(*at, radius_px=3), 0.5, 96)
    right, down, _ = view_of_box() @ at
    np.testing.assert_allclose(centre_of(picture, 0.85), [right, down], atol=0.15)


def test_the_view_is_no_mirror_image():
    """Right, up and near form a right-handed system, as x, y and z of the volume do."""
    right_up_near = np.diag([1, -1, 1]) @ view_of_box()
    np.testing.assert_allclose(right_up_near @ right_up_near.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(right_up_near) == pytest.approx(1)


def test_what_is_nearer_hides_what_is_behind():
    near = view_of_box()[2]
    front, back = blob(*(8 * near), radius_px=4), blob(*(-8 * near), radius_px=4)
    both, front_alone = render(front + back, 0.5, 64), render(front, 0.5, 64)
    middle = slice(28, 36)
    assert np.abs(both[middle, middle, :3].astype(int) - front_alone[middle, middle, :3]).max() <= 12


def test_light_comes_from_the_upper_left_and_shades_smoothly():
    brightness = render(blob(radius_px=9), 0.5, 128)[..., :3].mean(axis=2)
    assert brightness[48, 48] > brightness[80, 80] + 20
    along = brightness[64, 40:88]
    assert np.abs(np.diff(along)).max() < 8


def test_a_cleft_is_darker_than_the_open_surface():
    """Where two balls side by side meet, the surface faces the viewer as in the middle of one ball."""
    right = view_of_box()[0]
    pair = np.maximum(blob(*(5 * right), radius_px=6), blob(*(-5 * right), radius_px=6))
    cleft, alone = (render(volume, 0.5, 128)[64, 64, :3].mean() for volume in (pair, blob(radius_px=6)))
    assert cleft < 0.93 * alone


def test_the_colour_is_the_one_asked_for():
    red = render(blob(), 0.5, 64, colour=(0.8, 0.1, 0.1))[32, 32]
    assert red[0] > 3 * red[1]
    assert red[1] == red[2]


@pytest.mark.parametrize(
    "volume",
    [np.zeros((D, D, D)), np.full((D, D, D), 3.0), blob() * 0.4, np.full((D, D, D), np.nan)],
    ids=["empty", "constant", "below the threshold", "not finite"],
)
def test_where_there_is_no_surface_the_picture_is_transparent_and_the_mesh_empty(volume):
    volume = np.asarray(volume, np.float32)
    assert not render(volume, 0.5, 32)[..., 3].any()
    vertices, faces = mesh(volume, 0.5)
    assert vertices.shape == faces.shape == (0, 3)
    assert frame_of([volume], 0.5) == 0.85


def test_density_that_touches_the_box_is_closed_inside_it():
    _, faces = mesh(np.ones((D, D, D), np.float32) + blob(), 0.5)
    assert len(faces) == 0, "a box full of density has no surface"
    halves = np.ones((D, D, D), np.float32)
    halves[:, :, : D // 2] = 0
    assert is_closed(mesh(halves, 0.5)[1])


def test_dust_is_left_out_and_a_domain_is_kept():
    volume = blob(radius_px=7)
    dusty = np.maximum(volume, blob(11, 0, 0, radius_px=1.2))
    np.testing.assert_array_equal(render(dusty, 0.5, 64)[..., 3], render(volume, 0.5, 64)[..., 3])
    with_domain = np.maximum(volume, blob(11, 0, 0, radius_px=2.5))
    assert opaque(render(with_domain, 0.5, 64)).sum() > 1.05 * opaque(render(volume, 0.5, 64)).sum()


def test_dust_beside_the_particle_is_left_out_whole():
    volume = blob(radius_px=7)
    beside = np.maximum(volume, blob(10, 0, 0, radius_px=1.2))
    pictures = [opaque(render(each, 0.5, 64)) for each in (volume, beside)]
    assert np.abs(pictures[1] - pictures[0]).sum() < 0.005 * pictures[0].sum()


def test_noise_far_from_the_particle_is_not_drawn():
    noise = np.random.default_rng(0).normal(0, 0.15, (D, D, D)).astype(np.float32)
    volume = blob(radius_px=7) + noise
    picture = opaque(render(volume, threshold_of([volume]), 64, frame=0.85))
    reach = 64 * 7 / (0.85 * D)
    y, x = np.mgrid[:64, :64] - 31.5
    assert picture[np.hypot(x, y) > 1.4 * reach].sum() == 0
    assert picture[np.hypot(x, y) < 0.7 * reach].mean() == 1


def test_the_frame_shows_all_surfaces_whole_and_tightly():
    volumes = [blob(radius_px=4), blob(6, 6, 0, radius_px=4)]
    frame = frame_of(volumes, 0.5)
    pictures = [opaque(render(volume, 0.5, 64, frame=frame)) for volume in volumes]
    for picture in pictures:
        border = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert border.sum() == 0
    rows, columns = np.nonzero(pictures[1])
    assert min(rows.min(), columns.min(), 63 - rows.max(), 63 - columns.max()) <= 6


def test_the_threshold_lies_between_solvent_and_particle():
    assert 0.3 < threshold_of([blob(radius_px=7)]) < 0.7


def test_the_threshold_follows_scale_and_offset():
    volume = blob(3, 1, 0, radius_px=7)
    assert threshold_of([5 * volume - 2]) == pytest.approx(5 * threshold_of([volume]) - 2, abs=0.02)


def test_one_threshold_for_all_is_not_moved_by_a_volume_that_is_all_solvent():
    full, small = blob(radius_px=8), blob(radius_px=5)
    solvent = 0.01 * np.random.default_rng(0).normal(size=(D, D, D)).astype(np.float32)
    common = threshold_of([full, small, full, solvent, small])
    assert common == pytest.approx(threshold_of([full, small]), abs=0.1)
    assert not render(solvent, common, 32)[..., 3].any()


def test_pure_noise_is_cut_well_above_its_bulk():
    noise = np.random.default_rng(0).normal(size=(D, D, D)).astype(np.float32)
    shown = displayed(noise, threshold_of([noise]))
    assert shown is None or (shown >= threshold_of([noise])).mean() < 1e-3


def test_no_volumes_and_constant_ones_have_threshold_0():
    assert threshold_of([]) == 0
    assert threshold_of([np.ones((D, D, D), np.float32)]) == 0


def is_closed(faces: np.ndarray) -> bool:
    """Every edge belongs to two triangles, which go along it in opposite directions."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    there = {tuple(edge) for edge in edges.tolist()}
    return len(there) == len(edges) and all((b, a) in there for a, b in there)


def enclosed(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, np.ndarray]:
    """Signed volume, positive where triangles are counter-clockwise seen from outside; and its centre of mass."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    tetrahedra = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return float(tetrahedra.sum()), tetrahedra @ ((a + b + c) / 4) / tetrahedra.sum()


@pytest.mark.parametrize(("max_faces", "within"), [(500, 0.12), (12_000, 0.05)])
def test_a_mesh_is_closed_faces_outwards_and_encloses_the_volume(max_faces, within):
    vertices, faces = mesh(blob(4, -3, 2), 0.5, max_faces)
    assert 200 < len(faces) <= max_faces
    assert is_closed(faces)
    volume, centre = enclosed(vertices, faces)
    assert volume == pytest.approx(4 / 3 * np.pi * 6**3, rel=within)
    np.testing.assert_allclose(centre, [4, -3, 2], atol=0.02)


def test_picture_and_mesh_show_the_same_surface():
    volume = np.maximum(blob(5, 0, 0, radius_px=5), blob(-3, 4, 2, radius_px=4))
    vertices, _ = mesh(volume, 0.5)
    seen = view_of_box() @ vertices.T
    side, frame = 128, 0.85
    rows, columns = np.nonzero(opaque(render(volume, 0.5, side, frame=frame)) > 0.5)
    for low_high, axis in ((columns, 0), (rows, 1)):
        ends = frame * D * (np.array([low_high.min(), low_high.max() + 1]) / side - 0.5)
        np.testing.assert_allclose([seen[axis].min(), seen[axis].max()], ends, atol=0.4)
