"""Particles are those that cryoDRGN trains on: images, poses and CTF, from every format that it reads."""

import logging
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryodrgn import ctf as cryodrgn_ctf
from cryodrgn.commands import parse_ctf_csparc, parse_ctf_star, parse_pose_csparc, parse_pose_star
from cryodrgn.dataset import ImageDataset
from cryodrgn.lattice import Lattice
from cryodrgn.mrcfile import write_mrc
from cryodrgn.pose import PoseTracker

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import Particles, load_particles
from tests import particle_sets
from tests.particle_sets import D, N, dump, images, particle_set, rotations, shifts, stack


def cryodrgn_images(**options: Any) -> torch.Tensor:
    """(N, M) images as ``cryodrgn train_vae`` gets them."""
    data = ImageDataset(lazy=True, **options)
    y = data[np.arange(len(data))]["y"].view(len(data), -1)
    return y[:, Lattice(data.D, extent=0.5).get_circular_mask(data.D // 2)]


def command(module: Any, *arguments: str) -> Any:
    """Run a cryoDRGN command that writes a pickle; return what it wrote."""
    import argparse

    parser = argparse.ArgumentParser()
    module.add_args(parser)
    module.main(parser.parse_args(list(arguments)))
    return pickle.loads(Path(arguments[arguments.index("-o") + 1]).read_bytes())


def assert_poses(particles: Particles, rotations: np.ndarray, fractions: np.ndarray) -> None:
    expected = torch.from_numpy(rotations.astype(np.float32))
    torch.testing.assert_close(particles.rotations, expected, rtol=0, atol=0)
    expected = torch.from_numpy((fractions * (particles.box_px + 1)).astype(np.float32))
    torch.testing.assert_close(particles.shifts_px, expected, rtol=0, atol=0)


OPTIONS = [{}, {"invert": True}, {"window": False}, {"window_r": 0.5}, {"invert": True, "window_r": 0.7}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("residency", ["memory", "disk"])
def test_images_equal_cryodrgns_bit_for_bit(tmp_path: Path, options: dict[str, Any], residency: str) -> None:
    files = particle_set(tmp_path, **options)
    particles = load_particles(files, residency=residency, cache_dir=tmp_path / "cache", chunk=5)
    names = {"invert": "invert_data"}
    expected = cryodrgn_images(
        mrcfile=files.particles, **{names.get(key, key): value for key, value in options.items()}
    )
    assert torch.equal(particles.images, expected)
    assert particles.images.dtype == torch.float32 and len(particles) == N


def test_preprocessing_raw_images_gives_the_images(tmp_path: Path) -> None:
    particles = load_particles(particle_set(tmp_path, invert=True))
    index = np.array([7, 0, 11])
    raw = particles.raw(index)
    np.testing.assert_array_equal(raw, images()[index])
    assert torch.equal(particles.preprocess(raw), particles.images[index])
    np.testing.assert_array_equal(raw, images()[index])
    assert torch.equal(particles.preprocess(raw[:1]), particles.images[7:8])


def test_raw_images_are_found_again_without_the_open_stack(tmp_path: Path) -> None:
    index = np.array([9, 2, 5])
    files = particle_set(tmp_path, ind=dump(tmp_path / "ind.pkl", index))
    particles = pickle.loads(pickle.dumps(load_particles(files)))
    particles._reader = None
    np.testing.assert_array_equal(particles.raw(np.array([1])), images()[[2]])
    assert torch.equal(particles.preprocess(particles.raw(np.arange(3))), particles.images)


def test_a_rolled_image_is_rolled_before_the_window(tmp_path: Path) -> None:
    particles = load_particles(particle_set(tmp_path))
    rolled = torch.roll(particles.raw(np.arange(N)), 1, dims=-1)
    again = stack(tmp_path / "rolled.mrcs", rolled.numpy())
    expected = cryodrgn_images(mrcfile=again, norm=particles.norm)
    torch.testing.assert_close(particles.preprocess(rolled), expected, rtol=0, atol=0)


def test_norms_are_those_of_raw_images_and_unwindowed_transforms(tmp_path: Path) -> None:
    particles = load_particles(particle_set(tmp_path))
    assert particles.norm_real == pytest.approx((images().mean(), images().std(ddof=1)), rel=1e-4)
    data = ImageDataset(particles.files.particles, window=False)
    assert particles.norm == tuple(data.norm)


def test_one_particle_is_a_particle_set(tmp_path: Path) -> None:
    particles = load_particles(particle_set(tmp_path, n_particles=1))
    assert particles.images.shape == (1, len(particles.images[0]))
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=particles.files.particles, ind=np.array([0])))


@pytest.mark.parametrize("mode", ["int8", "int16", "uint16", "float16"])
def test_stacks_of_other_number_types_equal_their_float32_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: str
) -> None:
    pixels = (images() * 10).astype(mode)
    files = particle_set(tmp_path, particles=stack(tmp_path / "x.mrcs", pixels))
    expected = cryodrgn_images(mrcfile=stack(tmp_path / "float32.mrcs", pixels.astype(np.float32)))
    with caplog.at_level(logging.INFO, logger="lightning_modules"):
        particles = load_particles(files)
    assert f"images of type {mode}, read as float32" in caplog.text
    assert torch.equal(particles.images, expected)
    assert particles.raw(np.arange(2)).dtype == torch.float32


