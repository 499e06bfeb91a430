"""What a claim is, and how it is judged.

No verdict comes from one seed. The yardstick is what seeds of the baseline do among themselves. Where seeds of the
judged experiment lie on both sides of a threshold, the finding is inconclusive.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Protocol

from experiments.claims.comparable_runs import ComparableRuns, describe

HOLDS, FAILS, UNKNOWN = "holds", "does not hold", "inconclusive"
NO_LABELS = "no labels: the truth that this is compared with is not known"


@dataclass(frozen=True)
class Finding:
    """One criterion, judged.

    Attributes:
        says: what is examined, in words.
        experiment: what is judged.
        metric: its name or key.
        verdict: holds, does not hold, inconclusive.
        why: why it is inconclusive; empty otherwise.
        values: of the judged experiment, one per seed or pair of runs.
        yardstick: the same metric of the reference, one per seed or pair.
        reference: the experiment that ``yardstick`` is of.
        error: standard error of the values, where they are means over a few particles.
        chance: of the metric, what runs that know nothing give.
        threshold: what each of ``values`` is compared with.
        at_least: whether they must be above the threshold, or below.
        reason: of the threshold.
    """

    says: str
    experiment: str
    metric: str
    verdict: str = UNKNOWN
    why: str = ""
    values: tuple[float, ...] = ()
    yardstick: tuple[float, ...] = ()
    reference: str = "baseline"
    error: float = 0.0
    chance: float | None = None
    threshold: float | None = None
    at_least: bool = True
    reason: str = ""

    def decided(self, threshold: float, at_least: bool, reason: str, by: Sequence[float] = ()) -> "Finding":
        """Compare with a threshold.

        Args:
            threshold: to be reached, or not to be exceeded.
            at_least: which of the two.
            reason: of the threshold.
            by: what decides; ``values`` if it is empty.

        Returns:
            The finding with its verdict. It is inconclusive where some meet the threshold and some do not, or where
            one is within its standard error of it.
        """
        values = by or self.values
        close = any(abs(value - threshold) < self.error for value in values)
        met = [value >= threshold if at_least else value <= threshold for value in values]
        verdict = UNKNOWN if close else HOLDS if all(met) else UNKNOWN if any(met) else FAILS
        why = ""
        if verdict == UNKNOWN:
            why = "too close to call: within the standard error" if close else "seeds disagree: one on either side"
        return replace(self, verdict=verdict, why=why, threshold=threshold, at_least=at_least, reason=reason)

    @property
    def margin(self) -> float:
        """How clear the verdict is: the threshold's distance from the nearest value, as a share of the yardstick."""
        if self.threshold is None or not self.values:
            return float("inf")
        scale = abs(fmean(self.yardstick or (self.threshold,)) - (self.chance or 0.0)) or 1.0
        return min(abs(value - self.threshold) for value in self.values) / scale


class Criterion(Protocol):
    """What a claim asks of the evidence."""

    def judge(self, evidence: ComparableRuns) -> Finding:
        """Compare, and decide."""


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, and what must be found for it to hold.

    Attributes:
        name: C1 to C12.
        statement: the paper's.
        where: in the paper.
        criteria: all must hold. Those that need labels do not count where there are none, if others remain.
        note: what to know when it does not hold.
    """

    name: str
    statement: str
    where: str
    criteria: tuple[Criterion, ...]
    note: str = ""

    def judge(self, evidence: ComparableRuns) -> "Judged":
        """Judge every criterion."""
        findings = tuple(criterion.judge(evidence) for criterion in self.criteria)
        return Judged(self, findings, describe(evidence) if evidence.runs else "")


@dataclass(frozen=True)
class Judged:
    """A claim with what was found.

    Attributes:
        claim: what was judged.
        findings: one for each criterion.
        on: data set and setting, in a few words.
    """

    claim: Claim
    findings: tuple[Finding, ...]
    on: str = ""

    @property
    def decisive(self) -> tuple[Finding, ...]:
        """The findings that count: those that lack labels do not, where others are left."""
        return tuple(finding for finding in self.findings if finding.why != NO_LABELS) or self.findings

    @property
    def verdict(self) -> str:
        """Holds if every criterion does; does not if one does not."""
        verdicts = {finding.verdict for finding in self.decisive}
        return FAILS if FAILS in verdicts else UNKNOWN if UNKNOWN in verdicts else HOLDS

    @property
    def why(self) -> str:
        """Why the claim is inconclusive, or which parts do not hold; empty where the claim holds."""
        if self.verdict == UNKNOWN:
            return "; ".join(dict.fromkeys(f.why for f in self.decisive if f.verdict == UNKNOWN))
        return "; ".join(f"{f.experiment}: {f.says}" for f in self.decisive if f.verdict == FAILS)

    @property
    def headline_findings(self) -> tuple[Finding, ...]:
        """The findings to be shown first: those that do not hold; where all do, the closest call."""
        failing = tuple(f for f in self.decisive if f.verdict == FAILS)
        return failing or (min(self.decisive, key=lambda f: f.margin),)
