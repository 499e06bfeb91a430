"""What a run found, for the terminal."""

from experiments.runs.run import Run

# In this order; a run has those that apply to it.
SHOWN = {
    "audit/verdict": "the encoder is",
    "audit/z/rms_of_spread": "z.pkl encoded again: difference over spread",
    "audit/train/share": "share of what z could tell (1: a rule, 0: nothing), training images",
    "audit/unseen/share": "the same, unseen particles",
    "audit/rotate_90_consistent/share": "the same, images turned by 90 degrees with their pose and CTF",
    "loss/total": "loss",
    "loss/reconstruction": "reconstruction (mean squared error; of digits, cross-entropy)",
    "loss/kl": "KL (nats per particle)",
    "loss/kl_per_batch_of_128": "KL per batch of 128, as the paper gives it",
    "latents/knn_class_accuracy": "class accuracy (10 nearest neighbours in z)",
    "latents/knn_class_chance": "class accuracy by chance",
    "latents/knn_hinge_r2": "hinge angle R2 (10 nearest neighbours in z)",
    "volumes/diversity": "volume diversity (mean 1 - correlation)",
    "reconstructions/class_accuracy": "reconstructions that a classifier reads right",
    "latents/class_ari": "clusters of z against classes (adjusted Rand index)",
    "latents/neighbourhood_similarity": "neighbours in z that are so in truth (chance 0.105)",
    "volumes/per_image_fsc_auc": "volumes against their true ones (area under the FSC)",
    "volumes/per_image_fsc_auc_of_mean": "the mean true volume against them",
    "amortization/displacement_ratio": "displacement of z (1: as far as a random particle)",
    "amortization/neighbour_rank": "neighbour rank (0: z stays, 0.5: chance)",
    "amortization/class_kept": "particles that keep their class",
    "amortization/class_kept_chance": "particles that keep their class by chance",
    "amortization/volume_correlation": "correlation of V(z) and V(z')",
    "amortization/volume_correlation_of_others": "correlation of two unrelated volumes",
    "heldout/loss_train": "loss, training particles",
    "heldout/loss_encoder": "loss, unseen particles, encoder",
    "heldout/loss_optimized": "loss, unseen particles, q optimized",
    "heldout/amortization_gap": "amortization gap",
    "heldout/class_accuracy_train": "class accuracy, training particles",
    "heldout/class_accuracy_encoder": "class accuracy, unseen particles, encoder",
    "heldout/class_accuracy_optimized": "class accuracy, unseen particles, q optimized",
    "images_per_s": "images per second",
    "time/epoch_s": "seconds per epoch",
    "time/total_s": "seconds in all",
}


def summary(run: Run) -> str:
    """Return a few lines of numbers and, as the last line, the run's folder."""
    metrics = run.metrics or {}
    width = max(map(len, SHOWN.values()))
    lines = [f"  {text:<{width}}  {_shown(metrics[key])}" for key, text in SHOWN.items() if key in metrics]
    return "\n".join([f"{run.config.name} (seed {run.config.seed}) on {run.config.data.name}", *lines, str(run.folder)])


def _shown(value: float | str | None) -> str:
    """Return a number with four digits, a word as it is, and a dash for what does not exist."""
    return "-" if value is None else value if isinstance(value, str) else format(value, ".4g")
