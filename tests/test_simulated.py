"""Simulated particles: right in cryoDRGN's conventions, the same every time, and as noisy as asked."""

import argparse
import multiprocessing
import os
import pickle
import signal
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from math import inf
from pathlib import Path

import numpy as np
import pytest
import torch
from cryodrgn import fft
from cryodrgn.ctf import compute_ctf, load_ctf_for_training
from cryodrgn.lattice import Lattice
from cryodrgn.mrcfile import parse_mrc
from cryodrgn.pose import PoseTracker
from cryodrgn.source import ImageSource

from lightning_modules.errors import InputError
from lightning_modules.files.lease import LEASE_S
from lightning_modules.simulation import particles
from lightning_modules.simulation.assembly import ATOM_SIGMA_ANGSTROM, BOX_ANGSTROM, STATES, atom_positions
from lightning_modules.simulation.particles import SimulatedParticles
from lightning_modules.simulation.stack import FILES, clean_image, draw, write

NO_SHIFT = np.zeros(2, dtype=np.float32)


@pytest.fixture
def small(tmp_path: Path) -> SimulatedParticles:
    return SimulatedParticles(n_particles=40, cache_dir=str(tmp_path))


def masked_hartley(images: np.ndarray) -> tuple[torch.Tensor, Lattice, torch.Tensor]:
    """What cryoDRGN sees of images (B, D, D): their Hartley transform (B, M) on the circular mask."""
    lattice = Lattice(images.shape[-1] + 1, extent=0.5)
    mask = lattice.get_circular_mask(images.shape[-1] // 2)
    hartley = fft.symmetrize_ht(fft.ht2_center(torch.from_numpy(images)))
    return hartley.view(len(images), -1)[:, mask], lattice, mask


def correlation(a: np.ndarray | torch.Tensor, b: np.ndarray | torch.Tensor) -> float:
    return float(np.corrcoef(np.asarray(a).ravel(), np.asarray(b).ravel())[0, 1])


def read_stack(data: SimulatedParticles) -> np.ndarray:
    return ImageSource.from_file(str(data.ensure() / "particles.mrcs")).images().numpy()


def cryodrgn_inputs(folder: Path) -> list[str]:
    """The files as arguments of cryoDRGN's commands."""
    poses, ctf = folder / "poses.pkl", folder / "ctf.pkl"
    return [str(folder / "particles.mrcs"), "--poses", str(poses), "--ctf", str(ctf)]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_projection_is_the_central_slice_of_the_true_volume(small, index):
    """The slice is the volume's own Hartley sum at ``lattice.coords @ rot``, without interpolation."""
    particle = draw(small, index)[0]._replace(shift_px=NO_SHIFT)
    seen, lattice, mask = masked_hartley(clean_image(small, particle, with_ctf=False)[None])
    frequency = lattice.coords[mask].numpy() @ particle.rotation
    volume = small.true_volume(particle.state, particle.hinge_rad)
    z, y, x = (np.indices(volume.shape) - small.box_px // 2).reshape(3, -1)
    phase = 2 * np.pi * frequency @ np.stack([x, y, z]).astype(np.float32)
    expected = (np.cos(phase) + np.sin(phase)) @ volume.ravel()
    below_nyquist = np.linalg.norm(frequency, axis=1) < 0.499
    assert below_nyquist.mean() > 0.99
    assert correlation(seen[0, below_nyquist], expected[below_nyquist]) > 0.9999


def test_projection_is_the_analytic_slice_of_gaussians(small):
    particle = draw(small, 3)[0]._replace(shift_px=NO_SHIFT)
    seen, lattice, mask = masked_hartley(clean_image(small, particle, with_ctf=False)[None])
    frequency = lattice.coords[mask].numpy().astype(np.float64) @ particle.rotation
    atoms = atom_positions(particle.state, particle.hinge_rad) / small.pixel_size_angstrom
    sigma_px = ATOM_SIGMA_ANGSTROM / small.pixel_size_angstrom
    phase = 2 * np.pi * frequency @ atoms.T
    envelope = np.exp(-2 * np.pi**2 * sigma_px**2 * (frequency**2).sum(1))
    expected = envelope * (np.cos(phase) + np.sin(phase)).sum(1)
    below_nyquist = np.linalg.norm(frequency, axis=1) < 0.499
    np.testing.assert_allclose(seen[0, below_nyquist], expected[below_nyquist], atol=1e-5 * len(atoms))


def test_ctf_is_cryodrgns_on_its_lattice(small):
    """Strong astigmatism tells x from y and the angle's sense of rotation."""
    data = replace(small, box_px=64, astigmatism_angstrom=9000.0)
    for index in range(3):
        particle = draw(data, index)[0]
        plain, lattice, mask = masked_hartley(clean_image(data, particle, with_ctf=False)[None])
        with_ctf, _, _ = masked_hartley(clean_image(data, particle)[None])
        pixel_size, *optics = torch.from_numpy(particle.ctf_params[1:])
        ctf = compute_ctf(lattice.freqs2d[mask] / pixel_size, *optics)
        inside = lattice.coords[mask].norm(dim=1) < 0.49
        difference = (with_ctf - ctf * plain)[0, inside]
        assert difference.abs().max() < 1e-4 * plain.abs().max()


def test_poses_centre_the_images(tmp_path):
    """After cryoDRGN's own reading, inversion and centring, a shifted particle is the unshifted one."""
    data = SimulatedParticles(n_particles=20, snr=inf, shift_px=2.0, cache_dir=str(tmp_path))
    images = -read_stack(data)
    seen, lattice, mask = masked_hartley(images)
    poses = PoseTracker.load(str(data.ensure() / "poses.pkl"), len(images), lattice.D)
    centred = lattice.translate_ht(seen, poses.trans.unsqueeze(1), mask).squeeze(1)
    truth = [draw(data, index)[0] for index in range(len(images))]
    unshifted = np.stack([clean_image(data, particle._replace(shift_px=NO_SHIFT)) for particle in truth])
    expected, _, _ = masked_hartley(unshifted)
    assert max(float(np.hypot(*particle.shift_px)) for particle in truth) > 2
    below_nyquist = lattice.coords[mask].norm(dim=1) < 0.499
    difference = (centred - expected)[:, below_nyquist]
    assert difference.abs().max() < 1e-4 * expected.abs().max()
    assert correlation(seen, expected) < 0.9
    np.testing.assert_array_equal(poses.rots, np.stack([particle.rotation for particle in truth]))


def test_backprojection_gives_the_true_volume_positive_and_of_the_right_hand(tmp_path):
    from cryodrgn.commands import backproject_voxel

    data = SimulatedParticles(n_particles=500, snr=10.0, n_states=1, hinge_deg=0.0, seed=3, cache_dir=str(tmp_path))
    folder = data.ensure()
    parser = argparse.ArgumentParser()
    backproject_voxel.add_args(parser)
    inputs = cryodrgn_inputs(folder)
    # The default regularization dampens the low frequencies, where the CTF is weak.
    options = ["--no-half-maps", "--reg-weight", "0.01", "-o", str(tmp_path / "volume")]
    backproject_voxel.main(parser.parse_args(inputs + options))
    volume, header = parse_mrc(str(tmp_path / "volume" / "backproject.mrc"))
    truth = data.true_volume(0, 0.0)
    right = correlation(volume, truth)
    assert right > 0.97
    assert np.polyfit(truth.ravel(), volume.ravel(), 1)[0] == pytest.approx(1, abs=0.15)
    for axis in range(3):
        assert correlation(volume, np.roll(np.flip(truth, axis), 1, axis)) < right - 0.05
    assert header.apix == pytest.approx(data.pixel_size_angstrom, rel=1e-4)


def test_true_volume_holds_the_mass_of_its_state_at_every_box(small):
    for state in range(len(STATES)):
        atoms = atom_positions(state, 0.3)
        for box_px in (32, 64):
            volume = small.true_volume(state, 0.3, box_px)
            assert volume.shape == (box_px,) * 3 and volume.dtype == np.float32
            assert volume.sum() == pytest.approx(len(atoms), rel=1e-3)


def test_a_domain_is_a_realistic_part_of_the_complex():
    mass = {domains: len(atom_positions(state, 0.0)) for state, domains in enumerate(STATES)}
    whole = mass[max(STATES, key=len)]
    assert len(mass) == len(STATES)
    for domain in max(STATES, key=len):
        assert 0.05 < (mass[(domain,)] - mass[()]) / whole < 0.18


def test_a_smaller_box_is_the_fourier_crop_of_a_larger_one(small):
    particle = draw(small, 4)[0]._replace(shift_px=NO_SHIFT)
    fine = clean_image(replace(small, box_px=64), particle, with_ctf=False)
    coarse = clean_image(small, particle, with_ctf=False)
    crop = fft.ht2_center(torch.from_numpy(fine))[17:48, 17:48]
    np.testing.assert_allclose(fft.ht2_center(torch.from_numpy(coarse))[1:, 1:], crop, atol=0.01)


def test_hinge_moves_the_stalk_and_nothing_else(small):
    low, high = small.hinge_range_rad
    assert high - low == pytest.approx(np.radians(small.hinge_deg))
    before, after = atom_positions(3, low), atom_positions(3, high)
    moved = np.linalg.norm(after - before, axis=1)
    assert 0.02 < (moved > 0).mean() < 0.15
    assert moved.max() > 3 * small.pixel_size_angstrom


def test_particle_stays_inside_cryodrgns_window(small):
    """Pixels beyond 0.85 of the half box hold next to nothing, shifts included."""
    grid = np.indices((32, 32)) - 16
    outside = np.hypot(*grid) > 0.85 * 16
    for index in range(20):
        image = clean_image(small, draw(small, index)[0], with_ctf=False)
        assert (image[outside] ** 2).sum() < 0.002 * (image**2).sum()


@pytest.mark.parametrize("snr", [0.1, 2.0])
def test_snr_is_the_one_asked_for(tmp_path, snr):
    noisy = SimulatedParticles(n_particles=600, snr=snr, cache_dir=str(tmp_path))
    clean = read_stack(replace(noisy, snr=inf))
    noise = read_stack(noisy) - clean
    assert clean.var(axis=(1, 2)).mean() / noise.var() == pytest.approx(snr, rel=0.03)
    assert abs(noise.mean()) < 0.01 * noise.std()


def test_rotations_are_uniform(small):
    rotations = np.stack([draw(small, index)[0].rotation for index in range(2000)]).astype(np.float64)
    products = rotations @ rotations.transpose(0, 2, 1)
    np.testing.assert_allclose(products, np.broadcast_to(np.eye(3), products.shape), atol=1e-5)
    np.testing.assert_allclose(np.linalg.det(rotations), 1, atol=1e-5)
    # Over SO(3): every entry has mean 0 and variance 1/3, the trace has mean 0 and variance 1.
    assert np.abs(rotations.mean(0)).max() < 0.06
    assert np.abs(rotations.var(0) - 1 / 3).max() < 0.04
    trace = np.trace(rotations, axis1=1, axis2=2)
    assert abs(trace.mean()) < 0.1 and abs(trace.var() - 1) < 0.15


def test_truth_covers_its_ranges(tmp_path):
    data = SimulatedParticles(n_particles=800, n_states=5, shift_px=1.5, cache_dir=str(tmp_path))
    labels = np.load(data.ensure() / "labels.npz")
    assert np.bincount(labels["state"]).min() > 800 / 5 * 0.75 and set(labels["state"]) == set(range(5))
    low, high = data.hinge_range_rad
    assert low <= labels["hinge_rad"].min() < 0.97 * low and 0.97 * high < labels["hinge_rad"].max() <= high
    ctf = pickle.loads((data.ensure() / "ctf.pkl").read_bytes())
    assert ctf.shape == (800, 9) and ctf.dtype == np.float32
    np.testing.assert_allclose(ctf[0, [0, 1, 5, 6, 7, 8]], [32, 13.1, 300, 2.7, 0.07, 0], rtol=1e-6)
    assert (ctf[:, 2] >= ctf[:, 3]).all() and ctf[:, 2:4].std() > 1000
    rotations, fractions = pickle.loads((data.ensure() / "poses.pkl").read_bytes())
    assert rotations.shape == (800, 3, 3) and rotations.dtype == fractions.dtype == np.float32
    shifts_px = fractions * 33
    assert 1.4 < np.abs(shifts_px).max() <= 1.5001


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path):
    first = SimulatedParticles(n_particles=40, cache_dir=str(tmp_path / "a"))
    again = replace(first, cache_dir=str(tmp_path / "b"))
    other = replace(first, seed=1)
    stack = (first.ensure() / "particles.mrcs").read_bytes()
    assert first.folder != again.folder and first.folder != other.folder
    assert (again.ensure() / "particles.mrcs").read_bytes() == stack
    assert (other.ensure() / "particles.mrcs").read_bytes()[1024:] != stack[1024:]


def test_data_do_not_depend_on_the_chunk_size(small, tmp_path):
    stacks = []
    for chunk_size in (7, 40):
        folder = tmp_path / str(chunk_size)
        folder.mkdir()
        write(small, folder, chunk_size)
        stacks.append((folder / "particles.mrcs").read_bytes())
    assert stacks[0] == stacks[1]


def test_a_larger_set_begins_with_the_smaller_one(small):
    larger = replace(small, n_particles=60)
    np.testing.assert_array_equal(read_stack(larger)[:40], read_stack(small))


def test_writing_needs_the_memory_of_a_chunk_not_of_the_stack(small, tmp_path):
    data = replace(small, n_particles=300, box_px=64)
    clean_image(data, draw(data, 0)[0])
    tracemalloc.start()
    write(data, tmp_path, chunk_size=10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "particles.mrcs").stat().st_size == 1024 + 300 * 64 * 64 * 4
    assert peak < 300 * 64 * 64 * 4 / 2


def test_cryodrgn_reads_the_files(small):
    folder = small.ensure()
    source = ImageSource.from_file(str(folder / "particles.mrcs"), lazy=False)
    assert source.shape == (40, 32, 32) and source.dtype == np.float32
    assert source.header.apix == pytest.approx(BOX_ANGSTROM / 32, rel=1e-5)
    assert load_ctf_for_training(32, str(folder / "ctf.pkl")).shape == (40, 8)


def test_files_are_made_once(small, monkeypatch):
    calls = []

    def counted(*args):
        calls.append(args)
        write(*args)

    monkeypatch.setattr(particles, "write", counted)
    threads = [threading.Thread(target=small.ensure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    replace(small, snr=0.1).ensure()
    assert len(calls) == 1 and sorted(path.name for path in small.folder.iterdir()) == sorted(FILES)


def test_even_without_a_lease_nobody_disturbs_another(small, monkeypatch):
    """A process that was frozen for long has lost its lease and does not know it."""
    all_write = threading.Barrier(3)

    def side_by_side(data, folder, chunk_size):
        all_write.wait(60)
        write(data, folder, chunk_size)
        all_write.wait(60)

    monkeypatch.setattr(particles, "write", side_by_side)
    monkeypatch.setattr(particles, "lease_to_make", lambda folder: nullcontext())
    monkeypatch.setattr(particles, "remove_unfinished", lambda folder: None)
    with ThreadPoolExecutor(3) as threads:
        assert set(threads.map(lambda _: small.ensure(), range(3))) == {small.folder}
    (written,) = small.folder.parent.iterdir()
    assert sorted(path.name for path in written.iterdir()) == sorted(FILES) and len(read_stack(small)) == 40


def _is_killed_while_it_writes(data):
    def killed(data, folder, chunk_size):
        (folder / "particles.mrcs").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    particles.write = killed
    data.ensure()


def test_what_a_killed_process_left_is_cleared_away(small):
    process = multiprocessing.get_context("fork").Process(target=_is_killed_while_it_writes, args=(small,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and list(small.folder.parent.glob(".unfinished-*"))
    began = time.monotonic()
    assert len(read_stack(small)) == 40
    assert time.monotonic() - began < LEASE_S / 2, "nobody waits for the dead"
    assert list(small.folder.parent.iterdir()) == [small.folder]


def test_a_failed_build_leaves_nothing_and_can_be_repeated(small, monkeypatch):
    def fails(data, folder, chunk_size):
        (folder / "particles.mrcs").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(particles, "write", fails)
        with pytest.raises(KeyboardInterrupt):
            small.ensure()
    assert [path for path in small.folder.parent.iterdir() if path.is_dir()] == []
    assert len(read_stack(small)) == 40


def test_missing_file_is_made_again(small):
    stack = read_stack(small)
    (small.folder / "particles.mrcs").unlink()
    np.testing.assert_array_equal(read_stack(small), stack)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("n_particles", 0),
        ("box_px", 33),
        ("box_px", 8),
        ("snr", 0.0),
        ("snr", -1.0),
        ("snr", float("nan")),
        ("seed", -1),
        ("n_states", 0),
        ("n_states", len(STATES) + 1),
        ("hinge_deg", -1.0),
        ("shift_px", -0.5),
        ("shift_px", 6.0),
        ("defocus_angstrom", 0.0),
        ("defocus_spread_angstrom", 20000.0),
        ("astigmatism_angstrom", -1.0),
        ("voltage_kv", 0.0),
        ("cs_mm", -1.0),
        ("amplitude_contrast", 1.5),
    ],
)
def test_nonsense_settings_are_refused_by_name(setting, value):
    with pytest.raises(InputError, match=rf"^data\.{setting}={value}: .*expected"):
        SimulatedParticles(**{setting: value})


def test_impossible_volumes_are_refused(small):
    with pytest.raises(InputError, match="state=99"):
        small.true_volume(99, 0.0)
    with pytest.raises(InputError, match="box_px=31"):
        small.true_volume(0, 0.0, box_px=31)


def test_unwritable_cache_is_an_input_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"data\.cache_dir"):
        SimulatedParticles(n_particles=1, cache_dir=str(tmp_path / "file")).ensure()


@pytest.mark.slow
def test_cryodrgn_trains_on_the_files(tmp_path):
    from cryodrgn.commands import train_vae

    data = SimulatedParticles(n_particles=64, cache_dir=str(tmp_path))
    folder = data.ensure()
    parser = argparse.ArgumentParser()
    train_vae.add_args(parser)
    inputs = cryodrgn_inputs(folder)
    options = "--zdim 2 -n 1 --enc-layers 1 --enc-dim 16 --dec-layers 1 --dec-dim 16 --no-amp --no-analysis"
    train_vae.main(parser.parse_args([*inputs, *options.split(), "-o", str(tmp_path / "run")]))
    z = pickle.loads((tmp_path / "run" / "z.1.pkl").read_bytes())
    assert z.shape == (64, 2) and np.isfinite(z).all()
