"""What a run hands over, cryoDRGN reads: the same slices, the same z, by its own code and commands."""

import pickle
import shutil
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest
import torch
import yaml
from cryodrgn.analysis import parse_loss
from cryodrgn.commands.train_vae import eval_z
from cryodrgn.ctf import load_ctf_for_training
from cryodrgn.dataset import ImageDataset
from cryodrgn.models import HetOnlyVAE, load_decoder
from cryodrgn.mrcfile import parse_mrc
from cryodrgn.pose import PoseTracker
from omegaconf import DictConfig

from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.building import model_of
from experiments.tasks.cryodrgn_export import export
from lightning_modules.latents.table_init import Latents
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.particle_sets import D, N, ctf, dump, particle_set, rotations, shifts

PIXEL_SIZE_ANGSTROM = 3.0
EPOCHS = 2
LOG = [
    {"loss/total": 1.25, "loss/reconstruction": 1.125, "loss/kl": 3.5, "time/epoch_s": 0.5},
    {"loss/total": 0.75, "loss/reconstruction": 0.625, "loss/kl": 4.5},
]
KINDS = {"encoder": "+exp=baseline", "table": "+exp=vlt_random"}


class Exported(NamedTuple):
    folder: Path
    config: DictConfig
    module: CryoVAE
    latents: Latents

    @property
    def described(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "config.yaml").read_text())


def exported(folder: Path, files: ParticleFiles, *overrides: str) -> Exported:
    """Export an untrained run on a particle set."""
    settings = ("zdim=3", "encoder.layers=2", "encoder.width=16", "decoder.width=24", "precision=float32")
    data = ("data=cryodrgn", f"data.particles={files.particles}", f"trainer.max_epochs={EPOCHS}", "seed=7")
    config = check(compose(*data, *settings, *overrides))
    particles = load_particles(files)
    module = model_of(config, particles)
    latents = module.encode()
    export(folder, config, module, latents, LOG)
    return Exported(folder, config, module, latents)


