"""The suite beside a plain loop on digits: same networks, images, batches and optimizers, taking turns.

A step of these networks takes about a millisecond, so that here a framework could cost more than the numbers. The
plain loop is what one writes by hand: no Lightning, no configuration, no log.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from omegaconf import DictConfig
from tqdm import tqdm

from experiments.benchmarks.cryodrgn import Side, train_suite
from experiments.benchmarks.measuring import hush_libraries, in_a_line, load_average, machine, write_measured
from experiments.configuration.compose import compose
from experiments.configuration.error_messages import command
from experiments.configuration.validation import check
from experiments.machine.hardware import wait_briefly_beside_others
from experiments.machine.terminal import purpose

EXPERIMENTS = ("mnist_vae", "mnist_vlt")
PLAIN, SUITE = "plain loop", "suite"
Trained = tuple[list[float], list[float]]


def train_plainly(config: DictConfig, folder: Path) -> Trained:
    """Train as appendix B of the paper says, in one function.

    Args:
        config: checked; says which data, sizes and rates, and whether a table stands in for the encoder.
        folder: not used; nothing is written.

    Returns:
        Loss per image and seconds of each epoch.
    """
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy

    from experiments.runs.building import particles_of

    images, width, zdim = particles_of(config).images, config.encoder.width, config.zdim
    n, m = images.shape
    torch.manual_seed(config.seed)
    trunk = nn.Sequential(
        nn.Linear(m, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()
    )
    head_mu, head_logvar = nn.Linear(width, zdim), nn.Linear(width, zdim)
    decoder = nn.Sequential(
        nn.Linear(zdim, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, m), nn.Sigmoid()
    )
    table = nn.Embedding(n, 2 * zdim, sparse=True)
    with torch.no_grad():
        table.weight[:, :zdim], table.weight[:, zdim:] = 0, -8
    has_table = "init" in config.latents
    networks = [decoder] if has_table else [trunk, head_mu, head_logvar, decoder]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Adam([p for network in networks for p in network.parameters()], lr=config.lr)
    ]
    if has_table:
        optimizers.append(torch.optim.SparseAdam(table.parameters(), lr=config.table_lr))
    losses, seconds = [], []
    for _ in range(config.trainer.max_epochs):
        start, total = perf_counter(), torch.zeros(())
        for index in torch.randperm(n).split(config.batch_size):
            x = images[index]
            if has_table:
                mu, logvar = table(index).split(zdim, dim=1)
            else:
                hidden = trunk(x)
                mu, logvar = head_mu(hidden), head_logvar(hidden)
            z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
            kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum()
            loss = binary_cross_entropy(decoder(z), x, reduction="sum") + kl
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            total += loss.detach()
        losses.append(float(total) / n)
        seconds.append(perf_counter() - start)
    return losses, seconds


@dataclass
class Comparison:
    """Both sides in one experiment.

    Attributes:
        experiment: mnist_vae or mnist_vlt.
        data: name of the data.
        n_images: N.
        sides: by name.
    """

    experiment: str
    data: str
    n_images: int
    sides: dict[str, Side]

    def images_per_s(self, side: str) -> float:
        """Return the speed of the fastest epoch."""
        return self.n_images / min(self.sides[side].seconds)

    def ratio(self) -> float:
        """Return the suite's speed over the plain loop's."""
        return self.images_per_s(SUITE) / self.images_per_s(PLAIN)


def compare(experiment: str, epochs: int, rounds: int, settings: list[str]) -> Comparison:
    """Let both sides take turns.

    Args:
        experiment: mnist_vae or mnist_vlt.
        epochs: of each training.
        rounds: trainings of each side.
        settings: further overrides of the configuration.

    Returns:
        What was measured.
    """
    from experiments.runs.building import particles_of

    fixed = [f"trainer.max_epochs={epochs}", "trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
    config = check(compose(f"+exp={experiment}", *fixed, *settings))
    n_images = len(particles_of(config))  # read before the clocks run
    trained: dict[str, Callable[[DictConfig, Path], Trained]] = {PLAIN: train_plainly, SUITE: train_suite}
    sides = {name: Side() for name in trained}
    for _ in tqdm(range(rounds), desc=experiment, unit="round"):
        for name, train in trained.items():
            with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
                sides[name].add(*train(config, Path(folder)))
    return Comparison(experiment, config.data.name, n_images, sides)


def table(comparisons: list[Comparison]) -> str:
    """Lay the comparisons out in Markdown."""
    lines = [
        "| experiment | data | trained by | images/s | ratio | loss per image, first and last epoch |",
        "|---|---|---|---|---|---|",
    ]
    for found in comparisons:
        for name, side in found.sides.items():
            ratio = f"{found.ratio():.2f}" if name == SUITE else ""
            losses = f"{side.losses[0]:.1f}, {side.losses[-1]:.1f}"
            speed = f"{found.images_per_s(name):.0f}"
            lines.append(f"| {found.experiment} | {found.data} | {name} | {speed} | {ratio} | {losses} |")
    return "\n".join(lines) + "\n"


@command
def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark from the command line; returns the exit code."""
    prog = "python -m experiments benchmark_digits"
    parser = argparse.ArgumentParser(prog=prog, description=purpose(__doc__))
    parser.add_argument("--epochs", type=int, default=8, help="at least 2: the first is not timed (default 8)")
    parser.add_argument("--rounds", type=int, default=3, help="trainings of each side (default 3)")
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder for digits.json and .md")
    parser.add_argument("settings", nargs="*", help="further settings, as for run.py: data=mnist data.root=DIR")
    options = parser.parse_intermixed_args(arguments)
    if options.epochs < 2:
        parser.error("--epochs: at least 2, the first is not timed")
    load = load_average()
    wait_briefly_beside_others()
    hush_libraries()
    found = [compare(experiment, options.epochs, options.rounds, options.settings) for experiment in EXPERIMENTS]
    about = machine() | {"load_before": load}
    notes = [in_a_line(about), ""]
    notes += ["Other processes were running: the speeds are not to be trusted.", ""] if load > 0.5 else []
    text = "\n".join(notes) + "\n" + table(found)
    write_measured(options.output / "digits", {**about, "comparisons": [asdict(part) for part in found]}, text)
    print(f"{text}\n{options.output.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