def test_poses_and_ctf_are_scaled_as_cryodrgn_does(tmp_path: Path) -> None:
    files = particle_set(tmp_path, ctf=dump(tmp_path / "ctf.pkl", particle_sets.ctf(box_px=40)))
    particles = load_particles(files)
    tracker = PoseTracker.load(str(files.poses), N, D + 1)
    assert torch.equal(particles.rotations, tracker.rots)
    assert torch.equal(particles.shifts_px, tracker.trans)
    expected = cryodrgn_ctf.load_ctf_for_training(D, str(files.ctf))
    np.testing.assert_array_equal(particles.ctf_params, expected)


def test_ctf_of_the_original_box_serves_the_downsampled_stack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    original = particle_sets.ctf(box_px=320, pixel_size_angstrom=1.31)
    files = particle_set(tmp_path, ctf=dump(tmp_path / "ctf.pkl", original))
    with caplog.at_level(logging.INFO, logger="lightning_modules"):
        particles = load_particles(files)
    assert particles.pixel_size_angstrom == pytest.approx(1.31 * 320 / D)
    assert "320 px at 1.31 A/px" in caplog.text and "rescaled to 26.2 A/px" in caplog.text


def test_no_ctf_is_none_and_rotations_alone_have_no_shift(tmp_path: Path) -> None:
    files = particle_set(tmp_path, ctf=None, poses=dump(tmp_path / "rotations.pkl", rotations()))
    particles = load_particles(files)
    assert particles.ctf_params is None
    assert not particles.shifts_px.any() and particles.shifts_px.shape == (N, 2)
    assert particles.pixel_size_angstrom == 1


def test_pixel_size_without_ctf_is_the_given_one_else_the_headers(tmp_path: Path) -> None:
    path = tmp_path / "x.mrcs"
    write_mrc(str(path), images(), is_vol=False, Apix=2.5)
    assert load_particles(particle_set(tmp_path, ctf=None, particles=str(path))).pixel_size_angstrom == 2.5
    files = particle_set(tmp_path, ctf=None, particles=str(path), pixel_size_angstrom=3.275)
    assert load_particles(files).pixel_size_angstrom == 3.275


def test_npz_equals_pickle(tmp_path: Path) -> None:
    expected = load_particles(particle_set(tmp_path))
    np.savez(tmp_path / "poses.npz", rotations=rotations(), shifts=shifts())
    np.savez(tmp_path / "ctf.npz", ctf_params=particle_sets.ctf())
    files = particle_set(tmp_path, poses=str(tmp_path / "poses.npz"), ctf=str(tmp_path / "ctf.npz"))
    actual = load_particles(files)
    for name in ("rotations", "shifts_px", "ctf_params"):
        assert torch.equal(getattr(actual, name), getattr(expected, name))


INDEX = np.array([8, 3, 5, 0])


def write_index(folder: Path, suffix: str) -> str:
    path = folder / f"ind{suffix}"
    if suffix == ".pkl":
        dump(path, INDEX)
    elif suffix == ".txt":
        np.savetxt(path, INDEX, fmt="%d")
    else:
        (np.save if suffix == ".npy" else np.savez)(path, INDEX)
    return str(path)


