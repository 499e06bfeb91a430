"""Tables of measured numbers: ``python -m experiments tables runs`` writes runs/tables.md.

With ``--renew`` the tables in README.md and experiments/README.md are renewed, too. There a table stands between two
comments, ``<!-- claims -->`` and ``<!-- /claims -->``; what is between them is written anew from finished runs, with
the conditions under which they were measured, so that no number is ever typed. The words of README.md's grid stay.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.claims import paper_claims
from experiments.claims.comparable_runs import ComparableRuns, group
from experiments.claims.paper_experiments import about, place
from experiments.claims.paper_figures import FIGURES
from experiments.claims.wording import in_words, markdown
from experiments.configuration.compose import CONF_DIR
from experiments.configuration.error_messages import command
from experiments.report.captions import found_here
from experiments.report.conditions import conditions
from experiments.runs.folders import RunFolder, find
from lightning_modules.errors import InputError
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.regular_files import read_bytes

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
OF_README, OF_FIGURES = ("conditions", "grid", "claims"), ("figures", "findings")
GRID = """| `+exp=` | what changes | paper | reconstruction | KL | class accuracy | hinge R2 |
|---|---|---|---|---|---|---|

| `+exp=` | the baseline's encoder on | paper | displacement of z | neighbour rank |
|---|---|---|---|---|
"""
FIGURES_PAGE = """# The paper, figure by figure

Made by `python -m experiments tables` from finished runs, which `make paper` makes.

<!-- figures -->
<!-- /figures -->

## The claims, with every number

No verdict comes from one seed: the yardstick is the spread between seeds of the baseline. The thresholds and their
reasons are in `experiments/claims/paper_claims.py`.

<!-- findings -->
<!-- /findings -->
"""
PAGE = f"""# Measured numbers

Made by `python -m experiments tables` from finished runs.

<!-- conditions -->
<!-- /conditions -->

<!-- grid -->
{GRID}<!-- /grid -->

## The claims

<!-- claims -->
<!-- /claims -->

"""


def grid(block: str, evidence: ComparableRuns) -> str:
    """Return README.md's grid with its numbers renewed: rows and words stay, experiments that are new come last.

    Args:
        block: Markdown tables, the first cell of each row the name of an experiment.
        evidence: finished runs.
    """
    tables = re.split(r"\n\s*\n", block.strip())
    named = set(re.findall(r"^\| `(\w+)`", block, re.MULTILINE))
    rest = sorted(set(evidence.runs) - named, key=place)
    return "\n\n".join(_renewed(table.splitlines(), evidence, rest) for table in tables) + "\n"


def _renewed(lines: list[str], evidence: ComparableRuns, rest: Sequence[str]) -> str:
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


def _seeds(evidence: ComparableRuns, experiment: str, key: str, form: str) -> str:
    return " / ".join(format(value, form) for value in evidence.numbers(experiment, key).values())


def figures(groups: Sequence[ComparableRuns]) -> str:
    """Return a row for each figure of the paper: its statement, our numbers, the command.

    Args:
        groups: finished runs, the largest first.
    """
    lines = ["| figure | Paper | Here | command |", "|---|---|---|---|"]
    for shown in FIGURES:
        evidence = next((one for one in groups if one.of(shown.experiment)), ComparableRuns({}))
        command = f"`python run.py +exp={shown.experiment}`"
        lines.append(f"| {shown.where} | {shown.statement} | {found_here(shown, evidence)} | {command} |")
    return "\n".join([*lines, *(text for one in groups[:2] for text in ("", conditions(one)))]) + "\n"


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


@dataclass(frozen=True)
class Page:
    """A page with places for tables.

    Attributes:
        path: where it belongs.
        text: as it is.
        tables: that it must have a place for.
    """

    path: Path
    text: str
    tables: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write the text at a path."""
        path.write_text(self.text, encoding="utf-8")


def renewed(found: Sequence[RunFolder], pages: Sequence[Page]) -> list[Page]:
    """Return pages with their tables renewed; nothing is written.

    Raises:
        InputError: no place for a table, or no finished run of cryo-EM particles.
    """
    groups = group(found)
    cryo_em = next((one for one in groups if paper_claims.CRYO_EM.intersection(one.runs)), None)
    if cryo_em is None:
        raise InputError(
            "no finished run of cryo-EM particles here: there is nothing to write; `make paper` makes them"
        )
    tables = {
        "conditions": conditions(cryo_em) + "\n",
        "claims": markdown(paper_claims.judge(found)[0]),
        "figures": figures(groups),
        "findings": findings(found),
    }

    def renew(page: Page) -> Page:
        text = page.text
        for name in page.tables:
            table = grid(block_of(text, "grid"), cryo_em) if name == "grid" else tables[name]
            text = put(text, name, table, page.path)
        return replace(page, text=text)

    return [renew(page) for page in pages]


def _text_of(path: Path) -> str:
    return read_bytes(path, "a page with places for tables").decode("utf-8", errors="replace")


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the tables; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m experiments tables", description="Write measured numbers down.")
    parser.add_argument("runs", type=Path, nargs="*", default=[Path("runs")], help="folders of runs (default: runs)")
    parser.add_argument("-o", "--output", type=Path, help="default: tables.md in the first folder")
    parser.add_argument("--renew", action="store_true", help="also renew the tables in --readme and --figures")
    parser.add_argument("--readme", type=Path, default=ROOT / "README.md", help="default: %(default)s")
    parser.add_argument("--figures", type=Path, default=ROOT / "experiments" / "README.md", help="default: %(default)s")
    options = parser.parse_args(arguments)
    measured = PAGE + FIGURES_PAGE.replace("# ", "## ", 1).replace("\n## The", "\n### The")
    pages = [Page(options.output or options.runs[0] / "tables.md", measured, OF_README + OF_FIGURES)]
    if options.renew:
        figures_page = _text_of(options.figures) if options.figures.exists() else FIGURES_PAGE
        pages += [
            Page(options.readme, _text_of(options.readme), OF_README),
            Page(options.figures, figures_page, OF_FIGURES),
        ]
    for page in renewed(find(options.runs), pages):
        write_atomically(page.path, page.write)
        print(page.path)
    if options.renew:
        print("the words around the tables are as they were: do they still fit the numbers?")
    return 0


if __name__ == "__main__":
    sys.exit(main())
