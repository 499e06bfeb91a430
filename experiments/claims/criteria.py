"""The kinds of comparison that claims are made of: an experiment with the baseline, the baseline with itself."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev

from experiments.claims.comparable_runs import ComparableRuns, Similarity
from experiments.claims.findings import NO_LABELS, Finding

SEEDS_NEEDED = 2
# Similarities run from 0 to 1: if two seeds have less than this in common beyond chance, nothing can be lost.
COMMON_GROUND = 0.01


@dataclass(frozen=True)
class Measure:
    """A final number of a run, and how it is read.

    Attributes:
        key: in metrics.json.
        label: in words.
        counts: the smallest difference that counts, however well two seeds happen to agree.
        chance: what is reached without knowing anything: a number, or the key of one.
        needs_labels: whether it exists only where the true conformations are known.
    """

    key: str
    label: str
    counts: float = 0.0
    chance: float | str = 0.0
    needs_labels: bool = False

    def of(self, evidence: ComparableRuns, experiment: str) -> tuple[float, ...]:
        """Return the number of every seed that has it."""
        return tuple(evidence.numbers(experiment, self.key).values())

    def by_chance(self, evidence: ComparableRuns, experiment: str) -> float:
        """Return the chance level."""
        if not isinstance(self.chance, str):
            return self.chance
        found = evidence.numbers(experiment, self.chance).values()
        return fmean(found) if found else 0.0

    def spread(self, values: tuple[float, ...]) -> float:
        """Return the standard deviation between seeds, but no less than half of what counts."""
        return max(stdev(values), self.counts / 2)

    def missing(self, of: str) -> str:
        """Say that the number does not exist."""
        return NO_LABELS if self.needs_labels else f"no number: {of} has no {self.key}"


@dataclass(frozen=True)
class _Number:
    """A final number of an experiment, beside the reference's."""

    experiment: str
    says: str
    measure: Measure
    reference: str = field(default="baseline", kw_only=True)

    def _gather(self, evidence: ComparableRuns) -> Finding:
        """Collect the numbers; the finding has a reason in ``why`` where they do not suffice for a verdict."""
        measure = self.measure
        blank = Finding(self.says, self.experiment, measure.key, reference=self.reference)
        if lacking := _lacking(evidence, self.experiment, self.reference):
            return replace(blank, why=lacking)
        values, yardstick = (measure.of(evidence, name) for name in (self.experiment, self.reference))
        if not values or len(yardstick) < SEEDS_NEEDED:
            return replace(blank, why=measure.missing(self.reference if values else self.experiment))
        return replace(blank, values=values, yardstick=yardstick)


@dataclass(frozen=True)
class Keeps(_Number):
    """The experiment has at least a share of what the reference has beyond chance.

    Or it is within two standard deviations of the reference's seeds. Better than the reference is as good.
    """

    share: float

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare a final number."""
        return _by_share(self, evidence, at_least=True)


@dataclass(frozen=True)
class Loses(_Number):
    """The experiment has at most a share of what the reference has beyond chance."""

    share: float

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare a final number."""
        return _by_share(self, evidence, at_least=False)


def _by_share(criterion: Keeps | Loses, evidence: ComparableRuns, at_least: bool) -> Finding:
    measure, reference = criterion.measure, criterion.reference
    found = criterion._gather(evidence)
    if found.why:
        return found
    chance, mean, spread = (
        measure.by_chance(evidence, reference),
        fmean(found.yardstick),
        measure.spread(found.yardstick),
    )
    found = replace(found, chance=chance, at_least=at_least)
    if mean - chance <= 2 * spread:
        return replace(found, why=f"{reference} itself is not above chance in {measure.label}")
    threshold = chance + criterion.share * (mean - chance)
    reason = f"{criterion.share:.0%} of what {reference} has beyond chance"
    if at_least and mean - 2 * spread < threshold:
        threshold, reason = mean - 2 * spread, f"within two standard deviations of {reference}'s seeds"
    return found.decided(threshold, at_least, reason)