@pytest.fixture(scope="module", params=KINDS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp(request.param)
    return exported(folder / "cryodrgn", particle_set(folder), KINDS[request.param])


@pytest.fixture(scope="module")
def encoder_run(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("encoder_run")
    return exported(folder / "cryodrgn", particle_set(folder, invert=True, window_r=0.7))


def slices(run: Exported, z: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Slices at the particles' poses as cryoDRGN renders them from the files, and as the run does."""
    files = (str(run.folder / "config.yaml"), str(run.folder / "weights.pkl"))
    if "players" in run.described["model_args"]:
        model, lattice = HetOnlyVAE.load(*files)
        decode = model.decode
    else:
        decoder, lattice = load_decoder(*files)
        decode = lambda x, z: decoder(torch.cat([x, z[:, None].expand(-1, x.shape[1], -1)], -1))
    coords = lattice.coords[lattice.get_circular_mask(D // 2)] / lattice.extent / 2
    # One of cryoDRGN's decoders insists on the DC pixel, which no loss ever sees.
    before, after = coords.chunk(2)
    coords, dc = torch.cat([before, torch.zeros(1, 3), after]), len(before)
    poses = run.module.particles.rotations[: len(z)]
    with torch.no_grad():
        theirs = decode(coords @ poses, z).view(len(z), -1)
        return torch.cat([theirs[:, :dc], theirs[:, dc + 1 :]], dim=1), run.module.decoder(poses, z)


def read_pickles(path: Path, n: int) -> list[Any]:
    with path.open("rb") as file:
        return [pickle.load(file) for _ in range(n)] + [file.read()]


@pytest.mark.parametrize("kind", KINDS.values())
@pytest.mark.parametrize(
    "decoder",
    "domain=fourier domain=hartley pe_type=gaussian pe_type=none pe_dim=5 activation=leaky_relu".split(),
)
def test_cryodrgn_renders_the_same_slices_from_the_files(tmp_path: Path, kind: str, decoder: str):
    encoder = ["encoder.activation=leaky_relu"] if decoder == "activation=leaky_relu" else []
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path), kind, f"decoder.{decoder}", *encoder)
    theirs, ours = slices(run, torch.randn(4, 3, generator=torch.Generator().manual_seed(1)))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    assert ("encode_mode" in run.described["model_args"]) == (kind == KINDS["encoder"])


def cryodrgn_z(run: Exported) -> tuple[np.ndarray, np.ndarray]:
    """Latents of the particles, by cryoDRGN alone, from nothing but the exported folder."""
    args = run.described["dataset_args"]
    ind = None if args["ind"] is None else pickle.loads(Path(args["ind"]).read_bytes())
    options = {key: args[key] for key in ("norm", "invert_data", "window", "window_r", "datadir")}
    data = ImageDataset(args["particles"], lazy=False, ind=ind, device="cpu", **options)
    model, lattice = HetOnlyVAE.load(str(run.folder / "config.yaml"), str(run.folder / "weights.pkl"))
    shifts_px = PoseTracker.load(args["poses"], data.N, data.D, None, ind).trans
    ctf_params = None
    if args["ctf"] is not None:
        table = load_ctf_for_training(data.D - 1, args["ctf"])
        ctf_params = torch.tensor(table if ind is None else table[ind])
    with torch.no_grad():
        return eval_z(model.eval(), lattice, data, 5, torch.device("cpu"), shifts_px, ctf_params=ctf_params)


def same_z_in_cryodrgn(run: Exported) -> None:
    for ours, theirs in zip(run.latents, cryodrgn_z(run), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-5)


def test_cryodrgn_encodes_to_the_same_z_from_the_files(encoder_run: Exported):
    same_z_in_cryodrgn(encoder_run)


def test_of_a_selection_the_folder_says_which_particles_it_is_about(tmp_path: Path):
    index = np.array([7, 2, 11, 0, 5])
    (tmp_path / "ind.txt").write_text(" ".join(map(str, index)))
    files = particle_set(tmp_path, ind=str(tmp_path / "ind.txt"), n_particles=4)
    run = exported(tmp_path / "cryodrgn", files, KINDS["encoder"])
    assert read_pickles(Path(run.described["dataset_args"]["ind"]), 1)[0].tolist() == [7, 2, 11, 0]
    same_z_in_cryodrgn(run)


def test_an_index_that_cryodrgn_can_read_is_named_as_it_is(tmp_path: Path):
    ind = dump(tmp_path / "mine.pkl", np.array([3, 1, 8]))
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path, ind=ind), KINDS["encoder"])
    assert run.described["dataset_args"]["ind"] == ind
    same_z_in_cryodrgn(run)


def test_poses_and_ctf_of_the_selected_particles_alone_become_files_for_the_whole_stack(tmp_path: Path):
    index = np.array([3, 1, 8])
    files = particle_set(
        tmp_path,
        ind=dump(tmp_path / "ind.pkl", index),
        poses=dump(tmp_path / "few_poses.pkl", (rotations()[index], shifts()[index])),
        ctf=dump(tmp_path / "few_ctf.pkl", ctf()[index]),
    )
    run = exported(tmp_path / "cryodrgn", files, KINDS["encoder"])
    same_z_in_cryodrgn(run)
    whole, _ = read_pickles(run.folder / "ctf.pkl", 1)
    np.testing.assert_allclose(whole[index], ctf()[index], rtol=1e-6)
    assert set(whole[:, 0]) == {D}
    assert set(whole[:, 1]) == {PIXEL_SIZE_ANGSTROM}
    assert np.isnan(np.delete(whole[:, 2:], index, axis=0)).all()


def test_poses_and_ctf_of_other_formats_become_cryodrgns_pickles(tmp_path: Path):
    np.savez(tmp_path / "p.npz", rotations=rotations(), shifts=shifts())
    # Made at twice the box: cryoDRGN has to find the pixel size of the images as they are.
    np.savez(tmp_path / "c.npz", ctf_params=ctf(N, 2 * D, PIXEL_SIZE_ANGSTROM / 2))
    run = exported(
        tmp_path / "cryodrgn",
        particle_set(tmp_path, poses=str(tmp_path / "p.npz"), ctf=str(tmp_path / "c.npz")),
        KINDS["encoder"],
    )
    args = run.described["dataset_args"]
    assert (args["poses"], args["ctf"]) == (str(run.folder / "poses.pkl"), str(run.folder / "ctf.pkl"))
    assert load_ctf_for_training(D, args["ctf"])[0, 0] == pytest.approx(PIXEL_SIZE_ANGSTROM)
    same_z_in_cryodrgn(run)


def test_poses_and_ctf_of_a_star_file_become_cryodrgns_pickles(shared_data: Path, tmp_path: Path):
    star = str(shared_data / "particles" / "relion31.star")
    run = exported(tmp_path / "cryodrgn", ParticleFiles(star, star, star), KINDS["encoder"])
    theirs = pickle.loads((shared_data / "particles" / "relion31_poses.pkl").read_bytes())
    written, _ = read_pickles(run.folder / "poses.pkl", 1)
    for ours, parsed in zip(written, theirs, strict=True):
        np.testing.assert_allclose(ours, parsed, atol=1e-5)
    same_z_in_cryodrgn(run)


def test_no_ctf_stays_no_ctf(tmp_path: Path):
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path, ctf=None), KINDS["encoder"])
    assert run.described["dataset_args"]["ctf"] is None
    same_z_in_cryodrgn(run)


