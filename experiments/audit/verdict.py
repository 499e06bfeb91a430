"""Amortizing or memorizing? The rule by which the page answers, with its thresholds and reasons."""

from dataclasses import dataclass

from experiments.audit.measures import ImageCondition
from experiments.audit.reproduced import NEARLY, Reproduced

AMORTIZING, MEMORIZING, BOTH, UNKNOWN = "amortizing", "memorizing", "in part both", "inconclusive"
LOW, HIGH = 1 / 3, 2 / 3  # of the share
CLEAR = 4.0  # standard errors

MEANING = {
    AMORTIZING: "The encoder follows a rule: of images that it has not seen it tells nearly all that z could.",
    MEMORIZING: "The encoder knows its training images, and little of others: its z is closer to a table's row than to "
    "a rule's. For new particles, search q under the decoder instead.",
    BOTH: "The encoder has learned something that holds for new images, and falls well short of what z could tell.",
    UNKNOWN: "The numbers do not decide it; the reasons say why.",
}


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Attributes:
        word: one of the four.
        crosses: thresholds within the interval of the share that decided; empty where it is clear of them.
        reasons: sentences, with the numbers and thresholds that decided.
        warnings: what the reader has to know before believing any of it.
    """

    word: str
    reasons: list[str]
    warnings: list[str]
    crosses: str = ""

    @property
    def headline(self) -> str:
        """The word, and whether it is not certain."""
        return f"{self.word}, not for certain: the interval crosses {self.crosses}" if self.crosses else self.word

    @property
    def meaning(self) -> str:
        """The word in a sentence."""
        return MEANING[self.word]


def judge(
    reproduced: Reproduced,
    trained: ImageCondition,
    turned: ImageCondition,
    unseen: ImageCondition | None,
    why_not: str = "",
) -> Verdict:
    """Judge an encoder.

    Args:
        reproduced: whether these are its particles.
        trained: its own training images.
        turned: the same, turned together with pose and CTF: as new to it as another particle's.
        unseen: particles that it was not trained on, where there are some.
        why_not: why those that there are cannot be looked at; empty where they can, or there are none.
    """
    if reproduced.rms_of_spread > NEARLY:
        reason = (
            f"z.pkl was not reproduced: entries differ by {reproduced.rms_of_spread:.2g} of their spread (root mean "
            f"square; {NEARLY:g} is admitted), correlation {reproduced.correlation:.3f}."
        )
        return Verdict(UNKNOWN, [reason], [NOT_THE_PARTICLES])
    warnings = [] if reproduced.is_same else [NEARLY_THE_PARTICLES]
    if why_not:
        warnings.append(f"{UNUSABLE} ({why_not})")
    if trained.information_z < CLEAR:
        reason = (
            f"z tells too little about its own particles: a particle's own q is better than another's by "
            f"{trained.information:.3g}, {trained.information_z:.1f} standard errors ({CLEAR:g} are needed). Too few "
            "epochs or particles, or a collapsed latent space."
        )
        return Verdict(UNKNOWN, [reason], warnings)
    decisive = turned if unseen is None else unseen
    reasons = [_reason(trained, "its training images"), _reason(decisive, NAMES[unseen is not None])]
    word = _word(decisive)
    if unseen is None:
        if not why_not:
            warnings.append(NO_UNSEEN)
    else:
        reasons.append(_reason(turned, NAMES[False]))
        warnings.append(FILTERED)
        if {word, _word(turned)} == {AMORTIZING, MEMORIZING}:
            reasons.append("Turned images and unseen particles contradict each other.")
            word = UNKNOWN
    return Verdict(word, reasons, warnings, "" if word == UNKNOWN else _crossed(decisive))


def _crossed(view: ImageCondition) -> str:
    return " and ".join(name for name, at in (("1/3", LOW), ("2/3", HIGH)) if view.share.low < at < view.share.high)


def _word(view: ImageCondition) -> str:
    value, low, high = view.share
    if low < LOW and high > HIGH:
        return UNKNOWN
    return AMORTIZING if value >= HIGH else MEMORIZING if value <= LOW else BOTH


def _reason(view: ImageCondition, name: str) -> str:
    return (
        f"Of what z could tell about {name}, the encoder tells {100 * view.share.value:.0f} % (95 % "
        f"interval {100 * view.share.low:.0f} to {100 * view.share.high:.0f} %, {view.n} particles)."
    )


NAMES = {True: "unseen particles", False: "turned images"}
NOT_THE_PARTICLES = (
    "These are not the particles of the run, or not prepared as it had them: nothing below is about its encoder. Say "
    "which they are with audit.particles, audit.poses, audit.ctf, audit.ind."
)
NEARLY_THE_PARTICLES = (
    "z was reproduced with small differences: another version of cryoDRGN, or inputs that have changed a little."
)
NO_UNSEEN = (
    "The run was trained on all particles of its stack, so that none are unseen. Turned training images stand for "
    "them: train_vae never turns images, so they are new to the encoder. An encoder trained on turned ones would pass."
)
UNUSABLE = (
    "The particles that the run's index leaves out cannot be looked at, so turned training images stand for them: "
    "train_vae never turns images. An encoder trained on turned ones would pass."
)
FILTERED = (
    "Unseen particles are those of the stack that the index file leaves out. If it was made to throw bad particles "
    "away, they differ in more than being unseen: then believe the turned images."
)
