"""Measured numbers in the documentation are written by a command, and never typed."""

import json

import pytest

from experiments.claims.comparable_runs import group
from experiments.claims.paper_figures import FIGURES
from experiments.report.conditions import conditions
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

<!-- conditions -->
Measured with the defaults.
<!-- /conditions -->

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


def write(runs, pages, *options):
    others = ["--readme", str(pages / "README.md"), "--figures", str(pages / "figures.md"), "-o", str(pages / "t.md")]
    return main([str(runs), *others, *(options or ["--renew"])])


def test_the_readme_is_renewed_on_request_alone(runs, pages, capsys):
    own = [ROOT / "README.md", ROOT / "experiments" / "README.md"]
    before = [path.read_bytes() for path in own]
    assert main([str(runs)]) == 0
    assert capsys.readouterr().out == f"{runs / 'tables.md'}\n"
    assert write(runs, pages, "-o", str(pages / "t.md")) == 0
    assert (pages / "README.md").read_text() == README and not (pages / "figures.md").exists()
    assert [path.read_bytes() for path in own] == before
    assert (pages / "t.md").read_text() == (runs / "tables.md").read_text()


def test_the_tables_of_runs_have_every_experiment_and_their_conditions(runs, pages):
    write(runs, pages)
    page = (pages / "t.md").read_text()
    for name in ("baseline", "vlt_zero", "shift_1px", "rotate_90"):
        assert page.count(f"| `{name}` | ") == 1
    assert "| C4 | A shift by one pixel moves z far from where it was. | holds |" in page
    assert "| Fig 21 | a zero table that is trained: as the baseline | class accuracy 0.75 / 0.755 (baseline " in page
    assert "## The paper, figure by figure" in page and "**C4: holds.**" in page
    assert "Measured with the defaults (data=simulated, 3000 particles, 32 px, SNR 0.4, 16 epochs, float32). " in page


def test_conditions_are_those_of_the_runs(tmp_path, pages):
    attempt = {
        "started": "2026-02-03T10:00:00+00:00", "threads": 2, "gpus": [], "hardware": {"processor": "Intel Xeon"},
    }  # fmt: skip
    for seed, day in ((3, "03"), (7, "05")):
        options = ("+exp=baseline", "batch_size=16", "data.n_particles=500", f"seed={seed}")
        folder = world.make(tmp_path / "runs", *options, metrics=world.numbers(0))
        record = {"attempts": [{}, attempt | {"started": f"2026-02-{day}T10:00:00+00:00"}]}
        (folder / "provenance.json").write_text(json.dumps(record))
    assert write(tmp_path / "runs", pages) == 0
    assert block_of((pages / "README.md").read_text(), "conditions") == (
        "Measured with `batch_size=16 data.n_particles=500` (data=simulated, 500 particles, 32 px, SNR 0.4, 16 epochs, "
        "float32, 2 threads, Intel Xeon, 2026-02-03 to 2026-02-05). "
        "Several numbers in one cell are those of seeds 3 and 7.\n"
    )


def test_what_runs_do_not_record_is_left_out(tmp_path):
    folder = world.make(tmp_path, "+exp=baseline", metrics=world.numbers(0))
    for content in ("{", '{"attempts": []}', '{"attempts": [1]}', '{"attempts": [{"hardware": 1, "gpus": 2}]}'):
        (folder / "provenance.json").write_text(content)
        (evidence,) = group(find([tmp_path]))
        told = conditions(evidence)
        assert told.endswith("16 epochs, float32). Seed 0."), told


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
    assert "9.9" in (pages / "README.md").read_text()
    assert [path.name for path in pages.iterdir()] == ["README.md"]


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