def test_rotations_without_shifts_get_shifts_of_zero(tmp_path: Path):
    files = particle_set(tmp_path, poses=dump(tmp_path / "rot.pkl", rotations()))
    run = exported(tmp_path / "cryodrgn", files, KINDS["encoder"])
    (theirs, zero), _ = read_pickles(run.folder / "poses.pkl", 1)
    np.testing.assert_allclose(theirs, rotations(), atol=1e-6)
    assert not zero.any()
    same_z_in_cryodrgn(run)


def test_z_is_what_was_trained(run: Exported):
    for name in ("z.pkl", f"z.{EPOCHS}.pkl"):
        mu, logvar, rest = read_pickles(run.folder / name, 2)
        assert rest == b""
        assert mu.dtype == logvar.dtype == np.float32
        np.testing.assert_array_equal(mu, run.latents.mu)
        np.testing.assert_array_equal(logvar, run.latents.logvar)


def test_of_a_table_run_z_holds_the_rows_of_the_table(tmp_path: Path):
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path), KINDS["table"])
    rows = run.module.latents.table.weight.detach().numpy()
    np.testing.assert_array_equal(np.hstack(read_pickles(run.folder / "z.pkl", 2)[:2]), rows)


def test_of_a_twin_run_z_is_that_of_the_twins(tmp_path: Path):
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path), "+exp=evil_twin_permuted")
    mu = read_pickles(run.folder / "z.pkl", 2)[0]
    np.testing.assert_array_equal(mu, run.latents.mu)
    assert np.abs(mu - cryodrgn_z(run)[0]).max() > 1e-3


def test_the_weights_load_without_running_code(run: Exported):
    for name in ("weights.pkl", f"weights.{EPOCHS}.pkl"):
        checkpoint = torch.load(run.folder / name, weights_only=True)
        assert checkpoint["epoch"] == EPOCHS
        assert all(value.dtype == torch.float32 for value in checkpoint["model_state_dict"].values())


def test_the_configuration_is_plain_yaml_that_names_everything(run: Exported):
    described, files = run.described, run.module.particles.files
    assert described["lattice_args"] == {"D": D + 1, "extent": 0.5, "ignore_DC": True}
    assert described["seed"] == 7
    args = described["dataset_args"]
    assert args["norm"] == pytest.approx(run.module.particles.norm, rel=1e-12)
    assert (args["particles"], args["poses"], args["ctf"]) == (files.particles, files.poses, files.ctf)
    assert all(Path(args[key]).is_absolute() for key in ("particles", "poses", "ctf"))


def test_cryodrgn_reads_the_loss_of_every_epoch(run: Exported):
    np.testing.assert_allclose(parse_loss(str(run.folder / "run.log")), [1.25, 0.75])