@pytest.mark.parametrize("suffix", [".pkl", ".npy", ".npz", ".txt"])
@pytest.mark.parametrize("filtered", [False, True])
def test_index_takes_the_same_particles_everywhere(tmp_path: Path, suffix: str, filtered: bool) -> None:
    rows = INDEX if filtered else np.arange(N)
    np.savez(tmp_path / "labels.npz", state=np.arange(N)[rows], hinge_rad=np.linspace(0, 1, N)[rows])
    files = particle_set(
        tmp_path,
        ind=write_index(tmp_path, suffix),
        poses=dump(tmp_path / "p.pkl", (rotations()[rows], shifts()[rows])),
        ctf=dump(tmp_path / "c.pkl", particle_sets.ctf()[rows]),
        labels=str(tmp_path / "labels.npz"),
    )
    particles = load_particles(files)
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=files.particles, ind=INDEX))
    assert_poses(particles, rotations()[INDEX], shifts()[INDEX])
    assert particles.ctf_params is not None and particles.labels is not None
    np.testing.assert_array_equal(particles.ctf_params, particle_sets.ctf()[INDEX, 1:])
    np.testing.assert_array_equal(particles.labels["state"], INDEX)
    np.testing.assert_array_equal(particles.labels["hinge_rad"], np.linspace(0, 1, N)[INDEX])
    first = load_particles(ParticleFiles(**{**vars(files), "n_particles": 2}))
    assert torch.equal(first.rotations, particles.rotations[:2])
    np.testing.assert_array_equal(first.raw(np.arange(2)), images()[INDEX[:2]])


def test_list_of_stacks_equals_one_stack(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    stack(tmp_path / "parts" / "a.mrcs", images()[:5])
    stack(tmp_path / "parts" / "b.mrcs", images()[5:])
    (tmp_path / "list.txt").write_text("parts/a.mrcs\nparts/b.mrcs\n")
    expected = load_particles(particle_set(tmp_path))
    actual = load_particles(particle_set(tmp_path, particles=str(tmp_path / "list.txt")))
    assert torch.equal(actual.images, expected.images)


def test_moving_keeps_everything(tmp_path: Path) -> None:
    particles = load_particles(particle_set(tmp_path))
    moved = particles.to("cpu")
    assert torch.equal(moved.images, particles.images) and moved.files == particles.files
    np.testing.assert_array_equal(moved.raw(np.array([3])), images()[[3]])


def star(path: Path, columns: dict[str, Any], optics: dict[str, Any] | None = None) -> str:
    """Write a .star of RELION 3.0, or 3.1 with optics."""
    import pandas as pd
    from cryodrgn.starfile import write_star

    write_star(str(path), pd.DataFrame(columns), None if optics is None else pd.DataFrame(optics))
    return str(path)


def angles() -> dict[str, np.ndarray]:
    values = np.random.default_rng(4).uniform(-90, 90, size=(N, 3))
    return dict(zip(("_rlnAngleRot", "_rlnAngleTilt", "_rlnAnglePsi"), values.T, strict=True))


def star_30() -> dict[str, Any]:
    ctf = particle_sets.ctf()
    return {
        "_rlnImageName": [f"{i + 1:06d}@particles.mrcs" for i in range(N)],
        **angles(),
        "_rlnOriginX": np.linspace(-2, 2, N),
        "_rlnOriginY": np.linspace(1, -1, N),
        "_rlnDefocusU": ctf[:, 2],
        "_rlnDefocusV": ctf[:, 3],
        "_rlnDefocusAngle": ctf[:, 4],
        "_rlnVoltage": 300.0,
        "_rlnSphericalAberration": 2.7,
        "_rlnAmplitudeContrast": 0.07,
    }


def test_relion_30_poses_and_ctf_are_those_of_cryodrgns_commands(tmp_path: Path) -> None:
    particle_set(tmp_path)
    path = star(tmp_path / "p.star", {**star_30(), "_rlnMagnification": 50000, "_rlnDetectorPixelSize": 5})
    particles = load_particles(ParticleFiles(path, ctf=path))
    assert particles.pixel_size_angstrom == 1
    assert_poses(particles, *command(parse_pose_star, path, "-o", str(tmp_path / "a.pkl"), "-D", str(D)))
    extra = ("-D", str(D), "--Apix", "1", "--ps", "0")
    expected = command(parse_ctf_star, path, "-o", str(tmp_path / "b.pkl"), *extra)
    np.testing.assert_array_equal(particles.ctf_params, expected[:, 1:])
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=path))


