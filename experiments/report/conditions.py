"""With what the numbers of some runs were measured: settings, machine, dates, seeds. Generated, never typed."""

from collections.abc import Iterable, Sequence
from typing import Any

from experiments.claims.comparable_runs import OWN, ComparableRuns, describe
from experiments.configuration.overrides import overrides_of
from experiments.runs import provenance
from experiments.runs.folders import RunFolder
from lightning_modules.errors import InputError

# Overrides that name the run, or that the description names anyway.
NAMED = ("+exp=", "name=", "seed=", "precision=", *OWN)


def conditions(evidence: ComparableRuns) -> str:
    """Return in one sentence or two with what a group of runs was measured.

    Args:
        evidence: finished runs of one setting, at least one.

    Returns:
        e.g. "Measured with the defaults (data=simulated, 3000 particles, ..., 1 thread, Intel Xeon, 2026-11-21).
        Several numbers in one cell are those of seeds 0 and 1."
    """
    runs = [run for by_seed in evidence.runs.values() for run in by_seed.values()]
    told = ", ".join([describe(evidence), *_machines(runs)])
    seeds = sorted({run.seed for run in runs if run.seed is not None})
    listed = " and ".join(filter(None, [", ".join(map(str, seeds[:-1])), *map(str, seeds[-1:])]))
    of_seeds = f"Several numbers in one cell are those of seeds {listed}." if len(seeds) > 1 else f"Seed {listed}."
    return f"Measured with {_settings(runs)} ({told}). {of_seeds}"


def _settings(runs: Sequence[RunFolder]) -> str:
    """Name the overrides that all runs share beside their experiments."""
    shared: list[str] | None = None
    for run in runs:
        try:
            own = [text for text in overrides_of(run.config) if not text.startswith(NAMED)]
        except InputError:  # of another version of the suite
            return "settings that no command line of this version makes"
        shared = own if shared is None else [text for text in shared if text in own]
    return f"`{' '.join(shared)}`" if shared else "the defaults"


def _machines(runs: Iterable[RunFolder]) -> list[str]:
    """Name threads, processors or GPUs, and dates, as far as the runs have recorded them."""
    attempts = [attempt for run in runs if (attempt := _last_attempt(run))]
    threads = sorted({str(attempt["threads"]) for attempt in attempts if attempt.get("threads")})
    machines = sorted({machine for attempt in attempts if (machine := _machine(attempt))})
    dates = sorted({str(attempt.get("started"))[:10] for attempt in attempts if attempt.get("started")})
    return [
        *([f"{' or '.join(threads)} thread{'s' if threads != ['1'] else ''}"] if threads else []),
        *([" or ".join(machines)] if machines else []),
        *([dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"] if dates else []),
    ]


def _last_attempt(run: RunFolder) -> dict[str, Any] | None:
    try:
        record = provenance.read(run.folder)
    except InputError:
        return None
    attempts = (record or {}).get("attempts") or [None]
    return attempts[-1] if isinstance(attempts[-1], dict) else None


def _machine(attempt: dict[str, Any]) -> str:
    hardware, gpus = attempt.get("hardware"), attempt.get("gpus")
    if isinstance(gpus, list) and gpus:
        return str(gpus[0])
    return str(hardware.get("processor") or "") if isinstance(hardware, dict) else ""
