"""The task of ``+exp=audit``: read a run of cryoDRGN, measure its encoder, and make a page of it."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate

from experiments.audit import figures
from experiments.audit.measures import TURNED, ImageCondition, PosteriorEvaluator, altered_views
from experiments.audit.model import AuditedVAE, model_of, stored_latents
from experiments.audit.page import Findings, write_page
from experiments.audit.particles import AuditedData, read_unseen, shifts_of_encoder, take
from experiments.audit.reproduced import compare
from experiments.audit.settings import Settings
from experiments.audit.verdict import HIGH, LOW, judge
from experiments.configuration.schema import Precision
from experiments.machine.devices import best_device
from experiments.runs.building import described_data
from experiments.runs.run import Run
from experiments.runs.stored_results import write_latents
from experiments.tracking import loggers
from experiments.volumes import comparison
from experiments.volumes.decoder import VolumeDecoder
from experiments.volumes.files import write
from experiments.volumes.points import Points
from lightning_modules.errors import InputError
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.files.image_stacks import inspect
from lightning_modules.latents.table_init import Latents
from lightning_modules.particles.particles import Particles, load_particles
from lightning_modules.vae.posterior_search import PosteriorSearch

logger = logging.getLogger(__name__)

# What fits into about two minutes: operations on a CPU with two cores, and on a GPU.
AFFORDABLE = {"cpu": 2e13, "cuda": 4e15}
FEWEST, MOST = 24, 256
VOLUME_PX, N_COMPARED, N_SHOWN = 64, 12, 4


class Audit:
    """Audit a run of ``cryodrgn train_vae``."""

    def __init__(
        self, search: PosteriorSearch, n_encoded: int = 5000, n_particles: int | None = None, n_samples: int = 8
    ) -> None:
        """Set how much is looked at.

        Args:
            search: gives the best q of a particle.
            n_encoded: training particles that are encoded, drawn at random; at most all.
            n_particles: of them, whose losses are taken, and as many unseen ones; None: about two minutes' worth.
            n_samples: of z for each particle and each loss.
        """
        self.search, self.n_encoded, self.n_particles, self.n_samples = search, n_encoded, n_particles, n_samples

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        """Audit.

        Args:
            run: names the audited run in its slot ``data``.
            source: none is needed.

        Returns:
            The metrics ``audit/...``, ``audit/verdict`` first. The page is audit.html.

        Raises:
            InputError: the audited run, or its particles, cannot be used.
        """
        data = described_data(run.config)
        assert isinstance(data, AuditedData)
        folder = Folder.find(data.run, data.epoch)
        settings = Settings.read(folder.config)
        device = best_device(run.config.trainer.accelerator, run.config.trainer.devices)
        n_judged = self.n_particles or affordable(settings, self.search.steps * self.search.n_starts, device)
        files = data.particle_files()
        _same_box(files, settings)
        taken = take(files, self.n_encoded, n_judged, run.config.seed)
        stored = stored_latents(folder, taken.n_trained, settings.model["zdim"], taken.positions)
        particles = load_particles(taken.trained, norm=settings.norm)
        taken, unseen = read_unseen(taken, settings.norm)
        encoded_shifts_px = shifts_of_encoder(data.poses_of_encoder(), taken.trained)
        bfloat16 = Precision[str(getattr(run.config.precision, "name", run.config.precision))] is Precision.bfloat16
        model = model_of(folder, settings, particles, run.config.audit.beta, bfloat16, run.config.seed).to(device)
        model.encoded_shifts_px = encoded_shifts_px
        original = model.encode()
        reproduced = compare(stored, original)
        logger.info("z.pkl: %s; losses of %d particles and their best q are next", reproduced.says, n_judged)
        write_latents(run.folder / "latents.npz", original, index=taken.positions, mu_stored=stored.mu.numpy())
        views, turned = self._views(model, original, n_judged, unseen)
        named = {view.name: view for view in views}
        verdict = judge(reproduced, named["train"], named[TURNED], named.get("unseen"), taken.why_not)
        drawn, pairs = _draw(run, model, views, stored, original, turned)
        metrics = {
            "audit/verdict": verdict.headline,
            **reproduced.metrics(),
            **{key: value for view in views for key, value in view.metrics().items()},
            **pairs,
        }
        write_page(
            run.folder / "audit.html",
            Findings(folder, settings, files, taken, reproduced, views, verdict, pairs, drawn),
        )
        tracker = instantiate(run.config.logger)(run=run)
        if tracker is not None:
            loggers.log_results(tracker, run, metrics, drawn)
            loggers.close(tracker)
        return metrics

    def _views(
        self, model: AuditedVAE, original: Latents, n_judged: int, unseen: Particles | None
    ) -> tuple[list[ImageCondition], Latents]:
        """Return all views, and q of the turned images."""
        order = np.random.default_rng((model.seed, 23)).permutation(len(original.mu))
        index = torch.from_numpy(np.sort(order[:n_judged]))
        trained = PosteriorEvaluator(model, self.search, self.n_samples, index, original)
        views = [trained.view("train", "its training images, as they are", original)]
        for view, altered in altered_views(trained, original):
            if view.name == TURNED:
                turned = altered
            views.append(view)
        if unseen is not None:
            seen, shifts_px, model.encoded_shifts_px = model.particles, model.encoded_shifts_px, None
            model.take(unseen)
            everyone = torch.arange(len(model.particles))
            latents = model.encode()
            of_unseen = PosteriorEvaluator(model, self.search, self.n_samples, everyone, latents)
            views.insert(1, of_unseen.view("unseen", "particles of the stack that are not in its index", latents))
            model.take(seen)
            model.encoded_shifts_px = shifts_px
            model.prepare()
        return views, turned


def affordable(settings: Settings, steps: int, device: str) -> int:
    """Return how many particles' best q can be searched for in about two minutes; at least 24, at most 256.

    A function of the networks alone: the same run is audited on the same particles.

    Args:
        settings: of the run.
        steps: of the search.
        device: "cpu", or a GPU as "cuda:0".
    """
    points = settings.box_px**2 * (0.4 if settings.model["domain"] == "fourier" else 0.8)
    weights = (settings.model["players"] + 1) * settings.model["pdim"] ** 2
    once = points * weights
    return int(np.clip(AFFORDABLE[device.partition(":")[0]] / (once * (4 * steps + 2 * 8 * 14) * 2), FEWEST, MOST))


def _same_box(files: Any, settings: Settings) -> None:
    box_px = inspect(Path(files.particles), files.datadir).box_px
    if box_px != settings.box_px:
        raise InputError(
            f"{files.particles}: a box of {box_px} px was found, expected {settings.box_px} px as in "
            f"{settings.said_by}; say which are the particles with audit.particles=PATH"
        )


def _draw(
    run: Run, model: AuditedVAE, views: list[ImageCondition], stored: Latents, original: Latents, turned: Latents
) -> tuple[list[Path], dict[str, float | None]]:
    """Write volumes and figures; return the figures, and how alike V(z) and V(z') are."""
    moved = np.linalg.norm((turned.mu - original.mu).numpy(), axis=1)
    most = np.argsort(-moved, kind="stable")[:N_SHOWN]
    names = [f"{kind}_{i + 1}" for kind in ("original", "altered") for i in range(len(most))]
    z = np.concatenate([original.mu[most].numpy(), turned.mu[most].numpy()])
    decoder = VolumeDecoder.of(model)
    points = Points(names, z, [*map(int, most), *map(int, most)])
    for _ in write(run.folder / "volumes", decoder, points, min(VOLUME_PX, decoder.box_px)):
        pass
    some = np.random.default_rng((model.seed, 24)).permutation(len(moved))[:N_COMPARED]
    agreement = comparison.metrics_of(*comparison.compare(decoder, original.mu[some], turned.mu[some]))
    pairs = {key.replace("amortization/", f"audit/{TURNED}/"): value for key, value in agreement.items()}
    folder = run.folder / "figures"
    shown = views[:-1] if views[-1].name == "noise" else views
    return [
        figures.shares(shown, LOW, HIGH, folder / "shares.png"),
        figures.losses(views, folder / "losses.png"),
        figures.displaced(original.mu, turned.mu, most, run.folder, folder / "displaced.png"),
        figures.agreement(stored.mu, original.mu, folder / "z.png"),
    ], pairs
