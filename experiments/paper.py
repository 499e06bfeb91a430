"""Every run that the paper's claims need, and then the report: ``python -m experiments paper``.

Runs that are finished are not repeated, and interrupted ones continue: asking again goes on where it stopped. As
many runs go side by side as there are cores, each with one thread, which takes less time than one after another.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from experiments.claims import __main__ as claims
from experiments.configuration.compose import CONF_DIR, compose
from experiments.configuration.error_messages import command
from experiments.machine.hardware import n_cores
from experiments.report import __main__ as report
from experiments.runs.run import Run

SEEDS = (0, 1)
# In this order, the most needed first; each with these seeds. What another run needs comes before it.
STAGES: tuple[tuple[tuple[int, ...], tuple[str, ...]], ...] = (
    (SEEDS, ("baseline",)),
    ((0,), (
        "evil_twin_permuted_large", "evil_twin_noise", "vlt_random", "vlt_zero", "evil_twin_permuted",
        "vlt_zero_frozen", "vlt_random_frozen", "vlt_pretrained_frozen", "evil_twin_permuted_small",
    )),
    (SEEDS, ("baseline_small", "shift_1px", "rotate_90", "mnist_vae", "mnist_vlt")),
    ((0,), (
        "heldout", "augmented_encoder", "augmented_heldout", "shift_1px_consistent", "rotate_90_consistent",
        "augmented_shift_1px", "augmented_rotate_90", "heldout_vlt", "mnist_shift_1", "mnist_shift_5",
    )),
    ((0,), ("baseline_large", "evil_twin_noise_standard", "vlt_pretrained", "vlt_permuted", "vlt_random_clusters")),
    ((1,), (
        "evil_twin_permuted_large", "evil_twin_noise", "vlt_random", "vlt_zero", "evil_twin_permuted",
        "vlt_zero_frozen", "vlt_random_frozen", "vlt_pretrained_frozen", "evil_twin_permuted_small", "heldout",
    )),
)  # fmt: skip
ROOT = CONF_DIR.parent
RUN = (sys.executable, "run.py", "trainer.enable_progress_bar=false")


@dataclass(frozen=True)
class Job:
    """One run to be made.

    Attributes:
        experiment: a file of conf/exp.
        seed: of the training.
        overrides: further ones.
    """

    experiment: str
    seed: int
    overrides: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """How it is called on the terminal."""
        return f"{self.experiment} seed={self.seed}"

    @property
    def arguments(self) -> list[str]:
        """Of run.py."""
        return [f"+exp={self.experiment}", f"seed={self.seed}", *self.overrides]

    @property
    def is_finished(self) -> bool:
        """Whether there is nothing to do; a configuration that is wrong will say so when it runs."""
        try:
            return Run.of(compose(*self.arguments)).metrics is not None
        except Exception:
            return False


def jobs(overrides: Sequence[str] = (), only: Sequence[str] = ()) -> Iterator[Job]:
    """Yield the runs in their order.

    Args:
        overrides: for each of them.
        only: these experiments; all that have a file in conf/exp if it is empty.
    """
    for seeds, names in STAGES:
        for name in names:
            if (CONF_DIR / "exp" / f"{name}.yaml").is_file() and (not only or name in only):
                for seed in seeds:
                    yield Job(name, seed, tuple(overrides))


class Workers:
    """Carry jobs out side by side, each in a process of its own."""

    def __init__(self, n_workers: int, logs: Path, program: Sequence[str] = RUN) -> None:
        """Set how many at a time, where their output goes, and what carries a job's arguments out."""
        self.n_workers, self.logs, self.program = n_workers, logs, program
        self.seconds: list[float] = []
        self.n_left = 0
        self.stopping = False
        self.running: set[subprocess.Popen[bytes]] = set()

    def carry_out(self, wanted: Sequence[Job]) -> list[str]:
        """Carry jobs out.

        Returns:
            A line for each that failed.
        """
        self.n_left = len(wanted)
        self.logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.n_workers) as pool:
            try:
                return [failure for failure in pool.map(self._one, wanted) if failure]
            except KeyboardInterrupt:
                self.stopping = True
                for process in list(self.running):
                    process.terminate()  # which saves, even where Ctrl-C is ignored, as under nohup
                raise

    def _one(self, job: Job) -> str:
        if self.stopping:
            return ""
        start = time.monotonic()
        log = self.logs / f"{job.experiment}-{job.seed}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*self.program, *job.arguments],
                cwd=ROOT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is passed on once, not twice
            )
            self.running.add(process)
            code = process.wait()
            self.running.discard(process)
        self.n_left -= 1
        self.seconds.append(time.monotonic() - start)
        said = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing was said"])[-1]
        if code:
            failure = f"{job.name} failed: {said} (see {log})"
            print(failure, file=sys.stderr, flush=True)
            return failure
        left_min = self.n_left * fmean(self.seconds) / self.n_workers / 60
        print(f"{job.name}: {self.seconds[-1]:.0f} s; {self.n_left} left, about {left_min:.0f} min", flush=True)
        return ""


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, judge the claims, write the report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments paper", description="Run the paper's experiments.")
    parser.add_argument("overrides", nargs="*", help="for every run, as for run.py: trainer.max_epochs=5")
    parser.add_argument("--jobs", type=int, default=n_cores(), help="runs at a time (default: one for each core)")
    parser.add_argument("--only", default="", metavar="A,B", help="these experiments alone")
    options = parser.parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        everything = list(jobs(options.overrides, list(filter(None, options.only.split(",")))))
        runs = Path(compose(*options.overrides).paths.runs)
        wanted = [job for job in everything if not job.is_finished]
        print(
            f"{len(everything) - len(wanted)} of {len(everything)} runs are finished; {len(wanted)} to go", flush=True
        )
        failures = Workers(max(1, options.jobs), runs / ".paper").carry_out(wanted)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    code = claims.main([str(runs)]) or report.main([str(runs)])
    if failures:
        print(f"{len(failures)} failed: " + "; ".join(failures), file=sys.stderr)
    return int(bool(failures or code))


if __name__ == "__main__":
    sys.exit(main())
