"""Volumes of a run: cryoDRGN's values in cryoDRGN's files, at the points asked for."""

import json
import shutil
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from cryodrgn.mrcfile import parse_mrc

from experiments.runs.run import Run
from experiments.runs.stored_results import read_latents
from experiments.volumes import run_volumes
from experiments.volumes.__main__ import main
from experiments.volumes.decoder import VolumeDecoder, duration
from experiments.volumes.files import write
from experiments.volumes.points import Points, first_particles, kmeans_centres, listed, principal_component
from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.networks.slice_decoder import SliceDecoder
from tests.tiny import tiny

D, ZDIM = 16, 3
Z = np.array([[0.5, -1, 2], [0, 0, 0], [-3, 0.25, 1]], dtype=np.float32)


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    return tmp_path_factory.mktemp("house")


@pytest.fixture(scope="module")
def encoder_run(house) -> Run:
    return tiny(house, "+exp=baseline")


@pytest.fixture(scope="module")
def table_run(house) -> Run:
    return tiny(house, "+exp=vlt_random")


@pytest.fixture(params=["encoder_run", "table_run"])
def run(request) -> Run:
    return request.getfixturevalue(request.param)


def eval_vol(run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, *options) -> None:
    """Run the command ``cryodrgn eval_vol`` on what the run handed over."""
    from cryodrgn.command_line import main_commands

    files = (run.folder / "cryodrgn" / "weights.pkl", "-c", run.folder / "cryodrgn" / "config.yaml", "-o", out)
    monkeypatch.setattr(sys, "argv", ["cryodrgn", "eval_vol", *map(str, (*files, *options))])
    main_commands()


def same_file(ours: Path, theirs: Path) -> None:
    """Compare headers but for the rounding of the statistics, and values."""
    (a, header_a), (b, header_b) = parse_mrc(str(ours)), parse_mrc(str(theirs))
    scale = float(np.abs(b).max())
    assert scale > 0
    np.testing.assert_allclose(a, b, atol=2e-6 * scale, rtol=0)
    for key, value in header_b.fields.items():
        expected = pytest.approx(value, rel=1e-5, abs=1e-6 * scale) if isinstance(value, float) else value
        assert header_a.fields[key] == expected, key


def test_a_file_is_the_one_that_cryodrgn_eval_vol_writes(run, tmp_path, monkeypatch):
    np.savetxt(tmp_path / "z.txt", Z)
    pixel_size = json.loads((run.folder / "volumes" / "index.json").read_text())["pixel_size_angstrom"]
    eval_vol(run, tmp_path / "theirs", monkeypatch, "--zfile", tmp_path / "z.txt", "--Apix", pixel_size)
    assert main([str(run.folder), "--z", str(tmp_path / "z.txt"), "--out", str(tmp_path / "ours")]) == 0
    for i in range(len(Z)):
        same_file(tmp_path / "ours" / f"z_{i:03}.mrc", tmp_path / "theirs" / f"vol_{i + 1:03}.mrc")


def test_a_smaller_box_is_that_of_eval_vol_downsample_with_larger_voxels(run, tmp_path, monkeypatch):
    np.save(tmp_path / "z.npy", Z)
    np.savetxt(tmp_path / "z.txt", Z)
    ours = ["--z", str(tmp_path / "z.npy"), "--out", str(tmp_path / "ours"), "--box-px", "8"]
    assert main([str(run.folder), *ours]) == 0
    described = json.loads((tmp_path / "ours" / "index.json").read_text())
    assert described["pixel_size_angstrom"] == pytest.approx(2 * described["decoder"]["pixel_size_angstrom"])
    options = ("--zfile", tmp_path / "z.txt", "-d", 8, "--Apix", described["pixel_size_angstrom"])
    eval_vol(run, tmp_path / "theirs", monkeypatch, *options)
    same_file(tmp_path / "ours" / "z_002.mrc", tmp_path / "theirs" / "vol_003.mrc")


