"""The paper's figures: what each shows, which experiment makes it here, and by which numbers."""

from dataclasses import dataclass

LATENTS = ("latents/knn_class_accuracy", "latents/knn_hinge_r2")
VOLUMES = ("volumes/diversity",)
MOVES = ("amortization/displacement_ratio", "amortization/neighbour_rank")
DIGITS = ("loss/total", "loss/kl")


@dataclass(frozen=True)
class Shown:
    """A figure, or several of one experiment.

    Attributes:
        where: in the paper.
        statement: what the paper sees in it.
        experiment: a file of conf/exp.
        keys: of metrics.json.
        reference: the experiment whose numbers stand beside; empty where the numbers speak for themselves.
    """

    where: str
    statement: str
    experiment: str
    keys: tuple[str, ...]
    reference: str = "baseline"


FIGURES = (
    Shown("Figs 3, 20", "the baseline: clusters, and volumes that differ", "baseline", LATENTS + VOLUMES, ""),
    Shown("Fig 5", "a random table that is trained finds them too", "vlt_random", LATENTS + VOLUMES),
    Shown(
        "Fig 7", "permuted twins, standard encoder: no clusters, volumes still differ", "evil_twin_permuted",
        LATENTS + VOLUMES,
    ),
    Shown("Fig 8", "permuted twins, large encoder: as the baseline", "evil_twin_permuted_large", LATENTS + VOLUMES),
    Shown("Fig 9", "noise twins, large encoder: as the baseline", "evil_twin_noise", LATENTS + VOLUMES),
    Shown("Fig 10", "1 px to the right: z moves far", "shift_1px", MOVES, ""),
    Shown("Fig 11", "turned by 90 degrees: z moves far", "rotate_90", MOVES, ""),
    Shown("Figs 12, 13", "MNIST: the VAE", "mnist_vae", DIGITS, ""),
    Shown("Figs 14, 15", "MNIST, 1 px to the right", "mnist_shift_1", MOVES, ""),
    Shown("Figs 16, 17", "MNIST, 5 px to the right", "mnist_shift_5", MOVES, ""),
    Shown("Figs 18, 19", "MNIST: a table reaches a lower loss with a higher KL", "mnist_vlt", DIGITS, "mnist_vae"),
    Shown("Fig 21", "a zero table that is trained: as the baseline", "vlt_zero", LATENTS + VOLUMES),
    Shown("Fig 22", "a frozen zero table: one averaged volume", "vlt_zero_frozen", ("loss/reconstruction", *VOLUMES)),
    Shown("Fig 23", "a frozen random table: volumes hardly differ", "vlt_random_frozen", VOLUMES),
    Shown("Fig 24", "the baseline's latents, frozen: as the baseline", "vlt_pretrained_frozen", LATENTS + VOLUMES),
    Shown(
        "Fig 25", "small encoder, zdim 2: less informative clusters, volumes still differ", "baseline_small",
        LATENTS + VOLUMES,
    ),
    Shown(
        "Fig 26", "permuted twins, small encoder: volumes differ", "evil_twin_permuted_small", LATENTS + VOLUMES,
        "baseline_small",
    ),
    Shown("Table 1", "9:27 to 10:02 min per epoch, whatever the variant", "baseline", ("time/epoch_s",), ""),
    Shown("Table 1", "the same", "vlt_random", ("time/epoch_s",)),
    Shown("Table 1", "the same", "evil_twin_permuted", ("time/epoch_s",)),
    Shown("Table 1", "the same", "evil_twin_permuted_large", ("time/epoch_s",)),
    Shown("Table 1", "the same", "evil_twin_permuted_small", ("time/epoch_s",)),
)  # fmt: skip
