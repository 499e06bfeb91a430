"""Carry out one experiment, or with -m many: ``python run.py +exp=evil_twin_noise``; see ``--help``."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments.configuration import schema
from experiments.configuration.error_messages import one_line
from experiments.machine.hardware import wait_briefly_beside_others
from experiments.machine.signals import EXIT_CODE, Interrupted
from experiments.machine.terminal import any_terminal
from experiments.runs.execution import execute
from experiments.runs.summary import summary
from experiments.sweeps.planning import SweepError


def carry_out(config: DictConfig, in_sweep: bool) -> None:
    """Run one configuration; say what was found and, last, where it is."""
    print(summary(execute(config, in_sweep)), flush=True)


failures: list[Exception] = []  # of a single run: what a job raises, Hydra announces in a line of its own


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> None:
    """Run one configuration; in a sweep, say at once which one failed, and the others go on."""
    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        carry_out(config, in_sweep)
    except Exception as error:
        if not in_sweep:
            failures.append(error)
            return
        print(f"failed: {config.name} (seed {config.seed}): {one_line(error)}", file=sys.stderr, flush=True)
        raise


def main() -> int:
    """Return the exit code; a failure's one line comes last, its traceback only with HYDRA_FULL_ERROR=1."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through, and we print their one line
    any_terminal()
    schema.register()
    wait_briefly_beside_others()
    try:
        job()
        if failures:
            raise failures[0]
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(error, file=sys.stderr)
        return EXIT_CODE
    except SweepError as error:
        print(error, file=sys.stderr)
        return 1
    except Exception as error:
        if wants_traceback:
            raise
        print(one_line(error), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
