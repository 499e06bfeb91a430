"""Carry out one experiment, or with -m many: ``python run.py +exp=evil_twin_noise``; see ``--help``."""

import os
import sys

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from experiments import schema
from experiments.hardware import wait_briefly
from experiments.messages import one_line
from experiments.runs import execute
from experiments.summary import summary

failures: list[str] = []


def carry_out(config: DictConfig) -> None:
    """Run one configuration; say what was found and, last, where it is."""
    print(summary(execute(config)), flush=True)


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(config: DictConfig) -> None:
    """Run one configuration; in a sweep, a failure is reported and the others go on."""
    if HydraConfig.get().mode != RunMode.MULTIRUN:
        return carry_out(config)
    try:
        carry_out(config)
    except Exception as error:
        failures.append(f"{config.name} (seed {config.seed}): {one_line(error)}")
        print(f"failed: {failures[-1]}", file=sys.stderr, flush=True)
    return None


def main() -> int:
    """Return the exit code; a failure's one line comes last, its traceback only with HYDRA_FULL_ERROR=1."""
    wants_traceback = os.environ.get("HYDRA_FULL_ERROR") == "1"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then lets errors through, and we print their one line
    schema.register()
    wait_briefly()
    try:
        job()
    except KeyboardInterrupt:
        print("interrupted; the same command continues from the last checkpoint", file=sys.stderr)
        return 130
    except Exception as error:
        if wants_traceback:
            raise
        print(one_line(error), file=sys.stderr)
        return 1
    if failures:
        print(f"{len(failures)} failed: " + "; ".join(failures), file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