@pytest.mark.parametrize("box_px", [D, 12])
@pytest.mark.parametrize(
    ("domain", "pe_type"),  # of hartley without an encoding, cryoDRGN's eval_volume fails on any z
    [*product(["fourier"], ["geom_lowf", "gaussian", "none"]), *product(["hartley"], ["geom_lowf", "gaussian"])],
)
def test_every_kind_of_decoder_gives_cryodrgns_eval_volume(domain, pe_type, box_px):
    from cryodrgn.lattice import Lattice

    torch.manual_seed(0)
    slices = SliceDecoder(ImageFormation(D), ZDIM, layers=2, width=24, domain=domain, pe_type=pe_type)
    norm = (0.3, 12.0)
    theirs, lattice = slices.decoder.eval(), Lattice(D + 1)
    for z, ours in zip(Z, VolumeDecoder(slices, norm, 1.0).decode(Z, box_px), strict=True):
        if box_px == D:
            expected = theirs.eval_volume(lattice.coords, D + 1, 0.5, norm, z)
        else:
            coords = lattice.get_downsample_coords(box_px + 1)
            expected = theirs.eval_volume(coords, box_px + 1, 0.5 * box_px / D, norm, z)
        np.testing.assert_allclose(ours, expected, atol=2e-6 * float(expected.abs().max()), rtol=0)


def test_parts_of_points_and_of_z_give_the_same_volumes_as_all_at_once(monkeypatch):
    torch.manual_seed(0)
    decoder = VolumeDecoder(SliceDecoder(ImageFormation(D), ZDIM, layers=1, width=8), (0, 1), 1.0)
    whole = list(decoder.decode(Z))
    monkeypatch.setattr("experiments.volumes.decoder.ROWS_ON_CPU", 100)
    monkeypatch.setattr("experiments.volumes.decoder.SIDE_BY_SIDE", 2)
    np.testing.assert_allclose(list(decoder.decode(Z)), whole, atol=1e-6 * np.abs(whole).max())


def test_bfloat16_in_training_does_not_make_coarse_volumes(encoder_run):
    decoder = run_volumes.decoder_of(encoder_run)
    with torch.autocast("cpu", torch.bfloat16):
        inside = next(decoder.decode(Z))
    np.testing.assert_allclose(inside, next(decoder.decode(Z)), atol=1e-6 * np.abs(inside).max())


def test_it_says_beforehand_how_long_it_will_take(encoder_run, caplog):
    caplog.set_level("INFO")
    list(run_volumes.decoder_of(encoder_run).decode(Z, progress=True))
    assert "decoding 3 volumes of 16 px: about 1 s" in caplog.text
    assert [duration(s) for s in (0.1, 42, 240, 7200)] == ["1 s", "42 s", "4 min", "2.0 h"]


def test_a_training_run_writes_first_particles_and_kmeans_centres(run):
    folder = run.folder / "volumes"
    index = json.loads((folder / "index.json").read_text())
    files = [f"first_{i}.mrc" for i in range(1, 7)] + [f"kmeans_{i:02}.mrc" for i in range(20)]
    assert [each["file"] for each in index["volumes"]] == files
    assert {path.name for path in folder.iterdir()} == {*files, "index.json"}
    mu = read_latents(run.folder).mu.numpy()
    for each in index["volumes"]:
        np.testing.assert_array_equal(np.float32(each["z"]), mu[each["particle"]])
    assert [each["particle"] for each in index["volumes"][:6]] == list(range(6))
    decoded = next(run_volumes.decoder_of(run).decode(mu[2:3]))
    volume, header = parse_mrc(str(folder / "first_3.mrc"))
    np.testing.assert_allclose(volume, decoded, atol=1e-5 * np.abs(decoded).max())
    assert header.apix == pytest.approx(index["pixel_size_angstrom"])
    assert index["pixel_size_angstrom"] == pytest.approx(320 * 1.31 / D)


