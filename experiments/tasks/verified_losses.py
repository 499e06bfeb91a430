"""Do a training's losses and times hold? They are means over an epoch while the weights moved: none comes again.

What can be checked: metrics.json, log.csv and the checkpoint name the same numbers, and these agree with each other and
with the weights and latents at the end of training.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig

from experiments.runs.epoch_log import read_log
from experiments.runs.run import Run
from experiments.tasks.findings import FAILS, HOLDS, NOT_RECOMPUTED, UNKNOWN, Finding, compare
from experiments.training.callbacks import LOSSES, metrics_of
from lightning_modules.elbo import kl_divergence
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae.vae import VAE

EXACT = 1e-9
ROUNDED = 1e-5  # float32 sums, of the total
PASS, KL_AT_END = 0.1, 0.2  # an epoch's mean against its end
SETTLED = 5  # epochs after which the KL changes slowly


def losses_hold(
    run: Run,
    model: VAE,
    epochs: Sequence[Mapping[str, float]],
    latents: Latents,
    reconstruction: float,
    stored: Mapping[str, Any],
) -> list[Finding]:
    """Check the losses and times of a training run.

    Args:
        run: finished.
        model: with its trained weights.
        epochs: the rows of the checkpoint; at least one, with the losses and the time of each.
        latents: as stored, mu and logvar each (N, zdim).
        reconstruction: that of one pass with the trained weights.
        stored: metrics.json.

    Returns:
        A finding for each number of metrics.json, for the log, and for what ties the losses to each other, to the
        latents and to the weights.
    """
    return [
        *(_metric(name, stored, value) for name, value in metrics_of(epochs, len(model.particles)).items()),
        _log_as_checkpoint(read_log(run.folder / "log.csv"), epochs),
        _total_is_the_sum(run.config, model, epochs),
        _kl_of_latents(latents, epochs),
        compare("reconstruction in one pass", epochs[-1]["loss/reconstruction"], reconstruction, PASS),
    ]


def _metric(name: str, stored: Mapping[str, Any], in_checkpoint: float) -> Finding:
    """Compare a number of metrics.json with that of the checkpoint."""
    value = stored.get(name)
    same = compare(name, value, in_checkpoint, EXACT).verdict == HOLDS
    found = f"stored {value}, in the checkpoint {in_checkpoint}"
    if same and name not in LOSSES:
        return Finding(name, NOT_RECOMPUTED, f"{found}; measured on the run's machine")
    return Finding(name, HOLDS if same else FAILS, f"{found} (tolerance {EXACT:g})")


def _log_as_checkpoint(log: Sequence[Mapping[str, float]], epochs: Sequence[Mapping[str, float]]) -> Finding:
    """Compare all rows and columns of log.csv."""
    what = "log.csv"
    if len(log) != len(epochs):
        return Finding(what, FAILS, f"{len(log)} rows, and {len(epochs)} in the checkpoint")
    for number, (ours, theirs) in enumerate(zip(log, epochs, strict=True), 1):
        for name in sorted(ours.keys() | theirs.keys()):
            found = compare(what, ours.get(name), theirs.get(name), EXACT)
            if found.verdict == FAILS:
                there = f"{name} of row {number} is {ours.get(name)}, and {theirs.get(name)} in the checkpoint"
                return Finding(what, FAILS, there)
    return Finding(what, HOLDS, f"{len(log)} rows, as in the checkpoint; losses before the last epoch not recomputed")


def _total_is_the_sum(config: DictConfig, model: VAE, epochs: Sequence[Mapping[str, float]]) -> Finding:
    """Compare the total of each epoch with its parts; under KL control it is no sum of their means."""
    divisor = model.formation.n_pixels if model.kl_per_pixel else 1
    what = "total = reconstruction + beta * KL" + (" / M" if model.kl_per_pixel else "")
    if config.beta_control is not None:
        return Finding(what, UNKNOWN, "with beta_control the loss is not linear in the KL")
    beta = model.beta(0)  # without KL control it is a constant
    for row in epochs:
        expected = row["loss/reconstruction"] + beta * row["loss/kl"] / divisor
        if not math.isclose(row["loss/total"], expected, rel_tol=ROUNDED):
            there = f"epoch {row.get('epoch')}: total {row['loss/total']}, expected {expected}"
            return Finding(what, FAILS, f"{there} (beta {beta:g}, M {divisor}, tolerance {ROUNDED:g})")
    return Finding(what, HOLDS, f"in {len(epochs)} epochs (beta {beta:g}, M {divisor}, tolerance {ROUNDED:g})")


def _kl_of_latents(latents: Latents, epochs: Sequence[Mapping[str, float]]) -> Finding:
    """Compare the last epoch's mean KL with that of the latents at its end.

    While training moves q, the mean lags behind the end: it may do so by as much as the last epoch changed it. In a
    training's first epochs it may change by any factor.
    """
    what, kl, logged = (
        "KL of the latents",
        float(kl_divergence(latents.mu, latents.logvar).mean()),
        epochs[-1]["loss/kl"],
    )
    moved = abs(logged - epochs[-2]["loss/kl"]) if len(epochs) > 1 else 0.0
    allowed = max(KL_AT_END * abs(kl), moved)
    found = f"stored {logged}, of latents.npz {kl} (tolerance {allowed:.2g})"
    if abs(kl - logged) <= allowed:
        return Finding(what, HOLDS, found)
    if len(epochs) < SETTLED:
        return Finding(what, UNKNOWN, f"{found}; after {len(epochs)} epochs it may still change by any factor")
    return Finding(what, FAILS, found)
