"""The experiments in the paper's order, with what their files in conf/exp say about them."""

import functools

from experiments.configuration.compose import CONF_DIR

# The order of the paper; what is not in it comes after, by name.
ORDER = (
    "baseline", "vlt_random", "evil_twin_permuted", "evil_twin_permuted_large", "evil_twin_noise",
    "shift_1px", "rotate_90", "vlt_zero", "vlt_zero_frozen", "vlt_random_frozen", "vlt_pretrained_frozen",
    "baseline_small", "evil_twin_permuted_small", "heldout", "heldout_vlt", "pose_aware",
    "augmented_encoder", "augmented_heldout", "augmented_shift_1px", "augmented_rotate_90",
    "shift_1px_consistent", "rotate_90_consistent",
    "mnist_vae", "mnist_vlt", "mnist_shift_1", "mnist_shift_5",
    "baseline_large", "evil_twin_noise_standard", "vlt_pretrained", "vlt_permuted", "vlt_random_clusters",
)  # fmt: skip
# What the paper shows of cryo-EM and of digits: missing ones are named in a report.
IN_THE_PAPER = ORDER[:13]


def place(name: str) -> tuple[int, str]:
    """Return a key that sorts experiments in the paper's order."""
    return (ORDER.index(name) if name in ORDER else len(ORDER), name)


@functools.cache
def about(name: str) -> str:
    """Return what an experiment's file says about it; empty where there is no such file."""
    path = CONF_DIR / "exp" / f"{name}.yaml"
    if not name.isidentifier() or not path.is_file():
        return ""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = [line.removeprefix("#").strip() for line in lines if line.startswith("#") and "@package" not in line]
    return " ".join(comment)
