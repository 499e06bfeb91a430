"""What held-out particles say: the encoder on particles that it never saw, beside q optimized for each of them."""

from dataclasses import dataclass

from experiments.claims.comparable_runs import ComparableRuns
from experiments.report.numbers import number
from experiments.runs.folders import RunFolder

ROWS = {
    "train": "training particles, as trained",
    "train_optimized": "training particles, q optimized for each, decoder frozen",
    "encoder": "unseen particles, through the encoder",
    "optimized": "unseen particles, q optimized for each, decoder frozen",
}


@dataclass(frozen=True)
class HeldOut:
    """A run's numbers on held-out particles.

    Attributes:
        name: of the run.
        seed: of the run.
        columns: quantities.
        rows: where q(z) is from, and the text of each quantity.
        others: further numbers, label and text.
    """

    name: str
    seed: int | None
    columns: list[str]
    rows: list[tuple[str, list[str]]]
    others: list[tuple[str, str]]


def held_out(run: RunFolder) -> HeldOut | None:
    """Return a run's numbers on held-out particles; None where it has none."""
    numbers = {key.removeprefix("heldout/"): run.number(key) for key in run.metrics if key.startswith("heldout/")}
    if not numbers:
        return None
    cells = {key: parts for key in numbers if (parts := _split(key)) is not None}
    columns = list(dict.fromkeys(column for column, _ in cells.values()))
    rows = [
        (text, [number(numbers.get(f"{column}_{row}")) for column in columns])
        for row, text in ROWS.items()
        if any(numbers[key] is not None for key, (_, of) in cells.items() if of == row)
    ]
    others = [(_words(key), number(value)) for key, value in numbers.items() if key not in cells and value is not None]
    return HeldOut(run.name, run.seed, [_words(column) for column in columns], rows, others)


def _split(key: str) -> tuple[str, str] | None:
    """Split ``loss_encoder`` into quantity and row; None for a number that is in no row."""
    for row in sorted(ROWS, key=len, reverse=True):
        if key.endswith(f"_{row}"):
            return key.removesuffix(f"_{row}"), row
    return None


def _words(key: str) -> str:
    return "KL" if key == "kl" else key.replace("_", " ")


# What is measured of the baseline, and of the encoder that was trained on turned and moved images.
AUGMENTATION = (
    ("displacement of z, 1 px shift", "shift_1px", "augmented_shift_1px", "amortization/displacement_ratio"),
    (
        "displacement of z, turned by 90 degrees",
        "rotate_90_consistent",
        "augmented_rotate_90",
        "amortization/displacement_ratio",
    ),
    ("class accuracy, unseen particles", "heldout", "augmented_heldout", "heldout/class_accuracy_encoder"),
    ("amortization gap", "heldout", "augmented_heldout", "heldout/amortization_gap"),
)


def augmentation(evidence: ComparableRuns) -> list[tuple[str, str, str]]:
    """Return what augmentation changes: the quantity, of the baseline, and of the augmented encoder.

    Several seeds stand side by side. A quantity that the augmented encoder has not is left out.
    """
    rows = []
    for text, plain, augmented, key in AUGMENTATION:
        before, after = (" / ".join(map(number, evidence.numbers(name, key).values())) for name in (plain, augmented))
        if after:
            rows.append((text, before or "–", after))
    return rows
