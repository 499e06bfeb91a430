"""What a run found, for the terminal."""

from experiments.runs import Run

# In this order; a run has those that apply to it.
SHOWN = {
    "loss/total": "loss",
    "loss/reconstruction": "reconstruction (mean squared error)",
    "loss/kl": "KL (nats per particle)",
    "latents/knn_class_accuracy": "class accuracy (10 nearest neighbours in z)",
    "latents/knn_class_chance": "class accuracy by chance",
    "latents/knn_hinge_r2": "hinge angle R2 (10 nearest neighbours in z)",
    "amortization/displacement_ratio": "displacement of z (1: as far as a random particle)",
    "amortization/neighbour_rank": "neighbour rank (0: z stays, 0.5: chance)",
    "images_per_s": "images per second",
    "time/epoch_s": "seconds per epoch",
    "time/total_s": "seconds in all",
}


def summary(run: Run) -> str:
    """Return a few lines of numbers and, as the last line, the run's folder."""
    metrics = run.metrics or {}
    width = max(map(len, SHOWN.values()))
    lines = [
        f"  {text:<{width}}  {'-' if metrics[key] is None else format(metrics[key], '.4g')}"
        for key, text in SHOWN.items()
        if key in metrics
    ]
    return "\n".join([f"{run.config.name} (seed {run.config.seed}) on {run.config.data.name}", *lines, str(run.folder)])
