"""Same weights, same particles: the losses, gradients and latents are cryoDRGN's own."""

import argparse
import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from cryodrgn.commands import train_vae
from cryodrgn.dataset import ImageDataset
from cryodrgn.lattice import Lattice
from cryodrgn.pose import PoseTracker

from lightning_modules.elbo import reparameterize
from lightning_modules.networks.slice_decoder import PE_TYPES
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.simulation.particles import SimulatedParticles
from tests.particle_sets import dump
from tests.small_models import LAYERS, WIDTH, ZDIM, cryo_vae, cryodrgn_vae, particles_in, train

INDEX = torch.tensor([3, 0, 4])
BOXES = (30, 32, 64, 128)


@pytest.fixture(scope="module")
def particles_of_box(tmp_path_factory: pytest.TempPathFactory) -> Any:
    @cache
    def make(box_px: int, with_ctf: bool) -> Particles:
        folder = tmp_path_factory.mktemp(f"box{box_px}")
        return particles_in(folder, n=5, box_px=box_px, **({} if with_ctf else {"ctf": None}))

    return make


def cryodrgn_inputs(particles: Particles) -> tuple[Lattice, ImageDataset, PoseTracker, torch.Tensor | None]:
    """What ``cryodrgn train_vae`` makes of the same files, by its own readers."""
    from cryodrgn import ctf, utils

    files = particles.files
    ind = None if files.ind is None else utils.load_pkl(files.ind)
    data = ImageDataset(files.particles, lazy=False, invert_data=files.invert, window_r=files.window_r, ind=ind)
    poses = PoseTracker.load(files.poses, len(data), data.D, None, ind)
    if files.ctf is None:
        return Lattice(data.D, extent=0.5), data, poses, None
    ctf_params = ctf.load_ctf_for_training(data.D - 1, files.ctf)
    ctf_params = torch.tensor(ctf_params if ind is None else ctf_params[ind])
    return Lattice(data.D, extent=0.5), data, poses, ctf_params


