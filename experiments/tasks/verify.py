"""Do a run's numbers still hold? ``python -m experiments verify RUN [RUN ...]``, with your own or somebody else's runs.

Everything that can be recomputed without training is: the data's checksums against those in provenance.json, the
latents from the stored weights, the metrics from the stored latents and weights. Nothing in the folder is changed.

- Losses are means over an epoch, while the weights still moved. Those in metrics.json and in log.csv must be those in
  the checkpoint, the total must be reconstruction + beta * KL / M, one pass with the stored weights must come within 10
  percent of the reconstruction, and the stored latents within 20 percent of the KL.
- Latents may differ by a thousandth of their spread (a twentieth where networks are in bfloat16): processors round
  differently. Truth metrics come from the stored latents, exactly; all others may differ by a hundredth.
- Times cannot be recomputed, and some files are not compared: these are named.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from experiments.configuration.error_messages import command, one_line
from experiments.machine.terminal import purpose
from experiments.runs import provenance
from experiments.runs.checksums import checksums_of
from experiments.runs.run import Run
from experiments.tasks.findings import COLUMN, FAILS, HOLDS, NOT_RECOMPUTED, UNKNOWN, Finding, compare
from lightning_modules.errors import InputError

LATENTS = {"float32": 1e-3, "bfloat16": 5e-2}  # of the spread of mu
OTHERS, EXACT = 1e-2, 1e-9  # relative
MACHINES = ("time/", "images_per_s", "infer/particles_per_s")  # how fast it was here says nothing about there
# What a check reads; all else in a run's folder is only looked at by people, or says how the run came about.
COMPARED = {"config.yaml", "metrics.json", "log.csv", "latents.npz", "checkpoints", provenance.PROVENANCE}


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
        recomputed, findings = remeasure(run, metrics, Path(scratch))
    yield from findings
    told = {finding.what for finding in findings}
    for key in [*metrics, *(key for key in recomputed if key not in metrics)]:
        if key not in told:
            yield _metric(key, metrics, recomputed)
    yield _others(run.folder)


def _metric(key: str, stored: dict[str, Any], recomputed: dict[str, Any]) -> Finding:
    """Compare one number of metrics.json with what was computed again."""
    if key not in stored:
        return Finding(key, FAILS, f"recomputed {recomputed[key]}, and not in metrics.json")
    if key.startswith(MACHINES):
        return Finding(key, NOT_RECOMPUTED, f"stored {stored[key]}, measured on the run's machine")
    if key not in recomputed:
        return Finding(key, UNKNOWN, f"stored {stored[key]}; this version does not compute it")
    return compare(key, stored[key], recomputed[key], EXACT if key.startswith(("latents/", "loss/")) else OTHERS)


def _others(folder: Path) -> Finding:
    """Name the files that nothing was compared with."""
    names = sorted(path.name + "/" * path.is_dir() for path in folder.iterdir() if path.name not in COMPARED)
    return Finding("other files", NOT_RECOMPUTED, f"not compared: {', '.join(names) or 'none'}")


def here(run: Run, cache: Path | None = None) -> Run:
    """Return a run as it is to be read on this machine: other runs beside it, data where they can be."""
    config = run.config.copy()
    config.paths.runs = str(run.folder.parents[2])
    kept = cache or next((p for p in (Path(config.paths.cache), Path("cache")) if p.is_dir()), Path("cache"))
    config.paths.cache = str(kept)
    if "cache_dir" in config.data:
        config.data.cache_dir = str(kept)
    return Run(config, run.folder)


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


def remeasure(run: Run, metrics: dict[str, Any], scratch: Path) -> tuple[dict[str, Any], list[Finding]]:
    """Compute a finished run's metrics again, without training.

    Args:
        run: finished.
        metrics: as stored.
        scratch: an empty folder, for what is written on the way.

    Returns:
        The metrics; and whether the stored latents are those that the stored weights give, and the losses those of the
        training.
    """
    from hydra.utils import instantiate

    from experiments.runs.stored_results import read_latents
    from experiments.tasks.train import Train

    config: DictConfig = run.config.copy()
    config.logger = OmegaConf.create({"_target_": "experiments.tracking.loggers.no_logger", "_partial_": True})
    copy = Run(config, scratch)
    task, stored = instantiate(config.task), read_latents(run.folder)
    if isinstance(task, Train):
        return _of_training(run, copy, task, stored, metrics)
    source = run.source()
    if copy.config.get("audit"):  # it needs none
        return task(copy, None), [_same_latents(run, stored, read_latents(scratch))]
    if source is None or source.metrics is None:
        raise InputError(f"{run.folder}: it needs a run that is not beside it; hand that one on, too")
    recomputed = task(copy, here(source, Path(config.paths.cache)))
    return recomputed, [_same_latents(run, stored, read_latents(scratch))]


def _of_training(
    run: Run, copy: Run, task: Any, stored: Any, metrics: dict[str, Any]
) -> tuple[dict[str, Any], list[Finding]]:
    from hydra.utils import instantiate

    from experiments.runs.building import particles_of, trained_model
    from experiments.runs.stored_results import read_epochs
    from experiments.tasks.train import latent_metrics
    from experiments.tasks.verified_losses import losses_hold
    from lightning_modules.vae.posterior_search import elbo_terms

    particles = particles_of(copy.config)
    model = trained_model(run, particles)
    if len(stored.mu) != len(particles):
        raise InputError(
            f"{run.folder}/latents.npz: {len(stored.mu)} particles, expected {len(particles)}, as in the data"
        )
    epochs = read_epochs(run.checkpoint)
    same = _same_latents(run, stored, model.encode())
    beta = model.beta(copy.config.trainer.max_epochs * len(particles))
    terms = elbo_terms(model, stored, beta, model.seed, n_samples=1)
    losses = losses_hold(run, model, epochs, stored, float(terms.reconstruction.mean()), metrics)
    made = instantiate(copy.config.results).after_training(copy, model, stored, epochs)
    further = task.extra_results(copy, model, stored)
    recomputed = {**latent_metrics(run.config, stored, particles), **made.metrics, **further.metrics}
    return recomputed, [same, *losses]


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
                print(f"  {finding.verdict:<{COLUMN}}{finding.what}: {finding.found}", flush=True)
                failed += finding.verdict == FAILS
        except Exception as error:
            print(f"  {FAILS:<{COLUMN}}{one_line(error)}", flush=True)
            failed += 1
    print(f"{failed} do not hold" if failed else "everything that was recomputed or compared holds")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
