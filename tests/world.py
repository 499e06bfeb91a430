"""Folders of runs in a world whose truth is known, made without training: the paper may be right in it, or wrong."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
from cryodrgn.mrcfile import write_mrc
from omegaconf import DictConfig, OmegaConf
from scipy.stats import special_ortho_group

from experiments.configuration.compose import compose
from experiments.runs.run import Run

N, ZDIM, BOX_PX = 240, 8, 16
STATE = np.arange(N) % 4
CENTRES = 4 * np.eye(4, ZDIM)


@functools.lru_cache(maxsize=256)
def configuration(*overrides: str) -> DictConfig:
    return compose("trainer.accelerator=cpu", "precision=float32", *overrides)


def make(root: Path, *overrides: str, metrics: dict[str, Any] | None, mu=None, volumes=None, epoch_s=2.0) -> Path:
    """Write the folder of a run; without metrics it is unfinished."""
    run = Run.of(configuration(f"paths.runs={root}", *overrides))
    run.folder.mkdir(parents=True)
    OmegaConf.save(run.config, run.folder / "config.yaml")
    rows = [f"{e + 1},{2 - 0.1 * e},{1 - 0.1 * e},{10.0 + e},{epoch_s * (5 if e == 0 else 1)}" for e in range(5)]
    header = "epoch,loss/total,loss/reconstruction,loss/kl,time/epoch_s"
    (run.folder / "log.csv").write_text("\n".join([header, *rows]) + "\n")
    (run.folder / "run.log").write_text("2026-01-01 10:00:00,000 INFO started\n")
    if mu is not None:
        mu = np.asarray(mu, dtype=np.float32)
        np.savez(run.folder / "latents.npz", mu=mu, logvar=np.full_like(mu, -4), index=np.arange(len(mu)))
    (run.folder / "volumes").mkdir()
    for i, volume in enumerate([] if volumes is None else volumes):
        write_mrc(str(run.folder / "volumes" / f"first_{i + 1}.mrc"), volume, is_vol=True, Apix=3.0)
    if metrics is not None:
        (run.folder / "metrics.json").write_text(json.dumps(metrics))
    return run.folder


def informed(seed: int, noise: float = 0.7) -> np.ndarray:
    """Latents that know the state, turned at random: what a trained run has."""
    rng = np.random.default_rng(seed)
    turned = special_ortho_group.rvs(ZDIM, random_state=seed)
    return (CENTRES[STATE] + noise * rng.standard_normal((N, ZDIM))) @ turned


def ignorant(seed: int) -> np.ndarray:
    return np.random.default_rng(1000 + seed).standard_normal((N, ZDIM))


def blobs(seed: int, states=STATE[:6]) -> list[np.ndarray]:
    """Volumes of the first six particles: a body, a domain that depends on the state, and the seed's own noise."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(BOX_PX) - BOX_PX // 2] * 3, indexing="ij"))
    places = np.array([[4, 0, 0], [-4, 0, 0], [0, 4, 0], [0, 0, -4]])

    def blob(centre, width):
        return np.exp(-np.sum((grid - np.reshape(centre, (3, 1, 1, 1))) ** 2, axis=0) / width)

    noisy = [blob((0, 0, 0), 8) + blob(places[s], 4) + 0.02 * rng.standard_normal((BOX_PX,) * 3) for s in states]
    return [volume.astype(np.float32) for volume in noisy]


def numbers(seed: int, *, accuracy=0.75, r2=0.45, diversity=0.06, reconstruction=0.57, **more: Any) -> dict[str, Any]:
    """Metrics of a training run, a little different with every seed."""
    return {
        "loss/total": reconstruction + 0.02,
        "loss/reconstruction": reconstruction + 0.0005 * seed,
        "loss/kl": 18.0 + 0.1 * seed,
        "time/epoch_s": 2.0,
        "latents/knn_class_accuracy": accuracy + 0.005 * seed,
        "latents/knn_class_chance": 0.25,
        "latents/knn_hinge_r2": r2 + 0.02 * seed,
        "volumes/diversity": diversity + 0.001 * seed,
        **more,
    }


def paper_is_right(root: Path, seeds=(0, 1), without: tuple[str, ...] = ()) -> Path:
    """Make the whole grid as the paper describes it."""
    for seed in seeds:
        for i, name in enumerate(["baseline", "vlt_random", "vlt_zero", "evil_twin_permuted_large", "evil_twin_noise"]):
            if name not in without:
                draw = 10 * i + seed
                make(
                    root, f"+exp={name}", f"seed={seed}", metrics=numbers(seed), mu=informed(draw), volumes=blobs(draw)
                )
        moved = {"amortization/displacement_ratio": 0.72 + 0.01 * seed, "amortization/neighbour_rank": 0.32}
        for name in ("shift_1px", "rotate_90"):
            if name not in without:
                make(root, f"+exp={name}", f"seed={seed}", metrics=moved, mu=ignorant(seed))
        others = {
            "evil_twin_permuted": numbers(seed, accuracy=0.35, r2=0.0, diversity=0.05),
            "vlt_zero_frozen": numbers(seed, accuracy=0.25, r2=-0.1, diversity=0.0, reconstruction=0.61)
            | {"volumes/diversity": 0.0},
            "vlt_random_frozen": numbers(seed, accuracy=0.25, r2=-0.1, diversity=0.005),
            "baseline_small": numbers(seed, accuracy=0.65, r2=0.2, diversity=0.05, reconstruction=0.59),
            "evil_twin_permuted_small": numbers(seed, accuracy=0.6, r2=0.2, diversity=0.05, reconstruction=0.59),
        }
        for name, metrics in others.items():
            if name not in without:
                make(root, f"+exp={name}", f"seed={seed}", metrics=metrics, mu=ignorant(seed), volumes=blobs(seed))
        if "vlt_pretrained_frozen" not in without and "baseline" not in without:
            options = ("+exp=vlt_pretrained_frozen", f"seed={seed}")
            make(root, *options, metrics=numbers(seed), mu=informed(seed), volumes=blobs(90 + seed))
    return root