def test_an_amortization_run_writes_originals_and_their_altered_twins(house, encoder_run):
    run = tiny(house, "+exp=shift_1px")
    index = json.loads((run.folder / "volumes" / "index.json").read_text())["volumes"]
    names = [f"{kind}_{i}" for kind in ("original", "altered") for i in range(1, 7)]
    assert [each["file"] for each in index] == [f"{name}.mrc" for name in names]
    original, _ = parse_mrc(str(run.folder / "volumes" / "original_4.mrc"))
    first, _ = parse_mrc(str(encoder_run.folder / "volumes" / "first_4.mrc"))
    np.testing.assert_allclose(original, first, atol=1e-5 * np.abs(first).max())
    altered, _ = parse_mrc(str(run.folder / "volumes" / "altered_4.mrc"))
    again = next(run_volumes.decoder_of(run).decode(read_latents(run.folder).mu[3:4]))
    np.testing.assert_allclose(altered, again, atol=1e-5 * np.abs(again).max())


def test_fewer_particles_than_volumes_give_fewer_volumes(tmp_path):
    run = tiny(tmp_path, "+exp=baseline", "data.n_particles=4", "zdim=1", "trainer.max_epochs=1")
    index = json.loads((run.folder / "volumes" / "index.json").read_text())["volumes"]
    assert [each["file"] for each in index] == [f"first_{i}.mrc" for i in range(1, 5)] + [
        f"kmeans_{i:02}.mrc" for i in range(4)
    ]
    assert sorted(each["particle"] for each in index[4:]) == [0, 1, 2, 3]


def test_a_frozen_zero_table_has_one_single_volume(house, encoder_run):
    """Paper, section C.1.2; the encoder's run is the control."""
    assert tiny(house, "+exp=vlt_zero_frozen").metrics["volumes/diversity"] == pytest.approx(0, abs=1e-9)
    assert encoder_run.metrics["volumes/diversity"] > 1e-6


def test_the_particles_are_not_needed_for_volumes_of_a_finished_run(encoder_run, tmp_path, monkeypatch):
    moved = shutil.copytree(encoder_run.folder, tmp_path / "moved")
    monkeypatch.setattr(run_volumes, "particles_of", lambda _: pytest.fail("the particles were read"))
    run = Run.load(moved)
    np.testing.assert_allclose(
        next(run_volumes.decoder_of(run).decode(Z)), next(run_volumes.decoder_of(encoder_run).decode(Z)), atol=1e-6
    )


def test_without_index_the_particles_say_what_is_needed(encoder_run, tmp_path):
    moved = shutil.copytree(encoder_run.folder, tmp_path / "moved")
    shutil.rmtree(moved / "volumes")
    found, known = run_volumes.decoder_of(Run.load(moved)), run_volumes.decoder_of(encoder_run)
    assert (found.norm, found.box_px) == (known.norm, known.box_px)
    assert found.pixel_size_angstrom == pytest.approx(known.pixel_size_angstrom)


def test_kmeans_centres_are_those_of_cryodrgn_analyze():
    from cryodrgn.analysis import cluster_kmeans, get_nearest_point

    rng = np.random.default_rng(3)
    mu = (rng.normal(size=(300, 4)) + 4 * rng.integers(0, 3, (300, 1))).astype(np.float32)
    centres = cluster_kmeans(mu, 8)[1]
    points = kmeans_centres(mu, 8)
    np.testing.assert_array_equal(points.z, centres)
    np.testing.assert_array_equal(points.particles, get_nearest_point(mu, centres)[1])


def test_collapsed_latents_still_give_all_centres():
    points = kmeans_centres(np.zeros((50, 2)), 20)
    assert len(points) == 20
    assert not points.z.any()


def test_a_principal_component_is_walked_from_the_5th_to_the_95th_percentile():
    from cryodrgn.analysis import get_pc_traj, run_pca

    mu = np.random.default_rng(0).normal(size=(200, 3)) * [1, 5, 2] + [7, 0, 0]
    along, pca = run_pca(mu.astype(np.float32))
    expected = get_pc_traj(pca, 3, 7, 2, *np.percentile(along[:, 1], (5, 95)))
    points = principal_component(mu, 2, 7)
    np.testing.assert_allclose(points.z, expected, atol=1e-4)
    assert points.particles == [None] * 7
    assert points.names[0] == "pc2_00"


def test_a_component_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="principal component 4: expected 1 to 3"):
        principal_component(np.random.default_rng(0).normal(size=(9, 3)), 4)


