"""The paper's conclusions, C1 to C12, as numbers, yardsticks and verdicts: ``python -m experiments claims runs``.

The thresholds are conventions, stated here once and chosen before any run was judged:

- A variant that "agrees" keeps 80 percent of what the baseline knows of the truth beyond chance. The paper's eye
  would hardly see a fifth less.
- It has at least half of what two seeds of the baseline have in common, beyond chance, in neighbours, CKA and
  volumes. Two seeds share the network through which they see the noise; a variant does not.
- Volumes that "still vary" do so half as much as the baseline's; "almost no" variability is a quarter or less, one
  "single" volume one percent.
- "Far" is half as far as a random particle, with a tenth of all particles nearer to the altered image than its own z.
"""

from collections.abc import Sequence

from experiments.claims import similarity
from experiments.claims.comparable_runs import ComparableRuns, describe, group
from experiments.claims.criteria import Differs, Keeps, Loses, Measure, MovesFar, Resembles, TakesAsLong
from experiments.claims.findings import Claim, Criterion
from experiments.claims.wording import Verdicts
from experiments.runs.folders import RunFolder

AGREES, HALF, QUARTER, SINGLE = 0.8, 0.5, 0.25, 0.01

CLASSES = Measure(
    "latents/knn_class_accuracy", "class accuracy", counts=0.02, chance="latents/knn_class_chance", needs_labels=True
)
NEAR_IN_TRUTH = Measure(
    "latents/neighbourhood_similarity", "neighbourhood similarity", counts=0.01, chance=0.105, needs_labels=True
)
HINGE = Measure("latents/knn_hinge_r2", "hinge R2", counts=0.05, needs_labels=True)
DIVERSITY = Measure("volumes/diversity", "volume diversity", counts=0.0)
RECONSTRUCTION = Measure("loss/reconstruction", "reconstruction loss", counts=0.0)
DISPLACEMENT = Measure("amortization/displacement_ratio", "displacement of z", counts=0.0)
RANK = Measure("amortization/neighbour_rank", "neighbour rank", counts=0.0)
LOSS = Measure("loss/total", "loss per image", counts=0.0)
KL = Measure("loss/kl", "KL per image", counts=0.0)


def neighbours(experiment: str, says: str, at_least: bool = True) -> Criterion:
    """Compare who is near whom in z."""
    return Resembles(
        experiment, says, "neighbourhood overlap", similarity.overlap, similarity.overlap_by_chance, HALF, at_least
    )


def matched_volumes(experiment: str, says: str) -> Criterion:
    """Compare the volumes of the same particles."""
    return Resembles(
        experiment,
        says,
        "matched volumes' FSC area",
        similarity.volumes,
        similarity.volumes_by_chance,
        HALF,
        error=similarity.volumes_error,
    )


def vary(experiment: str, reference: str = "baseline") -> Criterion:
    """Ask for volumes that still differ from each other."""
    return Keeps(experiment, "its volumes vary", DIVERSITY, HALF, reference=reference)


def agrees(experiment: str) -> tuple[Criterion, ...]:
    """Ask for the baseline's clusters, its latent space and its volumes."""
    return (
        Keeps(experiment, "z tells the classes", CLASSES, AGREES),
        Keeps(experiment, "z tells the hinge", HINGE, AGREES),
        Keeps(experiment, "who is near in truth is near in z", NEAR_IN_TRUTH, AGREES),
        neighbours(experiment, "the same particles are near each other"),
        Resembles(experiment, "z has the same shape", "linear CKA", similarity.cka, similarity.cka_by_chance, HALF),
        matched_volumes(experiment, "particles have the same volumes"),
        vary(experiment),
    )


def moves_far(experiment: str) -> tuple[Criterion, ...]:
    """Ask for altered images far from where the originals are."""
    common = (similarity.overlap, similarity.overlap_by_chance)
    return (
        MovesFar(
            experiment, "z moves far", DISPLACEMENT, 0.5, "half the distance of two random particles",
            similarity.displacement, common,
        ),
        MovesFar(
            experiment, "others are nearer", RANK, 0.1, "a tenth of all particles; 0 stays, 0.5 is chance",
            similarity.rank, common,
        ),
    )  # fmt: skip


def seconds_per_epoch(evidence: ComparableRuns, experiment: str) -> list[float]:
    """Return each seed's fastest epoch: no other is free of what else the machine did. The first one warms up."""
    logs = (
        [row["time/epoch_s"] for row in run.rows if "time/epoch_s" in row] for run in evidence.of(experiment).values()
    )
    return [min(log[1:] or log) for log in logs if log]


