"""Do a run's numbers still hold? ``python -m experiments verify RUN [RUN ...]``, with your own or somebody else's runs.

Everything that can be recomputed without training is: the data's checksums against those in provenance.json, the
latents from the stored weights, the metrics from the stored latents and weights. Nothing in the folder is changed.

- Losses are means over the last epoch, while the weights still moved. They must be equal to those in log.csv and in
  the checkpoint; one pass with the stored weights must come within 10 percent of the reconstruction.
- Latents may differ by a thousandth of their spread (a twentieth where networks are in bfloat16): processors round
  differently. Truth metrics come from the stored latents, exactly; all others may differ by a hundredth.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.error_messages import command, one_line
from experiments.machine.terminal import purpose
from experiments.runs import provenance
from experiments.runs.checksums import checksums_of
from experiments.runs.epoch_log import read_log
from experiments.runs.run import Run
from lightning_modules.errors import InputError

HOLDS, FAILS, UNKNOWN = "holds", "DOES NOT HOLD", "cannot be told"
LATENTS = {"float32": 1e-3, "bfloat16": 5e-2}  # of the spread of mu
PASS, OTHERS, EXACT = 0.1, 1e-2, 1e-9  # relative
MACHINES = ("time/", "images_per_s", "infer/particles_per_s")  # how fast it was here says nothing about there


class Finding(NamedTuple):
    """What came of one check.

    Attributes:
        what: was checked.
        verdict: holds, does not, or cannot be told; that is no failure.
        found: the numbers.
    """

    what: str
    verdict: str
    found: str


def verify(folder: Path, cache: Path | None = None) -> Iterator[Finding]:
    """Check a finished run.

    Args:
        folder: of the run; it is only read.
        cache: where simulated and preprocessed data are kept; None: where the run kept them, if that is here.

    Yields:
        A finding for each thing that can be wrong.

    Raises:
        InputError: not a finished run, or one whose files cannot be read.
    """
    run = here(Run.load(folder), cache)
    metrics = run.metrics
    if metrics is None:
        raise InputError(f"{folder}: the run is not finished, there is no metrics.json; nothing to verify yet")
    yield from _data(run)
    with tempfile.TemporaryDirectory() as scratch:
        recomputed, latents = remeasure(run, Path(scratch))
        yield from latents
    logged = {key: value for key, value in metrics.items() if key.startswith("loss/") and key not in recomputed}
    yield from _losses(run, logged)
    for key, stored in metrics.items():
        if key.startswith(MACHINES) or key in logged:
            continue
        if key not in recomputed:
            yield Finding(key, UNKNOWN, f"stored {stored}; this version does not compute it")
        else:
            yield compare(key, stored, recomputed[key], EXACT if key.startswith(("latents/", "loss/")) else OTHERS)
    for key in recomputed.keys() - metrics.keys():
        if not key.startswith((*MACHINES, "loss/", "pass/")):
            yield Finding(key, FAILS, f"recomputed {recomputed[key]}, and not in metrics.json")
    if "pass/reconstruction" in recomputed:
        name = "reconstruction in one pass"
        yield compare(name, metrics.get("loss/reconstruction"), recomputed["pass/reconstruction"], PASS)


def here(run: Run, cache: Path | None = None) -> Run:
    """Return a run as it is to be read on this machine: other runs beside it, data where they can be."""
    config = run.config.copy()
    config.paths.runs = str(run.folder.parents[2])
    kept = cache or next((p for p in (Path(config.paths.cache), Path("cache")) if p.is_dir()), Path("cache"))
    config.paths.cache = str(kept)
    if "cache_dir" in config.data:
        config.data.cache_dir = str(kept)
    return Run(config, run.folder)


def compare(what: str, stored: Any, recomputed: Any, tolerance: float) -> Finding:
    """Compare two values; a number may differ by a fraction of itself, and a value that is missing by nothing."""
    found = f"stored {stored}, recomputed {recomputed} (tolerance {tolerance:g})"
    numbers = isinstance(stored, int | float) and isinstance(recomputed, int | float)
    same = (
        math.isclose(stored, recomputed, rel_tol=tolerance, abs_tol=tolerance**2) if numbers else stored == recomputed
    )
    return Finding(what, HOLDS if same else FAILS, found)


def _data(run: Run) -> Iterator[Finding]:
    record = provenance.read(run.folder)
    stored = None if record is None else record.get("data")
    if not isinstance(stored, dict):
        yield Finding("data", UNKNOWN, "the run has no checksums of its data")
        return
    found = checksums_of(run.config)
    for name in sorted(stored.keys() | found.keys()):
        then, now = stored.get(name), found.get(name)
        what = f"data: {name}"
        if then == now and isinstance(now, dict):
            yield Finding(what, HOLDS, f"SHA-256 of {now['of']}, {now['bytes']:,} bytes")
        else:
            yield Finding(what, FAILS, f"{_size(then)} then, {_size(now)} now: other content")


def _size(checksum: Any) -> str:
    return f"{checksum.get('bytes')} bytes" if isinstance(checksum, dict) else "no such file"


def _losses(run: Run, stored: dict[str, Any]) -> Iterator[Finding]:
    """Compare losses in metrics.json with the last row of log.csv."""
    rows = read_log(run.folder / "log.csv")
    for key, value in stored.items():
        if not rows or key not in rows[-1]:
            yield Finding(key, FAILS, f"stored {value}, and no such number in log.csv")
        else:
            yield compare(f"{key} as in log.csv", value, rows[-1][key], EXACT)


def remeasure(run: Run, scratch: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Compute a finished run's metrics again, without training.

    Args:
        run: finished.
        scratch: an empty folder, for what is written on the way.

    Returns:
        The metrics, and ``pass/reconstruction``, that of one pass; and whether the stored latents are those that the
        stored weights give.
    """
    from hydra.utils import instantiate

    from experiments.runs.stored_results import read_latents
    from experiments.tasks.train import Train

    config: DictConfig = run.config.copy()
    config.logger = OmegaConf.create({"_target_": "experiments.tracking.loggers.no_logger", "_partial_": True})
    copy = Run(config, scratch)
    task, stored = instantiate(config.task), read_latents(run.folder)
    if isinstance(task, Train):
        return _of_training(run, copy, task, stored)
    source = run.source()
    if copy.config.get("audit"):  # it needs none
        return task(copy, None), [_same_latents(run, stored, read_latents(scratch))]
    if source is None or source.metrics is None:
        raise InputError(f"{run.folder}: it needs a run that is not beside it; hand that one on, too")
    metrics = task(copy, here(source, Path(config.paths.cache)))
    return metrics, [_same_latents(run, stored, read_latents(scratch))]