def cryodrgn_batch(
    theirs: torch.nn.Module, particles: Particles, beta_control: float | None = None
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Slices (3, M) and losses of the particles INDEX, by ``run_batch`` and ``loss_function``."""
    lattice, data, poses, ctf_params = cryodrgn_inputs(particles)
    rotations, shifts_px = poses.get_pose(INDEX)
    y = train_vae.preprocess_input(data[INDEX.numpy()]["y"], lattice, shifts_px)
    theirs.train()
    mu, logvar, _, y_hat, mask = train_vae.run_batch(
        theirs, lattice, y, rotations, None, None if ctf_params is None else ctf_params[INDEX]
    )
    return y_hat, train_vae.loss_function(mu, logvar, y, None, y_hat, mask, 1 / ZDIM, beta_control)


def assert_same_terms(particles: Particles, beta_control: float | None = None, **decoder: Any) -> None:
    ours = cryo_vae(particles, decoder=decoder, beta_control=beta_control)
    theirs = cryodrgn_vae(ours, **decoder)
    torch.manual_seed(7)
    their_slices, their_terms = cryodrgn_batch(theirs, particles, beta_control)
    torch.manual_seed(7)
    eps = torch.randn(len(INDEX), ZDIM)
    observed = ours.observe(INDEX)
    for term, their_term in zip(ours.elbo(observed, eps, 1 / ZDIM), their_terms, strict=True):
        torch.testing.assert_close(term, their_term, rtol=1e-5, atol=0)
    slices = ours.render(observed, reparameterize(*ours.infer(observed), eps))
    assert their_slices.std() > 1e-3
    torch.testing.assert_close(slices, their_slices, rtol=1e-4, atol=1e-4 * their_slices.std().item())


@pytest.mark.parametrize("with_ctf", [True, False], ids=["ctf", "no_ctf"])
@pytest.mark.parametrize("pe_type", [name for name in PE_TYPES if name != "none"])
@pytest.mark.parametrize("box_px", BOXES)
def test_loss_terms_equal_cryodrgns(particles_of_box: Any, box_px: int, pe_type: str, with_ctf: bool) -> None:
    assert_same_terms(particles_of_box(box_px, with_ctf), pe_type=pe_type)


@pytest.mark.parametrize("pe_type", PE_TYPES)
@pytest.mark.parametrize("box_px", [30, 64])
def test_loss_terms_equal_cryodrgns_in_the_hartley_domain(particles_of_box: Any, box_px: int, pe_type: str) -> None:
    assert_same_terms(particles_of_box(box_px, True), pe_type=pe_type, domain="hartley")


def test_loss_terms_equal_cryodrgns_under_kl_control(particles_of_box: Any) -> None:
    assert_same_terms(particles_of_box(32, True), beta_control=2.0)


@pytest.mark.parametrize("box_px", BOXES)
def test_without_encoding_slices_equal_cryodrgns_decoder(particles_of_box: Any, box_px: int) -> None:
    # cryoDRGN's own forward pass of this decoder asks for the DC pixel, which its mask leaves out.
    particles = particles_of_box(box_px, True)
    ours = cryo_vae(particles, decoder={"pe_type": "none"})
    theirs = cryodrgn_vae(ours, pe_type="none")
    rotations, z = particles.rotations[INDEX], torch.randn(len(INDEX), ZDIM)
    transform = theirs.decoder.decode(theirs.cat_z(ours.formation.coords @ rotations, z))
    expected = transform[..., 0] - transform[..., 1]
    torch.testing.assert_close(ours.decoder(rotations, z), expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_cryodrgns(particles_of_box: Any) -> None:
    particles = particles_of_box(32, True)
    ours = cryo_vae(particles)
    theirs = cryodrgn_vae(ours)
    torch.manual_seed(7)
    cryodrgn_batch(theirs, particles)[1][0].backward()
    torch.manual_seed(7)
    ours.elbo(ours.observe(INDEX), torch.randn(len(INDEX), ZDIM), 1 / ZDIM).total.backward()
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    for part in (ours.latents, ours.decoder.decoder):
        prefix = "" if part is ours.latents else "decoder."
        for key, parameter in part.named_parameters():
            scale = float(expected[prefix + key].abs().max())
            torch.testing.assert_close(parameter.grad, expected.pop(prefix + key), rtol=1e-4, atol=1e-5 * scale)
    assert not expected


OPTIONS = [{}, {"ctf": None}, {"invert": True, "window_r": 0.6}, {"ind": np.array([7, 2, 9, 4, 0])}]


@pytest.mark.parametrize("options", OPTIONS, ids=["ctf", "no_ctf", "inverted", "ind"])
def test_latents_equal_cryodrgns_eval_z(tmp_path: Path, options: dict[str, Any]) -> None:
    if "ind" in options:
        options = {"ind": dump(tmp_path / "ind.pkl", options["ind"])}
    particles = particles_in(tmp_path, n=12, box_px=32, **options)
    ours = cryo_vae(particles)
    lattice, data, poses, ctf_params = cryodrgn_inputs(particles)
    with torch.no_grad():
        mu, logvar = train_vae.eval_z(
            cryodrgn_vae(ours).eval(), lattice, data, 5, torch.device("cpu"), poses.trans, ctf_params=ctf_params
        )
    latents = ours.encode(batch_size=7)
    assert len(latents.mu) == len(particles)
    np.testing.assert_allclose(latents.mu, mu, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(latents.logvar, logvar, rtol=1e-4, atol=1e-5)


def test_training_takes_cryodrgns_steps(tmp_path: Path) -> None:
    """With cryoDRGN's order and noise, step after step, the losses and in the end the weights are its own."""
    particles = particles_in(tmp_path, n=24, box_px=32)
    ours = cryo_vae(particles, lr=1e-3)
    theirs = cryodrgn_vae(ours)
    lattice, data, poses, ctf_params = cryodrgn_inputs(particles)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    (optimizer,) = ours.configure_optimizers()
    generator = torch.Generator().manual_seed(0)
    losses = []
    for step in range(60):
        index = torch.randperm(24, generator=generator)[:8]
        rotations, shifts_px = poses.get_pose(index)
        torch.manual_seed(step)
        y = data[index.numpy()]["y"]
        expected = train_vae.train_batch(
            theirs, lattice, y, None, rotations, shifts_px, adam, 1 / ZDIM, ctf_params=ctf_params[index]
        )
        torch.manual_seed(step)
        terms = ours.elbo(ours.observe(index), torch.randn(8, ZDIM), 1 / ZDIM)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        np.testing.assert_allclose([float(term.detach()) for term in terms], expected, rtol=1e-3)
        losses.append(expected[0])
    assert np.mean(losses[-10:]) < 0.97 * np.mean(losses[:10])


class Losses(pl.Callback):
    """Total, reconstruction and KL of every epoch."""

    def __init__(self) -> None:
        self.epochs: list[list[float]] = []

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        names = ("loss/total", "loss/reconstruction", "loss/kl")
        self.epochs.append([float(trainer.callback_metrics[name]) for name in names])


def cryodrgn_train_vae(particles: Particles, folder: Path, *options: str) -> np.ndarray:
    """Run the command ``cryodrgn train_vae``; return (epochs, 3) losses from its log."""
    files = particles.files
    parser = argparse.ArgumentParser()
    train_vae.add_args(parser)
    network = ("--zdim", str(ZDIM), "--pe-type", "geom_lowf", "--no-amp", "--no-analysis")
    layers = ("--enc-layers", str(LAYERS), "--dec-layers", str(LAYERS))
    width = ("--enc-dim", str(WIDTH), "--dec-dim", str(WIDTH))
    paths = (files.particles, "-o", str(folder), "--poses", str(files.poses), "--ctf", str(files.ctf))
    sign = () if files.invert else ("--uninvert-data",)
    train_vae.main(parser.parse_args([*paths, *network, *layers, *width, *sign, *options]))
    line = r"Average gen loss = (\S+), KLD = (\S+), total loss = ([^;]+);"
    found = np.array(re.findall(line, (folder / "run.log").read_text()), dtype=float)
    return found[:, [2, 0, 1]]


@pytest.mark.slow
def test_a_whole_run_has_the_losses_of_cryodrgn_train_vae(tmp_path: Path) -> None:
    particles = load_particles(SimulatedParticles(n_particles=1000, cache_dir=str(tmp_path)).particle_files())
    found, expected = [], []
    for seed in (0, 1):
        # The same seed gives both the same first weights; order and noise are each one's own.
        model, losses = cryo_vae(particles, lr=5e-4, seed=seed), Losses()
        options = ("-n", "3", "-b", "8", "--lr", "5e-4", "--seed", str(seed), "--checkpoint", "0")
        expected.append(cryodrgn_train_vae(particles, tmp_path / str(seed), *options))
        train(model, max_epochs=3, batch_size=8, callbacks=[losses])
        found.append(losses.epochs)
    found, expected = np.array(found), np.array(expected)
    np.testing.assert_allclose(found[..., :2], expected[..., :2], rtol=0.01)
    # Most of the loss is noise in the images; what was learned is the rest, here from order and noise of its own.
    learned, their_learned = (np.mean(losses[:, 0, 0] - losses[:, -1, 0]) for losses in (found, expected))
    assert their_learned > 0.02
    assert learned == pytest.approx(their_learned, rel=0.15)
    np.testing.assert_allclose(found[..., 2].mean(axis=0), expected[..., 2].mean(axis=0), rtol=0.25)