def test_given_pixel_size_serves_a_star_that_has_none_and_yields_to_one_that_has(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    particle_set(tmp_path)
    path = star(tmp_path / "p.star", star_30())
    files = ParticleFiles(path, ctf=path, pixel_size_angstrom=3.275)
    assert load_particles(files).pixel_size_angstrom == pytest.approx(3.275)
    path = star(tmp_path / "q.star", {**star_30(), "_rlnImagePixelSize": 1.31})
    assert load_particles(ParticleFiles(path, ctf=path, pixel_size_angstrom=2)).pixel_size_angstrom == (
        pytest.approx(1.31)
    )
    assert "1.31 A/px" in caplog.text


def test_star_of_the_original_box_serves_the_downsampled_stack(tmp_path: Path) -> None:
    columns = {key: value for key, value in star_30().items() if not key.startswith("_rlnOrigin")}
    columns |= {"_rlnOriginXAngst": np.linspace(-20, 20, N), "_rlnOriginYAngst": np.zeros(N)}
    columns |= {"_rlnOpticsGroup": [1, 2] * (N // 2)}
    optics = {"_rlnOpticsGroup": [1, 2], "_rlnImagePixelSize": [1.31] * 2, "_rlnImageSize": [320] * 2}
    path = star(tmp_path / "p.star", columns, optics)
    particles = load_particles(particle_set(tmp_path, poses=path, ctf=path))
    assert particles.pixel_size_angstrom == pytest.approx(1.31 * 320 / D)
    expected_px = np.linspace(-20, 20, N) / (1.31 * 320) * (D + 1)
    np.testing.assert_allclose(particles.shifts_px[:, 0], expected_px, rtol=1e-5)
    assert_poses(particles, *command(parse_pose_star, path, "-o", str(tmp_path / "a.pkl")))


def test_relion_31_file_gives_the_pickles_of_cryodrgns_commands(shared_data: Path) -> None:
    folder = shared_data / "particles"
    path = str(folder / "relion31.star")
    particles = load_particles(ParticleFiles(path, ctf=path))
    pickled = load_particles(
        ParticleFiles(path, poses=str(folder / "relion31_poses.pkl"), ctf=str(folder / "relion31_ctf.pkl"))
    )
    for name in ("images", "rotations", "shifts_px", "ctf_params"):
        assert torch.equal(getattr(particles, name), getattr(pickled, name))
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=path))
    assert particles.box_px == 256 and particles.pixel_size_angstrom == pytest.approx(2.806)


def test_seven_real_images_of_empiar_10076(shared_data: Path, tmp_path: Path) -> None:
    path = str(shared_data / "particles" / "empiar_10076_7.star")
    poses = dump(tmp_path / "poses.pkl", (rotations(7), shifts(7)))
    particles = load_particles(ParticleFiles(path, poses=poses, ctf=path, invert=True))
    assert (len(particles), particles.box_px) == (7, 320)
    assert particles.pixel_size_angstrom == pytest.approx(1.31, abs=1e-4)
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=path, invert_data=True))
    directly = load_particles(
        ParticleFiles(path.replace(".star", ".mrc"), poses=poses, ctf=path, invert=True, pixel_size_angstrom=1.31)
    )
    assert torch.equal(directly.images, particles.images)
    assert directly.ctf_params is not None and particles.ctf_params is not None
    assert torch.equal(directly.ctf_params, particles.ctf_params)
    extra = ("-D", "320", "--Apix", "1.31", "--ps", "0")
    expected = command(parse_ctf_star, path, "-o", str(tmp_path / "ctf.pkl"), *extra)
    np.testing.assert_allclose(particles.ctf_params, expected[:, 1:], rtol=1e-5)