def test_first_particles_are_counted_from_one_and_carry_their_index():
    points = first_particles(np.arange(8.0).reshape(4, 2))
    assert points.names == ["first_1", "first_2", "first_3", "first_4"]
    assert points.particles == [0, 1, 2, 3]


def test_a_list_of_z_is_read_from_text_npy_npz_and_latents(tmp_path, encoder_run):
    np.savetxt(tmp_path / "z.txt", Z)
    np.save(tmp_path / "z.npy", Z)
    np.savez(tmp_path / "z.npz", z=Z)
    for kind in ("txt", "npy", "npz"):
        np.testing.assert_array_equal(listed(tmp_path / f"z.{kind}", 3).z, Z)
    np.savetxt(tmp_path / "one.txt", Z[0])
    np.testing.assert_array_equal(listed(tmp_path / "one.txt", 3).z, Z[:1])
    np.testing.assert_array_equal(listed(tmp_path / "one.txt", 1).z, Z[:1].T)
    mu = read_latents(encoder_run.folder).mu.numpy()
    np.testing.assert_array_equal(listed(encoder_run.folder / "latents.npz", ZDIM).z, mu)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("z.txt", "1 2\n3 4\n", r"shape \(2, 2\), expected \(n, 3\)"),
        ("z.txt", "1 2 x\n", "cannot be read"),
        ("z.txt", "1 nan 2\n", "not finite"),
        ("z.csv", "1,2,3\n", "ends in .txt, .npy, .npz"),
        ("z.npz", "no archive", "damaged: File is not a zip file"),
    ],
)
def test_a_file_that_holds_no_z_is_one_clear_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        listed(tmp_path / name, 3)


def test_the_command_line_fails_with_one_line_and_exit_code_1(encoder_run, tmp_path, capsys):
    for arguments, message in (
        ([tmp_path, "--first", 2], "no config.yaml"),
        ([encoder_run.folder, "--z", tmp_path / "no.txt"], "no.txt: z cannot be read"),
        ([encoder_run.folder, "--pc", 9], "principal component 9"),
        ([encoder_run.folder, "--first", 1, "--box-px", 15, "--out", tmp_path], "box of 15 px"),
        ([encoder_run.folder, "--first", 1, "--box-px", 32, "--out", tmp_path], "an even number from 2 to 16"),
    ):
        assert main([str(each) for each in arguments]) == 1
        err = capsys.readouterr().err
        assert message in err
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_one_clear_line(encoder_run, tmp_path):
    moved = shutil.copytree(encoder_run.folder, tmp_path / "moved")
    (moved / "checkpoints" / "last.ckpt").write_bytes(b"half")
    with pytest.raises(InputError, match=r"last\.ckpt: the weights cannot be read"):
        run_volumes.decoder_of(Run.load(moved))


def test_an_interruption_leaves_whole_volumes_and_no_index(encoder_run, tmp_path):
    decoder = run_volumes.decoder_of(encoder_run)
    for name, _ in write(tmp_path, decoder, Points(["a", "b"], Z[:2], [None, None])):
        assert name == "a"
        break
    assert [path.name for path in tmp_path.iterdir()] == ["a.mrc"]
    assert parse_mrc(str(tmp_path / "a.mrc"))[0].shape == (D, D, D)


def test_volumes_of_particles_of_unknown_pixel_size_have_a_cell_of_0(run, tmp_path):
    decoder = replace(run_volumes.decoder_of(run), pixel_size_angstrom=None)
    list(write(tmp_path, decoder, Points(["a"], Z[:1], [None]), box_px=8))
    described = json.loads((tmp_path / "index.json").read_text())
    assert described["pixel_size_angstrom"] is None and described["decoder"]["pixel_size_angstrom"] is None
    assert parse_mrc(str(tmp_path / "a.mrc"))[1].fields["xlen"] == 0
    copied = shutil.copytree(run.folder, tmp_path / "copied")
    shutil.copy(tmp_path / "index.json", copied / "volumes" / "index.json")
    assert run_volumes.decoder_of(Run.load(copied)).pixel_size_angstrom is None