def _of_training(run: Run, copy: Run, task: Any, stored: Any) -> tuple[dict[str, Any], list[Finding]]:
    from hydra.utils import instantiate

    from experiments.runs.building import particles_of, trained_model
    from experiments.tasks.train import latent_metrics
    from lightning_modules.vae.posterior_search import elbo_terms

    particles = particles_of(copy.config)
    model = trained_model(run, particles)
    if len(stored.mu) != len(particles):
        raise InputError(
            f"{run.folder}/latents.npz: {len(stored.mu)} particles, expected {len(particles)}, as in the data"
        )
    finding = _same_latents(run, stored, model.encode())
    beta = model.beta(copy.config.trainer.max_epochs * len(particles))
    terms = elbo_terms(model, stored, beta, model.seed, n_samples=1)
    rows = read_log(run.folder / "log.csv")
    made = instantiate(copy.config.results).of_training(copy, model, stored, rows)
    further = task.further(copy, model, stored)
    one_pass = {"pass/reconstruction": float(terms.reconstruction.mean())}
    return {**latent_metrics(run.config, stored, particles), **made.metrics, **further.metrics, **one_pass}, [finding]


def _same_latents(run: Run, stored: Any, found: Any) -> Finding:
    tolerance = LATENTS[str(getattr(run.config.precision, "name", run.config.precision))]
    if stored.mu.shape != found.mu.shape:
        return Finding("latents", FAILS, f"stored {tuple(stored.mu.shape)}, from the weights {tuple(found.mu.shape)}")
    spread = float(found.mu.std()) or 1.0
    largest = max(float((a - b).abs().max()) for a, b in zip(stored, found, strict=True)) / spread
    text = f"differ from the weights' by at most {largest:.2g} of their spread (tolerance {tolerance:g})"
    return Finding("latents", HOLDS if largest <= tolerance else FAILS, text)


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Verify, line by line; returns the exit code, 0 where everything holds."""
    parser = argparse.ArgumentParser(prog="python -m experiments verify", description=purpose(__doc__))
    parser.add_argument("runs", type=Path, nargs="+", help="folders of finished runs")
    parser.add_argument("--cache", type=Path, help="folder of simulated and preprocessed data (default: the run's own)")
    options = parser.parse_args(arguments)
    failed = 0
    for folder in options.runs:
        print(folder)
        try:
            for finding in verify(folder, options.cache):
                print(f"  {finding.verdict:<15}{finding.what}: {finding.found}", flush=True)
                failed += finding.verdict == FAILS
        except Exception as error:
            print(f"  {FAILS:<15}{one_line(error)}", flush=True)
            failed += 1
    print(f"{failed} do not hold" if failed else "everything that can be told holds")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
