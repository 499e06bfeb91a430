"""The project's dashboard in Weights & Biases: ``python -m experiments dashboard [--project NAME] [--entity TEAM]``.

Losses, claims, latents, amortization, volumes and times of all runs of a project; runs are coloured by experiment. It
is built by wandb-workspaces and saved as a view of the project, which needs a key and a network. Logging needs neither.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Any

from experiments.configuration.error_messages import command
from experiments.machine.terminal import purpose
from lightning_modules.errors import InputError

NAME = "Amortize or memorize"
# Section: its curves over epochs, its numbers compared across experiments, its pictures.
SECTIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "Losses": (
        ("loss/total", "loss/reconstruction", "loss/kl"),
        ("loss/total", "loss/reconstruction", "loss/kl"),
        ("figures/loss_curve", "figures/reconstructions"),
    ),
    "Claims": (
        (),
        (
            "latents/knn_class_accuracy",
            "latents/knn_hinge_r2",
            "latents/neighbourhood_similarity",
            "volumes/diversity",
            "volumes/per_image_fsc_auc",
            "time/epoch_s",
        ),
        (),
    ),
    "Latents": (
        (),
        ("latents/class_ari", "latents/imbalance_to_truth", "latents/active_dimensions"),
        ("figures/latent_space",),
    ),
    "Amortization": (
        (),
        (
            "amortization/displacement_ratio",
            "amortization/neighbour_rank",
            "amortization/class_kept",
            "amortization/volume_correlation",
            "heldout/loss_train",
            "heldout/loss_encoder",
            "heldout/loss_optimized",
            "heldout/amortization_gap",
        ),
        ("figures/displaced_latents",),
    ),
    "Volumes": ((), (), tuple(f"volumes/first_{i}" for i in range(1, 7))),
    "Time": (("images_per_s",), ("time/epoch_s", "images_per_s"), ()),
}


def workspace(entity: str, project: str) -> Any:
    """Describe the dashboard; nothing is sent.

    Args:
        entity: W&B team or user.
        project: W&B project.

    Returns:
        A ``wandb_workspaces.workspaces.Workspace``.
    """
    try:
        panels = importlib.import_module("wandb_workspaces.reports.v2")
        views = importlib.import_module("wandb_workspaces.workspaces")
    except ImportError:
        raise InputError(
            "the dashboard needs wandb-workspaces: pip install 'amortize-or-memorize[dashboard]'"
        ) from None

    def section(name: str, curves: Sequence[str], numbers: Sequence[str], pictures: Sequence[str]) -> Any:
        drawn: list[Any] = [panels.LinePlot(title=key, x="epoch", y=[key], title_x="epoch") for key in curves]
        drawn += [panels.BarPlot(title=key, metrics=[panels.SummaryMetric(key)]) for key in numbers]
        drawn += [panels.MediaBrowser(title=key, media_keys=[key]) for key in pictures]
        return views.Section(name=name, panels=drawn, is_open=name in ("Losses", "Claims"))

    return views.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[section(name, *parts) for name, parts in SECTIONS.items()],
        # Grouped by experiment: seeds of one experiment share a colour and fold into one line.
        runset_settings=views.RunsetSettings(groupby=[views.Config("name")]),
    )


def save(project: str, entity: str | None) -> str:
    """Save the dashboard as a view of the project.

    Returns:
        Its address.

    Raises:
        InputError: no key is at hand, or W&B refuses.
    """
    from experiments.tracking.loggers import key_at_hand

    if not key_at_hand():
        raise InputError("no W&B key was found, expected one to save a dashboard; run `wandb login` once")
    try:
        import wandb

        view = workspace(entity or str(wandb.Api().default_entity), project)
        view.save()
        return str(view.url)
    except Exception as error:  # no network, no such entity, a project without runs: wandb raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"the dashboard of {project} was not saved ({reason}); check the network and --entity"
        ) from None


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Save the dashboard from the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments dashboard", description=purpose(__doc__))
    parser.add_argument("--project", default="amortize-or-memorize", help="W&B project (logger.project)")
    parser.add_argument("--entity", help="W&B team or user; by default that of the key")
    options = parser.parse_args(arguments)
    print(save(options.project, options.entity))
    return 0


if __name__ == "__main__":
    sys.exit(main())
