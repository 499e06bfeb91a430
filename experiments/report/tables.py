"""Tables of measured numbers in README.md and experiments/README.md: ``python -m experiments tables runs``.

A table stands between two comments, ``<!-- claims -->`` and ``<!-- /claims -->``; what is between them is written
anew from finished runs, so that no number is ever typed. The words of README.md's grid stay, its numbers change.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.claims import paper_claims
from experiments.claims.comparable_runs import Evidence, describe, group
from experiments.claims.paper_experiments import about, place
from experiments.claims.paper_figures import FIGURES
from experiments.claims.wording import in_words, markdown
from experiments.configuration.compose import CONF_DIR
from experiments.configuration.error_messages import command
from experiments.report.captions import found_here
from experiments.runs.folders import RunFolder, find
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically

ROOT = CONF_DIR.parent
# Columns of README.md's grid, and how their numbers are written.
COLUMNS = {
    "reconstruction": ("loss/reconstruction", ".4f"),
    "KL": ("loss/kl", ".1f"),
    "class accuracy": ("latents/knn_class_accuracy", ".2f"),
    "hinge R2": ("latents/knn_hinge_r2", ".2f"),
    "displacement of z": ("amortization/displacement_ratio", ".2f"),
    "neighbour rank": ("amortization/neighbour_rank", ".2f"),
}
FIGURES_PAGE = """# The paper, figure by figure

Made by `python -m experiments tables` from finished runs, which `make paper` makes. Several numbers in one cell are
those of several seeds.

<!-- figures -->
<!-- /figures -->

## The claims, with every number

No verdict comes from one seed: the yardstick is what seeds of the baseline do among themselves. The thresholds and
their reasons are in `experiments/claims/paper_claims.py`.

<!-- findings -->
<!-- /findings -->
"""


def grid(block: str, evidence: Evidence) -> str:
    """Return README.md's grid with its numbers renewed: rows and words stay, experiments that are new come last.

    Args:
        block: Markdown tables, the first cell of each row the name of an experiment.
        evidence: finished runs.
    """
    tables = re.split(r"\n\s*\n", block.strip())
    named = set(re.findall(r"^\| `(\w+)`", block, re.MULTILINE))
    rest = sorted(set(evidence.runs) - named, key=place)
    return "\n\n".join(_renewed(table.splitlines(), evidence, rest) for table in tables) + "\n"


def _renewed(lines: list[str], evidence: Evidence, rest: Sequence[str]) -> str:
    head = _cells(lines[0])
    keys = [COLUMNS.get(title) for title in head]
    n_words = next((i for i, key in enumerate(keys) if key), len(keys))
    rows = [_cells(line)[:n_words] for line in lines[2:]]
    if n_words == 3:
        more = [name for name in rest if any(key and evidence.numbers(name, key[0]) for key in keys)]
        rows += [[f"`{name}`", about(name) or name, "-"] for name in more]
    numbered = [
        [*row, *[_seeds(evidence, row[0].strip("`"), *key) for key in keys[n_words:] if key is not None]]
        for row in rows
    ]
    return "\n".join([*lines[:2], *(f"| {' | '.join(row)} |" for row in numbered)])


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _seeds(evidence: Evidence, experiment: str, key: str, form: str) -> str:
    return " / ".join(format(value, form) for value in evidence.numbers(experiment, key).values())


def figures(groups: Sequence[Evidence]) -> str:
    """Return a row for each figure of the paper: its statement, our numbers, the command.

    Args:
        groups: finished runs, the largest first.
    """
    lines = ["| figure | Paper | Here | command |", "|---|---|---|---|"]
    for shown in FIGURES:
        evidence = next((one for one in groups if one.of(shown.experiment)), Evidence({}))
        command = f"`python run.py +exp={shown.experiment}`"
        lines.append(f"| {shown.where} | {shown.statement} | {found_here(shown, evidence)} | {command} |")
    settings = "; ".join(describe(one) for one in groups[:2])
    return "\n".join([*lines, "", f"Measured with {settings}." if settings else ""]).rstrip() + "\n"


def findings(found: Sequence[RunFolder]) -> str:
    """Return every criterion of every claim with its numbers."""
    lines = []
    for verdicts in paper_claims.judge(found)[:1]:
        for one in verdicts.judged:
            lines += ["", f"**{one.claim.name}: {one.verdict}.** {one.claim.statement} ({one.claim.where})", ""]
            lines += [f"- {finding.verdict}: {in_words(finding)}" for finding in one.findings]
            lines += ["", one.claim.note] if one.claim.note and one.verdict != "holds" else []
    return "\n".join(lines).strip() + "\n"


def put(page: str, name: str, text: str, path: Path) -> str:
    """Return a page with the text between its two comments replaced.

    Raises:
        InputError: the comments are not there.
    """
    between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not between.search(page):
        raise InputError(
            f"{path}: no place for the table; put <!-- {name} --> and <!-- /{name} --> on lines of their own there"
        )
    return between.sub(lambda found: found[1] + text + found[2], page)


def block_of(page: str, name: str) -> str:
    """Return the text between two comments; empty where they are not there."""
    found = re.search(rf"<!-- {name} -->\n(.*?)<!-- /{name} -->", page, re.DOTALL)
    return found[1] if found else ""


def write(found: Sequence[RunFolder], readme: Path, figures_page: Path) -> None:
    """Write the tables into both files, or into neither.

    Raises:
        InputError: no place for a table, or no finished run of cryo-EM particles.
    """
    groups = group(found)
    cryo_em = next((one for one in groups if paper_claims.CRYO_EM.intersection(one.runs)), None)
    if cryo_em is None:
        raise InputError(
            "no finished run of cryo-EM particles here: there is nothing to write; `make paper` makes them"
        )
    page = readme.read_text(encoding="utf-8")
    page = put(page, "grid", grid(block_of(page, "grid"), cryo_em), readme)
    page = put(page, "claims", markdown(paper_claims.judge(found)[0]), readme)
    own = figures_page.read_text(encoding="utf-8") if figures_page.exists() else FIGURES_PAGE
    own = put(put(own, "figures", figures(groups), figures_page), "findings", findings(found), figures_page)
    write_atomically(readme, lambda unfinished: unfinished.write_text(page, encoding="utf-8"))
    write_atomically(figures_page, lambda unfinished: unfinished.write_text(own, encoding="utf-8"))


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments tables", description="Write measured numbers down.")
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)")
    parser.add_argument(
        "--readme", type=Path, default=ROOT / "README.md", help="with <!-- grid --> and <!-- claims -->"
    )
    parser.add_argument(
        "--figures", type=Path, default=ROOT / "experiments" / "README.md", help="made if it is missing"
    )
    options = parser.parse_args(arguments)
    write(find(options.runs), options.readme, options.figures)
    print(f"{options.readme}\n{options.figures}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