@dataclass(frozen=True)
class Differs(_Number):
    """The experiment's number is higher, or lower, than the reference's by more than seeds differ.

    Attributes:
        higher: in which direction.
        relative: by at least this fraction of the reference, too.
    """

    higher: bool
    relative: float = 0.0

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare a final number."""
        found = self._gather(evidence)
        if found.why:
            return found
        mean = fmean(found.yardstick)
        by_seeds, by_size = 2 * self.measure.spread(found.yardstick), self.relative * abs(mean)
        margin = max(by_seeds, by_size)
        threshold = mean + margin if self.higher else mean - margin
        amount = f"{self.relative:.0%}" if by_size > by_seeds else "two standard deviations of its seeds"
        reason = f"{'above' if self.higher else 'below'} {self.reference} by {amount}"
        return found.decided(threshold, self.higher, reason)


@dataclass(frozen=True)
class Resembles:
    """The experiment's runs are as like the reference's as those are like each other, up to a share.

    Attributes:
        experiment: what is judged.
        says: what is examined, in words.
        metric: name of the similarity.
        similarity: of two runs.
        chance: the same of two runs whose particles are out of order.
        share: of the similarity beyond chance that two seeds of the reference have.
        at_least: false for a claim that the similarity is lost.
        error: standard error of the similarity of two runs; None where it is of many particles.
        reference: what it is compared with.
    """

    experiment: str
    says: str
    metric: str
    similarity: Similarity
    chance: Similarity
    share: float
    at_least: bool = True
    error: Similarity | None = None
    reference: str = field(default="baseline", kw_only=True)

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare runs, pair by pair."""
        found = Finding(self.says, self.experiment, self.metric, reference=self.reference, at_least=self.at_least)
        if lacking := _lacking(evidence, self.experiment, self.reference):
            return replace(found, why=lacking)
        yardstick = tuple(evidence.similarity(self.reference, self.reference, self.similarity))
        values = tuple(evidence.similarity(self.experiment, self.reference, self.similarity))
        by_chance = evidence.similarity(self.reference, self.reference, self.chance)
        if not (yardstick and values and by_chance):
            return replace(found, why=f"no number: {self.metric} does not exist for these runs")
        chance, mean = fmean(by_chance), fmean(yardstick)
        errors = evidence.similarity(self.experiment, self.reference, self.error) if self.error else []
        found = replace(found, values=values, yardstick=yardstick, chance=chance, error=max(errors, default=0.0))
        if mean - chance <= COMMON_GROUND:
            return replace(found, why=f"two seeds of {self.reference} have no {self.metric} beyond chance")
        threshold = chance + self.share * (mean - chance)
        reason = f"{self.share:.0%} of what two seeds of {self.reference} have in common beyond chance"
        return found.decided(threshold, self.at_least, reason)


@dataclass(frozen=True)
class MovesFar:
    """Altered images are far from where they were, by a fixed threshold, in two seeds or more.

    Attributes:
        experiment: a test of a trained encoder.
        says: what is examined, in words.
        measure: how far.
        threshold: to be reached.
        reason: of the threshold.
        between_seeds: how far apart the same particles are in two runs, in the same unit.
        common: a similarity, and its chance level; two seeds of the reference must have it, or z says nothing, and
            it is nothing when it moves.
        reference: whose encoder is tested.
    """

    experiment: str
    says: str
    measure: Measure
    threshold: float
    reason: str
    between_seeds: Similarity
    common: tuple[Similarity, Similarity]
    reference: str = field(default="baseline", kw_only=True)

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare a final number."""
        found = Finding(self.says, self.experiment, self.measure.key, reference=self.reference)
        if lacking := _lacking(evidence, self.experiment, self.reference):
            return replace(found, why=lacking)
        values = self.measure.of(evidence, self.experiment)
        yardstick = tuple(evidence.similarity(self.reference, self.reference, self.between_seeds))
        found = replace(found, values=values, yardstick=yardstick)
        if len(values) < SEEDS_NEEDED:
            return replace(found, why=_too_few(len(values), self.experiment))
        in_common, by_chance = (
            evidence.similarity(self.reference, self.reference, similarity) for similarity in self.common
        )
        if in_common and by_chance and fmean(in_common) - fmean(by_chance) <= COMMON_GROUND:
            return replace(found, why=f"two seeds of {self.reference} have no neighbours in common: z says nothing")
        return found.decided(self.threshold, True, self.reason)


@dataclass(frozen=True)
class TakesAsLong:
    """Experiments need the reference's time per epoch, up to a factor either way.

    Attributes:
        experiments: what is judged.
        says: what is examined, in words.
        seconds: of an experiment's runs, a typical epoch of each.
        factor: allowed.
        reason: of the factor.
        reference: what they are compared with.
    """

    experiments: tuple[str, ...]
    says: str
    seconds: Callable[[ComparableRuns, str], list[float]]
    factor: float
    reason: str
    reference: str = field(default="baseline", kw_only=True)

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare times."""
        yardstick = tuple(self.seconds(evidence, self.reference))
        names = ", ".join(self.experiments)
        found = Finding(self.says, names, "time/epoch_s", yardstick=yardstick, reference=self.reference)
        if lacking := [name for name in self.experiments if not self.seconds(evidence, name)]:
            return replace(found, why=f"missing run: {', '.join(lacking)}")
        if len(yardstick) < SEEDS_NEEDED:
            return replace(found, why=_too_few(len(yardstick), self.reference))
        found = replace(found, values=tuple(fmean(self.seconds(evidence, name)) for name in self.experiments))
        mean, apart = fmean(yardstick), max(yardstick) / min(yardstick)
        if apart > self.factor:
            return replace(found, why=f"no steady clock: {self.reference}'s seeds differ by a factor of {apart:.2f}")
        worst = max(found.values, key=lambda value: max(value / mean, mean / value))
        slower = worst >= mean
        threshold = mean * self.factor if slower else mean / self.factor
        return found.decided(threshold, not slower, self.reason, by=[worst])


def _lacking(evidence: ComparableRuns, experiment: str, reference: str) -> str:
    """Say which runs are missing, or that the reference is no yardstick; empty if neither is so."""
    if not evidence.of(experiment):
        return f"missing run: {experiment}"
    n = len(evidence.of(reference))
    return evidence.undertrained(reference) if n >= SEEDS_NEEDED else _too_few(n, reference)


def _too_few(n: int, experiment: str) -> str:
    return f"too few seeds: {n} of {experiment}, {SEEDS_NEEDED} needed"
