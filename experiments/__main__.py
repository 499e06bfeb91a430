"""Every command of the suite: ``python -m experiments`` lists them, ``python -m experiments NAME ...`` runs one."""

import sys
from collections.abc import Sequence
from importlib import import_module

from experiments.configuration.did_you_mean import closest
from experiments.configuration.error_messages import command

# Name, the module whose ``main`` it is, and what it does.
COMMANDS = {
    "paper": ("experiments.paper", "train every model needed to test the paper's claims, then write the report"),
    "claims": ("experiments.claims.__main__", "judge the paper's claims by finished runs"),
    "report": ("experiments.report.__main__", "show many runs on one page"),
    "status": ("experiments.sweeps.status", "show which runs are waiting, running, finished or failed"),
    "verify": ("experiments.tasks.verify", "recompute a finished run's numbers and say which still hold"),
    "seeds": ("experiments.report.seeds", "give means and spreads over seeds"),
    "tables": ("experiments.report.tables", "write the tables of measured numbers into the folder of runs"),
    "capacity": ("experiments.report.capacity", "show in one figure how much an encoder can memorize"),
    "figures": ("experiments.figures.__main__", "draw the figures of finished runs again"),
    "volumes": ("experiments.volumes.__main__", "write volumes of a finished run as .mrc files"),
    "surface_sheet": ("experiments.figures.volume_sheet", "draw many volumes on one sheet"),
    "turntable": ("experiments.volumes.interactive", "write an HTML page in which volumes can be turned"),
    "wandb": ("experiments.tracking.__main__", "log finished runs to Weights & Biases"),
    "dashboard": ("experiments.tracking.dashboard", "save the project's dashboard in Weights & Biases"),
    "benchmark": ("experiments.benchmarks.cryodrgn", "measure images/s beside cryoDRGN's own training"),
    "benchmark_digits": ("experiments.benchmarks.digits", "measure images/s on digits beside a plain loop"),
    "fast_paths": ("experiments.benchmarks.fast_paths", "check that optimized code reproduces the reference numbers"),
    "packing": ("experiments.benchmarks.packing", "measure several runs at once on one machine"),
    "scale": ("experiments.benchmarks.scale", "measure time and memory against the number of particles"),
}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """List the commands, or run the one that is named first; returns its exit code."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help"):
        print("usage: python -m experiments NAME ...      (NAME --help says more)\n")
        print("\n".join(f"  {name:<18}{text}" for name, (_, text) in COMMANDS.items()))
        return 0
    if name not in COMMANDS:
        meant = closest(name, COMMANDS)
        hint = f"Did you mean {meant}?" if meant else "`python -m experiments` lists all."
        print(f"{name}: there is no such command. {hint}", file=sys.stderr)
        return 2
    code: int = import_module(COMMANDS[name][0]).main(rest)
    return code


if __name__ == "__main__":
    sys.exit(main())
