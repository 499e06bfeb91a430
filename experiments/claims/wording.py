"""What was found about the claims, for a file, a table and the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from experiments.claims.findings import Finding, Judged


class Verdicts:
    """The claims, judged on one data set and setting.

    Attributes:
        setting: of the cryo-EM runs, in a few words; empty if there are none.
        judged: C1 to C12.
    """

    def __init__(self, setting: str, judged: Sequence[Judged]) -> None:
        """Keep what was found."""
        self.setting, self.judged = setting, tuple(judged)

    def to_json(self) -> dict[str, Any]:
        """Return plain values, every finding with all its numbers."""
        claims = [
            {
                "claim": one.claim.name,
                "statement": one.claim.statement,
                "paper": one.claim.where,
                "verdict": one.verdict,
                "why": one.why,
                "note": one.claim.note,
                "on": one.on,
                "findings": [asdict(finding) for finding in one.findings],
            }
            for one in self.judged
        ]
        return {"setting": self.setting, "claims": claims}


def in_words(finding: Finding) -> str:
    """Say what was found, with its numbers, in one line."""
    subject = f"{finding.experiment}: {finding.says}"
    if not finding.values:
        return f"{subject}: {finding.why}"
    sign = "≥" if finding.at_least else "≤"
    text = f"{subject}: {finding.metric} {numbers(finding.values)}"
    if finding.yardstick:
        text += f" ({finding.reference} {numbers(finding.yardstick)})"
    if finding.threshold is not None:
        text += f", holds if {sign} {finding.threshold:.3g}: {finding.reason}"
    return f"{text}; {finding.why}" if finding.why else text


def numbers(values: Sequence[float]) -> str:
    """Return up to three numbers, or the range of more, with three digits."""
    if len(values) > 3:
        return f"{min(values):.3g} to {max(values):.3g}"
    return " / ".join(f"{value:.3g}" for value in values)


def markdown(verdicts: Verdicts) -> str:
    """Lay the verdicts out as a Markdown table, with the numbers of what fails, or of the closest call."""
    lines = ["| | the paper | verdict | numbers |", "|---|---|---|---|"]
    for one in verdicts.judged:
        told = "; ".join(filter(None, map(in_short, one.headline_findings))) or one.why
        lines.append(f"| {one.claim.name} | {one.claim.statement} | {one.verdict} | {told} |")
    return "\n".join(lines) + "\n"


def in_short(finding: Finding) -> str:
    """Say a finding in a table's cell: name, number, yardstick and threshold; empty where there is no number."""
    if not finding.values:
        return ""
    name = finding.metric.rpartition("/")[2].replace("_", " ")
    against = f" ({finding.reference} {numbers(finding.yardstick)})" if finding.yardstick else ""
    sign = "≥" if finding.at_least else "≤"
    needed = f", holds if {sign} {finding.threshold:.3g}" if finding.threshold is not None else ""
    return f"{finding.experiment}: {name} {numbers(finding.values)}{against}{needed}"
