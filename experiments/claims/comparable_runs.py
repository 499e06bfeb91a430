"""Finished runs that can be compared: same particles, same training, apart in the experiment and the seed alone."""

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.configuration.identity import NOT_DATA
from experiments.configuration.overrides import overrides_of
from experiments.runs.folders import FINISHED, RunFolder
from lightning_modules.errors import InputError
from lightning_modules.files.safe_numpy import load_npz

# What two runs must share to be compared. An experiment is free in the rest: encoder, zdim, latents, what is seen.
SETTING = ("batch_size", "lr", "precision", "weight_decay", "beta", "beta_control", "decoder")
# Overrides of these make another variant of an experiment, not another setting.
OWN = ("zdim=", "encoder", "metadata", "latents", "table_lr=", "task", "name=")
MEAN_VOLUME = "volumes/per_image_fsc_auc_of_mean"

Similarity = Callable[[RunFolder, RunFolder], float | None]


@dataclass
class ComparableRuns:
    """Finished runs of one data set and one setting.

    Attributes:
        setting: what they share.
        runs: by experiment, then seed.
        variants: by experiment, the overrides by which its runs differ from its file in conf/exp.
    """

    setting: dict[str, Any]
    runs: dict[str, dict[int, RunFolder]] = field(default_factory=dict)
    variants: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _compared: dict[tuple[Similarity, Path, Path], float | None] = field(default_factory=dict, repr=False)

    def of(self, experiment: str) -> dict[int, RunFolder]:
        """Return an experiment's runs by seed; none if there are none."""
        return self.runs.get(experiment, {})

    def numbers(self, experiment: str, key: str) -> dict[int, float]:
        """Return one final number by seed, of the runs that have it."""
        found = {seed: run.number(key) for seed, run in self.of(experiment).items()}
        return {seed: value for seed, value in found.items() if value is not None}

    def undertrained(self, experiment: str) -> str:
        """Say that runs know nothing of heterogeneity yet; empty where they do, or where no true volume is known.

        Volumes that are no nearer to their true ones than the mean volume is are no yardstick for anybody.
        """
        auc, of_mean = (self.numbers(experiment, key) for key in ("volumes/per_image_fsc_auc", MEAN_VOLUME))
        for seed in sorted(auc.keys() & of_mean.keys()):
            if auc[seed] <= of_mean[seed]:
                numbers = f"FSC area {auc[seed]:.4g} against {of_mean[seed]:.4g}, seed {seed}"
                return f"{experiment} is undertrained: its volumes are no better than the mean volume ({numbers})"
        return ""

    def similarity(self, a: str, b: str, compare: Similarity) -> list[float]:
        """Compare the runs of two experiments, pair by pair.

        Two runs with one seed share their decoder's first weights and the order of the particles, which makes
        them more alike than two seeds of one experiment: only pairs with different seeds are compared.

        Args:
            a: an experiment.
            b: another, or the same.
            compare: of two runs; None where it does not exist.

        Returns:
            A number per pair.
        """
        pairs = (
            itertools.combinations(self.of(a).values(), 2)
            if a == b
            else ((x, y) for x in self.of(a).values() for y in self.of(b).values() if x.seed != y.seed)
        )
        return [value for x, y in pairs if (value := self._compare(compare, x, y)) is not None]

    def _compare(self, compare: Similarity, x: RunFolder, y: RunFolder) -> float | None:
        key = (compare, x.folder, y.folder)
        if key not in self._compared:
            self._compared[key] = compare(x, y)
        return self._compared[key]

    @property
    def n_runs(self) -> int:
        """How many runs there are."""
        return sum(map(len, self.runs.values()))


def group(found: Iterable[RunFolder]) -> list[ComparableRuns]:
    """Group finished runs by data set and setting.

    Where an experiment was run in several variants (``encoder.width=64``), the one nearest to its file in
    conf/exp stands for it.

    Args:
        found: runs in any state; only finished ones count.

    Returns:
        The groups, largest first.
    """
    settings: dict[str, list[RunFolder]] = defaultdict(list)
    for run in found:
        if run.status == FINISHED and run.seed is not None:
            settings[json.dumps(setting_of(run.config), sort_keys=True, default=str)].append(run)
    groups = [_comparable_runs(runs) for runs in settings.values()]
    return sorted(groups, key=lambda evidence: -evidence.n_runs)


def setting_of(config: dict[str, Any]) -> dict[str, Any]:
    """Return what two runs must share to be compared."""
    data = {key: value for key, value in (config.get("data") or {}).items() if key not in NOT_DATA}
    trainer = config.get("trainer") or {}
    shared = {key: config.get(key) for key in SETTING}
    return {"data": data, **shared, "max_epochs": None if config.get("audit") else trainer.get("max_epochs")}


def describe(evidence: ComparableRuns) -> str:
    """Say in a few words what a group of runs shares."""
    setting = evidence.setting
    data = setting.get("data", {})
    run = next(iter(next(iter(evidence.runs.values())).values()))
    particles, audit = data.get("n_particles"), run.config.get("audit")
    words = [
        run.label if audit else f"data={(run.config.get('data') or {}).get('name')}",
        f"{particles} particles" if particles else "",
        f"{data['box_px']} px" if data.get("box_px") else "",
        f"SNR {data['snr']}" if data.get("snr") else "",
        f"{setting['max_epochs']} epochs" if setting.get("max_epochs") else "",
        str(setting.get("precision") or ""),
    ]
    return ", ".join(filter(None, words))


def _comparable_runs(runs: list[RunFolder]) -> ComparableRuns:
    evidence = ComparableRuns(setting_of(runs[0].config))
    variants: dict[str, dict[tuple[str, ...], list[RunFolder]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        variants[run.name][variant_of(run.config)].append(run)
    for name, found in sorted(variants.items()):
        nearest = min(found, key=lambda own: (len(own), own))
        evidence.variants[name] = nearest
        by_age = sorted(found[nearest], key=lambda run: (run.folder / "metrics.json").stat().st_mtime)
        evidence.runs[name] = {run.seed: run for run in by_age if run.seed is not None}
        evidence.runs[name] = dict(sorted(evidence.runs[name].items()))
    return evidence


def variant_of(config: dict[str, Any]) -> tuple[str, ...]:
    """Return the overrides by which a run differs from its experiment, beside seed and setting."""
    try:
        return tuple(text for text in overrides_of(config) if text.startswith(OWN))
    except InputError:
        return ()


def latents_of(run: RunFolder) -> NDArray[np.float32] | None:
    """Return mu (N, zdim) of a run; None where it cannot be read."""
    try:
        mu: NDArray[np.float32] = load_npz(run.folder / "latents.npz")["mu"]
        return mu
    except (OSError, InputError, KeyError):
        return None
