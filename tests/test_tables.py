"""Measured numbers in the documentation are written by a command, and never typed."""

import pytest

from experiments.claims.comparable_runs import group
from experiments.claims.paper_figures import FIGURES
from experiments.report.tables import ROOT, block_of, figures, grid, main, put
from experiments.runs.folders import find
from tests import world

README = """# Title

<!-- grid -->
| `+exp=` | what changes | paper | reconstruction | KL | class accuracy | hinge R2 |
|---|---|---|---|---|---|---|
| `baseline` | nothing | Fig 3, 20 | 9.9 | 9.9 | 9.9 | 9.9 |
| `vlt_random` | my own words | Fig 5 |  |  |  |  |

| `+exp=` | the baseline's encoder on | paper | displacement of z | neighbour rank |
|---|---|---|---|---|
| `shift_1px` | its images 1 px to the right | Fig 10 | 9.9 | 9.9 |
<!-- /grid -->

Words.

<!-- claims -->
old
<!-- /claims -->

The end.
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    few = {"baseline", "vlt_zero", "shift_1px", "rotate_90"}
    return world.paper_is_right(
        root, without=tuple({"evil_twin_noise", *(shown.experiment for shown in FIGURES)} - few)
    )


@pytest.fixture
def pages(tmp_path):
    (tmp_path / "README.md").write_text(README)
    return tmp_path


def write(runs, pages):
    return main([str(runs), "--readme", str(pages / "README.md"), "--figures", str(pages / "figures.md")])


def test_the_grids_words_stay_and_its_numbers_are_measured(runs, pages):
    assert write(runs, pages) == 0
    lines = block_of((pages / "README.md").read_text(), "grid").splitlines()
    assert "| `baseline` | nothing | Fig 3, 20 | 0.5700 / 0.5705 | 18.0 / 18.1 | 0.75 / 0.76 | 0.45 / 0.47 |" in lines
    assert "| `vlt_random` | my own words | Fig 5 |  |  |  |  |" in lines
    assert "| `shift_1px` | its images 1 px to the right | Fig 10 | 0.72 / 0.73 | 0.32 / 0.32 |" in lines


def test_experiments_that_are_new_join_the_table_that_their_numbers_fit(runs, pages):
    write(runs, pages)
    first, second = block_of((pages / "README.md").read_text(), "grid").split("\n\n")
    assert "| `vlt_zero` | No encoder: a table that starts at one point" in first and "`rotate_90`" not in first
    assert "| `rotate_90` |" in second and "`vlt_zero`" not in second


def test_the_rest_of_the_page_stays(runs, pages):
    write(runs, pages)
    page = (pages / "README.md").read_text()
    assert (
        page.startswith("# Title\n") and "\nWords.\n" in page and page.endswith("The end.\n") and "\nold\n" not in page
    )
    assert "| C4 | A shift by one pixel moves z far from where it was. | holds |" in page


def test_writing_again_changes_nothing(runs, pages):
    write(runs, pages)
    once = [(pages / name).read_text() for name in ("README.md", "figures.md")]
    write(runs, pages)
    assert [(pages / name).read_text() for name in ("README.md", "figures.md")] == once


def test_every_figure_has_statement_number_and_command(runs, pages):
    write(runs, pages)
    page = (pages / "figures.md").read_text()
    for shown in FIGURES:
        assert f"| {shown.where} | {shown.statement} |" in page
    row = next(line for line in page.splitlines() if line.startswith("| Fig 21 |"))
    assert "class accuracy 0.75 / 0.755" in row and "`python run.py +exp=vlt_zero`" in row
    assert "not run yet" in next(line for line in page.splitlines() if line.startswith("| Fig 9 |"))
    assert "**C4: holds.**" in page and "missing run: vlt_random" in page


def test_every_figure_is_of_an_experiment_that_exists():
    assert all((ROOT / "conf" / "exp" / f"{shown.experiment}.yaml").is_file() for shown in FIGURES)


def test_without_a_place_for_a_table_nothing_is_written(runs, pages, capsys):
    (pages / "README.md").write_text(README.replace("<!-- claims -->\n", ""))
    assert write(runs, pages) == 1
    assert "put <!-- claims --> and <!-- /claims -->" in capsys.readouterr().err
    assert "9.9" in (pages / "README.md").read_text() and not (pages / "figures.md").exists()


def test_the_readmes_own_grid_can_be_renewed(runs):
    (evidence,) = group(find([runs]))
    block = block_of((ROOT / "README.md").read_text(), "grid")
    renewed = grid(block, evidence)
    assert "| `baseline` | nothing | Fig 3, 20 | 0.5700 / 0.5705 |" in renewed
    assert renewed.count("| `") >= block.count("| `")


def test_without_runs_there_are_no_numbers():
    assert figures([]).count("not run yet") == len(FIGURES)


def test_text_with_backslashes_is_put_as_it_is(tmp_path):
    page = "<!-- a -->\nold\n<!-- /a -->\n"
    assert put(page, "a", r"\1 \g<0>" + "\n", tmp_path) == "<!-- a -->\n" + r"\1 \g<0>" + "\n<!-- /a -->\n"