def test_a_thousand_particles_made_by_others(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "particles"
    poses, ctf = str(folder / "toy_rot_trans.pkl"), str(folder / "test_ctf.pkl")
    files = ParticleFiles(str(folder / "toy_projections.mrcs"), poses, ctf)
    particles = load_particles(files, "disk", tmp_path, chunk=333)
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=files.particles))
    tracker = PoseTracker.load(poses, 1000, 31)
    assert torch.equal(particles.rotations, tracker.rots) and torch.equal(particles.shifts_px, tracker.trans)
    by_star = load_particles(ParticleFiles(str(folder / "toy_projections.star"), poses, ctf))
    assert torch.equal(by_star.images, particles.images)


def test_star_elsewhere_finds_its_stacks_in_datadir(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "particles"
    path = shutil.copy(folder / "relion31.star", tmp_path)
    particles = load_particles(ParticleFiles(path, ctf=path, datadir=str(folder)))
    assert len(particles) == 5


def cs(path: Path, **changes: Any) -> str:
    """Write particles of cryoSPARC; a change to None leaves a column out."""
    vectors = np.random.default_rng(5).normal(size=(N, 3)).astype(np.float32)
    offsets = np.random.default_rng(6).uniform(-2, 2, size=(N, 2)).astype(np.float32)
    ctf = particle_sets.ctf()
    columns: dict[str, Any] = {
        "blob/path": np.full(N, b">J1/particles.mrcs"),
        "blob/idx": np.arange(N, dtype=np.uint32)[::-1],
        "blob/shape": np.full((N, 2), D, np.uint32),
        "blob/psize_A": np.full(N, 3, np.float32),
        "alignments3D/pose": vectors,
        "alignments3D/shift": offsets,
        "ctf/df1_A": ctf[:, 2],
        "ctf/df2_A": ctf[:, 3],
        "ctf/df_angle_rad": np.linspace(0, 3, N, dtype=np.float32),
        "ctf/accel_kv": ctf[:, 5],
        "ctf/cs_mm": ctf[:, 6],
        "ctf/amp_contrast": ctf[:, 7],
        "ctf/phase_shift_rad": np.linspace(0, 1, N, dtype=np.float32),
    }
    columns = {name: values for name, values in (columns | changes).items() if values is not None}
    table = np.zeros(N, dtype=[(name, values.dtype, values.shape[1:]) for name, values in columns.items()])
    for name, values in columns.items():
        table[name] = values
    with path.open("wb") as file:
        np.save(file, table)
    return str(path)


def test_cryosparc_poses_and_ctf_are_those_of_cryodrgns_commands(tmp_path: Path) -> None:
    particle_set(tmp_path)
    path = cs(tmp_path / "particles.cs")
    particles = load_particles(ParticleFiles(path, ctf=path))
    assert torch.equal(particles.images, cryodrgn_images(mrcfile=path))
    np.testing.assert_array_equal(particles.raw(np.arange(N)), images()[::-1])
    assert_poses(particles, *command(parse_pose_csparc, path, "-o", str(tmp_path / "a.pkl")))
    expected = command(parse_ctf_csparc, path, "-o", str(tmp_path / "b.pkl"))
    np.testing.assert_array_equal(particles.ctf_params, expected[:, 1:])


def test_cryosparc_ab_initio_poses_and_a_particle_that_is_not_rotated(tmp_path: Path) -> None:
    vectors = np.random.default_rng(5).normal(size=(N, 3)).astype(np.float32)
    vectors[4] = 0
    changes = {"alignments_class_0/pose": vectors, "alignments_class_0/shift": np.zeros((N, 2), np.float32)}
    path = cs(tmp_path / "p.cs", **changes, **{"alignments3D/pose": None, "alignments3D/shift": None})
    particles = load_particles(particle_set(tmp_path, poses=path))
    rotations = particles.rotations.flip(0)  # the table has the last image first
    assert torch.equal(rotations[4], torch.eye(3))
    expected, _ = command(parse_pose_csparc, path, "-o", str(tmp_path / "a.pkl"), "--abinit")
    others = np.arange(N) != 4
    np.testing.assert_array_equal(rotations[others], expected[others])


@pytest.mark.parametrize("aligned_angstrom", [3.0, 6.0])
def test_cryosparc_shifts_are_in_pixels_of_the_alignment(tmp_path: Path, aligned_angstrom: float) -> None:
    particle_set(tmp_path)
    path = cs(tmp_path / "particles.cs", **{"alignments3D/psize_A": np.full(N, aligned_angstrom, np.float32)})
    particles = load_particles(ParticleFiles(path, ctf=path))
    hetrefine = ["--hetrefine"] if aligned_angstrom == 6 else []  # the option doubles all shifts
    assert_poses(particles, *command(parse_pose_csparc, path, "-o", str(tmp_path / "a.pkl"), *hetrefine))


def test_a_published_heterogeneous_refinement(shared_data: Path) -> None:
    path = shared_data / "failing" / "cs_hetrefine" / "particles.cs"
    particles = load_particles(ParticleFiles(str(path), ctf=str(path)))
    angstrom = np.load(path)["alignments3D/shift"] * 6.0
    np.testing.assert_allclose(particles.shifts_px, angstrom / 3.0 / 16 * 17, rtol=1e-6)


def test_cryosparc_without_the_pixel_size_of_its_images_takes_the_given_one(tmp_path: Path) -> None:
    changes = {"blob/psize_A": None, "alignments3D/psize_A": np.full(N, 6, np.float32)}
    files = particle_set(tmp_path, poses=cs(tmp_path / "p.cs", **changes))
    with pytest.raises(InputError, match=r"p\.cs: no column blob/psize_A; set data\.pixel_size_angstrom"):
        load_particles(files)
    given = load_particles(ParticleFiles(**{**vars(files), "pixel_size_angstrom": 3.0}))
    expected = np.load(files.poses)["alignments3D/shift"][::-1] * 2 / D * (D + 1)
    np.testing.assert_allclose(given.shifts_px, expected, rtol=1e-6)


def classes_of_cs(together: bool, posteriors: np.ndarray) -> dict[str, Any]:
    """Columns of alignments to three classes, of different poses, shifts and pixel sizes."""
    rng = np.random.default_rng(7)
    poses, offsets = rng.normal(size=(N, 3, 3)).astype("f4"), rng.uniform(-1, 1, size=(N, 3, 2)).astype("f4")
    psizes = np.tile(np.array([3, 6, 12], "f4"), (N, 1))
    columns: dict[str, Any] = {"alignments3D/pose": None, "alignments3D/shift": None}
    all_classes = {"pose": poses, "shift": offsets, "psize_A": psizes, "class_posterior": posteriors.astype("f4")}
    for name, values in all_classes.items():
        if together:
            columns[f"alignments3D_multi/{name}"] = values
        else:
            columns |= {f"alignments_class_{k}/{name}": values[:, k] for k in range(3)}
    return columns


@pytest.mark.parametrize("together", [False, True])
def test_of_several_classes_each_particle_takes_its_likeliest(tmp_path: Path, together: bool) -> None:
    particle_set(tmp_path)
    best = np.arange(N) % 3
    columns = classes_of_cs(together, 0.2 + 0.4 * np.eye(3)[best])
    particles = load_particles(ParticleFiles(cs(tmp_path / "x.cs", **columns)))
    for k in range(3):
        one = {
            "alignments3D/" + name: columns[f"alignments3D_multi/{name}"][:, k]
            if together
            else columns[f"alignments_class_{k}/{name}"]
            for name in ("pose", "shift", "psize_A")
        }
        of_class = load_particles(ParticleFiles(cs(tmp_path / "one.cs", **one)))
        assert torch.equal(particles.rotations[best == k], of_class.rotations[best == k])
        assert torch.equal(particles.shifts_px[best == k], of_class.shifts_px[best == k])


def test_classes_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    columns = classes_of_cs(False, np.full((N, 3), np.nan))
    files = particle_set(tmp_path, poses=cs(tmp_path / "x.cs", **columns))
    with pytest.raises(InputError, match=r"NaN or infinite rotation in rows 0-11 "):
        load_particles(files)
    files = particle_set(
        tmp_path, poses=cs(tmp_path / "x.cs", **columns | {"alignments_class_1/class_posterior": None})
    )
    with pytest.raises(InputError, match=r"x\.cs: alignments to 3 classes and not a class_posterior for each"):
        load_particles(files)