def test_two_activations_make_no_vae_but_a_decoder(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    run = exported(tmp_path / "cryodrgn", particle_set(tmp_path), "encoder.activation=leaky_relu")
    assert "leaky_relu in the encoder" in caplog.text
    assert "encode_mode" not in run.described["model_args"]
    torch.testing.assert_close(*slices(run, torch.randn(4, 3)), rtol=1e-5, atol=1e-6)


def test_a_second_export_replaces_the_first_and_leaves_nothing_else(run: Exported):
    before = {path.name for path in run.folder.iterdir()}
    zeros = Latents(torch.zeros(N, 3), torch.zeros(N, 3))
    export(run.folder, run.config, run.module, zeros, LOG)
    assert not read_pickles(run.folder / f"z.{EPOCHS}.pkl", 2)[0].any()
    assert not read_pickles(run.folder / "z.pkl", 2)[0].any()
    export(run.folder, run.config, run.module, run.latents, LOG)
    assert {path.name for path in run.folder.iterdir()} == before


def command_line(*args: Any) -> list[str]:
    """Return a cryoDRGN command as a user types it."""
    main = "from cryodrgn.command_line import main_commands as main; main()"
    return [sys.executable, "-c", main, *map(str, args)]


def cryodrgn(*args: Any) -> None:
    """Run a cryoDRGN command."""
    done = subprocess.run(command_line(*args), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]


@pytest.mark.slow
def test_cryodrgn_analyze_accepts_the_folder(run: Exported, tmp_path: Path):
    few = ("--skip-umap", "--ksample", 3, "--pc", 1, "--n-per-pc", 2)
    cryodrgn("analyze", run.folder, -1, "-o", tmp_path, *few)  # the dashboard's test asks for an epoch
    for name in ("pc1/vol_001.mrc", "pc1/vol_002.mrc", "kmeans3/vol_001.mrc", "kmeans3/vol_003.mrc"):
        volume, header = parse_mrc(str(tmp_path / name))
        assert volume.shape == (D, D, D)
        assert np.isfinite(volume).all()
        assert header.apix == pytest.approx(PIXEL_SIZE_ANGSTROM, rel=1e-5)


@pytest.mark.slow
def test_cryodrgn_dashboard_starts_on_the_folder_and_shows_its_analysis(encoder_run: Exported, tmp_path: Path):
    folder = Path(shutil.copytree(encoder_run.folder, tmp_path / "run"))
    cryodrgn("analyze", folder, EPOCHS, "--skip-umap", "--ksample", 2, "--pc", 1, "--n-per-pc", 2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dashboard = subprocess.Popen(command_line("dashboard", folder, "--no-browser", "--port", port))
    try:
        page = answer_of(f"http://127.0.0.1:{port}/", dashboard)
    finally:
        dashboard.kill()
        dashboard.wait()
    assert str(folder / f"analyze.{EPOCHS}") in page


def answer_of(url: str, server: subprocess.Popen[bytes]) -> str:
    """Return what a server answers, as soon as it does."""
    while server.poll() is None:
        with suppress(URLError), urlopen(url, timeout=60) as answer:
            text: str = answer.read().decode()
            return text
        time.sleep(0.2)
    raise AssertionError(f"the server ended with exit code {server.returncode}")


@pytest.mark.slow
def test_cryodrgn_eval_vol_renders_from_the_weights(run: Exported, tmp_path: Path):
    files = (run.folder / "weights.pkl", "-c", run.folder / "config.yaml")
    cryodrgn("eval_vol", *files, "-o", tmp_path / "v.mrc", "-z", 0.5, -1, 2, "--Apix", PIXEL_SIZE_ANGSTROM)
    volume, header = parse_mrc(str(tmp_path / "v.mrc"))
    assert volume.shape == (D, D, D)
    assert header.apix == pytest.approx(PIXEL_SIZE_ANGSTROM, rel=1e-5)
    assert volume.std() > 0


@pytest.mark.slow
def test_cryodrgn_eval_images_gives_the_z_that_was_written(encoder_run: Exported, tmp_path: Path):
    files = encoder_run.module.particles.files
    cryodrgn(
        *("eval_images", files.particles, encoder_run.folder / "weights.pkl"),
        *("-c", encoder_run.folder / "config.yaml", "--poses", files.poses, "--ctf", files.ctf),
        *("-o", tmp_path / "loss.pkl", "--out-z", tmp_path / "z.pkl", "--window-r", files.window_r),
    )
    ours, theirs = read_pickles(encoder_run.folder / "z.pkl", 2), read_pickles(tmp_path / "z.pkl", 2)
    for part in range(2):
        np.testing.assert_allclose(ours[part], theirs[part], rtol=1e-4, atol=1e-5)