TABLE_1 = ("vlt_random", "evil_twin_permuted", "evil_twin_permuted_large", "evil_twin_permuted_small")

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "C1",
        "The lookup table, trained from a random or a zero start, agrees with the baseline.",
        "3.2, C.1.1; Figs 5, 21",
        (*agrees("vlt_random"), *agrees("vlt_zero")),
        "A row is visited once per epoch and moves by about table_lr each time: few epochs, or a small table_lr, "
        "leave a random start where it is.",
    ),
    Claim(
        "C2",
        "Permuted twins with the large encoder agree with the baseline; with the standard one clusters are lost, "
        "but volumes still vary.",
        "3.3; Figs 7, 8",
        (
            *agrees("evil_twin_permuted_large"),
            Loses("evil_twin_permuted", "standard encoder: clusters are lost", CLASSES, HALF),
            neighbours("evil_twin_permuted", "standard encoder: neighbours are lost", at_least=False),
            vary("evil_twin_permuted"),
        ),
        "Whether the standard encoder loses the clusters depends on how many particles it has to memorize: "
        "the paper has 131,899.",
    ),
    Claim("C3", "Noise twins with the large encoder agree with the baseline.", "3.3; Fig 9", agrees("evil_twin_noise")),
    Claim("C4", "A shift by one pixel moves z far from where it was.", "3.4; Fig 10", moves_far("shift_1px")),
    Claim("C5", "A rotation by 90 degrees moves z far from where it was.", "3.4; Fig 11", moves_far("rotate_90")),
    Claim(
        "C6",
        "A frozen zero table gives one single, averaged volume.",
        "C.1.2; Fig 22",
        (
            Loses("vlt_zero_frozen", "a single volume", DIVERSITY, SINGLE),
            Differs("vlt_zero_frozen", "an average, which fits the images worse", RECONSTRUCTION, higher=True),
        ),
    ),
    Claim(
        "C7",
        "A frozen random table gives almost no variability between volumes.",
        "C.1.2; Fig 23",
        (Loses("vlt_random_frozen", "almost no variability", DIVERSITY, QUARTER),),
    ),
    Claim(
        "C8",
        "A frozen pretrained table gives what the baseline gives.",
        "C.1.2; Fig 24",
        (
            matched_volumes("vlt_pretrained_frozen", "particles have the same volumes"),
            Keeps("vlt_pretrained_frozen", "its volumes vary as much", DIVERSITY, AGREES),
        ),
    ),
    Claim(
        "C9",
        "A small encoder and zdim 2: clusters are less informative, heterogeneity is still significant.",
        "C.2; Fig 25",
        (
            Differs("baseline_small", "z tells less of the classes", CLASSES, higher=False),
            Differs("baseline_small", "z tells less of the images", RECONSTRUCTION, higher=True),
            vary("baseline_small"),
        ),
    ),
    Claim(
        "C10",
        "Permuted twins work with the small encoder, too.",
        "C.3; Fig 26",
        (
            Keeps("evil_twin_permuted_small", "z tells the classes", CLASSES, HALF, reference="baseline_small"),
            vary("evil_twin_permuted_small", reference="baseline_small"),
        ),
    ),
    Claim(
        "C11",
        "All variants take the same time per epoch.",
        "App. D, Table 1",
        (
            TakesAsLong(
                TABLE_1, "as long as the baseline", seconds_per_epoch, 1.25,
                "a factor of 1.25; the paper's times differ by 1.06",
            ),
        ),
        "The paper's epochs are the decoder's, at 128 px on a GPU. A large encoder costs more where images are small "
        "or the processor has few cores.",
    ),
    Claim(
        "C12",
        "MNIST: the lookup table reaches a much lower loss, with a higher KL.",
        "B.1.4; Figs 12, 18",
        (
            Differs("mnist_vlt", "a much lower loss", LOSS, higher=False, relative=0.05, reference="mnist_vae"),
            Differs("mnist_vlt", "a higher KL", KL, higher=True, relative=0.05, reference="mnist_vae"),
        ),
        "The KL depends on the learning rate of the table.",
    ),
)  # fmt: skip


def judge(found: Sequence[RunFolder]) -> list[Verdicts]:
    """Judge every claim on every data set and setting.

    The claim on MNIST has runs of its own; it is judged on MNIST itself, or else on the largest group of other
    digits, and stands with each.

    Args:
        found: runs in any state.

    Returns:
        One for each data set and setting of cryo-EM runs, largest first; one where there are none.
    """
    groups = group(found)
    of_digits = [g for g in groups if g.of("mnist_vae") or g.of("mnist_vlt")]
    digits = min(of_digits, key=lambda g: not describe(g).startswith("data=mnist"), default=ComparableRuns({}))
    cryo_em = [g for g in groups if CRYO_EM.intersection(g.runs)]
    return [
        Verdicts(
            describe(evidence) if evidence.runs else "",
            [claim.judge(digits if claim.name == "C12" else evidence) for claim in CLAIMS],
        )
        for evidence in cryo_em or [ComparableRuns({})]
    ]


CRYO_EM = {
    "baseline", "baseline_small", "vlt_random", "vlt_zero", "vlt_zero_frozen", "vlt_random_frozen",
    "vlt_pretrained_frozen", "evil_twin_permuted", "evil_twin_permuted_large", "evil_twin_permuted_small",
    "evil_twin_noise", "shift_1px", "rotate_90",
}  # fmt: skip
