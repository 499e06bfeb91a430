"""What is on the page: gathered from finished runs alone; what is missing is said."""

import csv
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.claims import paper_claims
from experiments.claims.comparable_runs import ComparableRuns, describe, group
from experiments.claims.paper_experiments import IN_THE_PAPER, about, place
from experiments.claims.wording import Verdicts
from experiments.configuration.compose import compose
from experiments.configuration.overrides import command_line, overrides_of
from experiments.report import captions
from experiments.report.captions import Caption
from experiments.report.curves import loss_curves
from experiments.report.heldout import HeldOut, augmentation, held_out
from experiments.report.numbers import Table, labelled, table
from experiments.report.pictures import THUMBNAIL_PX, Picture, data_uri, encode, encode_all, named, read
from experiments.report.surfaces import Volumes, draw
from experiments.runs.folders import FINISHED, RunFolder
from experiments.runs.run import Run
from lightning_modules.files.regular_files import read_bytes

# Of several figures the one that stands for a run among all.
FIRST_FIGURES = ("latent_space", "displaced_latents", "single_volume")


@dataclass(frozen=True)
class Section:
    """A run on the page.

    Attributes:
        anchor: of links to it.
        run: as found.
        about: what the experiment's file says.
        caption: what the paper says of it, and what was found here; None for what is not in the paper.
        command: that makes the run again; empty where none does.
        is_exact: whether the suite, as it is now, would find this very run by it.
        figures: name in words, and picture.
        volumes: pictures of them, and surfaces that turn; None where there are none.
        numbers: label and text of each metric.
        config: as YAML.
        log: log.csv as a URI; empty where there is none.
    """

    anchor: str
    run: RunFolder
    about: str
    caption: Caption | None
    command: str
    is_exact: bool
    figures: list[tuple[str, Picture]]
    volumes: Volumes | None
    numbers: list[tuple[str, str]]
    config: str
    log: str


@dataclass(frozen=True)
class Cell:
    """An experiment among the small multiples."""

    name: str
    anchor: str
    about: str
    caption: Caption | None
    picture: Picture | None
    numbers: list[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """The runs of one data set and setting."""

    title: str
    cells: list[Cell]
    curves: dict[str, Any]


@dataclass(frozen=True)
class Contents:
    """All that the page shows, in its order."""

    made: str
    n_finished: int
    verdicts: list[Verdicts]
    held_out: list[HeldOut]
    augmentation: list[tuple[str, str, str]]
    problems: list[RunFolder]
    missing: list[str]
    groups: list[Group]
    table: Table
    sections: list[Section]
    downloads: list[tuple[str, str]]


def gather(found: Sequence[RunFolder]) -> Contents:
    """Collect everything.

    Args:
        found: runs in any state.

    Returns:
        What the page shows.
    """
    runs = sorted(found, key=lambda run: (place(run.name), run.seed or 0, str(run.folder)))
    anchors = {run.folder: f"run-{number}" for number, run in enumerate(runs, 1)}
    finished = [run for run in runs if run.status == FINISHED]
    pictures = encode_all(path for run in runs for path in _figure_paths(run))
    volumes = draw(finished, anchors)
    are_audits_alone = all(run.config.get("audit") for run in runs)  # which say nothing of the paper's claims
    verdicts = [] if are_audits_alone else paper_claims.judge(runs)
    commands = _commands(runs)
    evidence = sorted(group(runs), key=lambda one: not paper_claims.CRYO_EM.intersection(one.runs))
    return Contents(
        made=time.strftime("%Y-%m-%d %H:%M"),
        n_finished=len(finished),
        verdicts=verdicts,
        held_out=[one for run in finished if (one := held_out(run)) is not None],
        augmentation=[row for one in evidence for row in augmentation(one)],
        problems=[run for run in runs if run.status != FINISHED],
        missing=[] if are_audits_alone else _missing(evidence),
        groups=[_group(one, anchors) for one in evidence],
        table=table(finished, anchors),
        sections=[
            _section(
                run,
                anchors[run.folder],
                captions.of_run(run, evidence),
                commands.get(run.folder, ("", False)),
                pictures,
                volumes.get(run.folder),
            )
            for run in runs
        ],
        downloads=_downloads(finished, verdicts),
    )


def _missing(groups: Sequence[ComparableRuns]) -> list[str]:
    """Name experiments of the paper that the largest cryo-EM group lacks."""
    largest = next((g for g in groups if set(IN_THE_PAPER) & set(g.runs)), None)
    return [name for name in IN_THE_PAPER if largest is None or not largest.of(name)]


def _group(evidence: ComparableRuns, anchors: dict[Path, str]) -> Group:
    cells = []
    for name in sorted(evidence.runs, key=place):
        run = next(iter(evidence.of(name).values()))
        paths = _figure_paths(run)
        image = read(paths[0]) if paths else None
        picture = encode(image, f"{named(paths[0])} of {name}", THUMBNAIL_PX) if image else None
        caption = captions.of_experiment(name, evidence)
        cells.append(Cell(run.label, anchors[run.folder], about(name), caption, picture, labelled(run, brief=True)))
    everything = [run for by_seed in evidence.runs.values() for run in by_seed.values()]
    return Group(describe(evidence), cells, loss_curves(everything))


def _figure_paths(run: RunFolder) -> list[Path]:
    """Return the figures of a run, those that stand for it first."""

    def order(path: Path) -> tuple[int, str]:
        known = path.stem in FIRST_FIGURES
        return (FIRST_FIGURES.index(path.stem) if known else len(FIRST_FIGURES), path.name)

    return sorted((run.folder / "figures").glob("*.png"), key=order)


def _section(
    run: RunFolder,
    anchor: str,
    caption: Caption | None,
    command: tuple[str, bool],
    pictures: dict[Path, Picture],
    volumes: Volumes | None,
) -> Section:
    log = run.folder / "log.csv"
    return Section(
        anchor=anchor,
        run=run,
        about=about(run.name),
        caption=caption,
        command=command[0],
        is_exact=command[1],
        figures=[(named(path), pictures[path]) for path in _figure_paths(run) if path in pictures],
        volumes=volumes,
        numbers=labelled(run),
        config=OmegaConf.to_yaml(OmegaConf.create(run.config)) if run.config else "",
        log=data_uri(read_bytes(log, "a log"), "text/csv") if run.rows else "",
    )


def _commands(runs: Sequence[RunFolder]) -> dict[Path, tuple[str, bool]]:
    """Return the command that makes each run again, and whether it leads to the run's very identity.

    That is tried on one of the runs that differ in nothing but the seed. A run that no overrides lead to has none.
    """
    leads: dict[tuple[str, ...], bool] = {}
    commands = {}
    for run in runs:
        try:
            overrides = overrides_of(run.config)
            but_seed = tuple(text for text in overrides if not text.startswith("seed="))
            if but_seed not in leads:
                here = f"trainer.accelerator={run.config['trainer']['accelerator']}"
                leads[but_seed] = Run.of(compose(*overrides, here)).folder.name == run.folder.name
        except Exception:  # ours, or Hydra's of a configuration that another version of the suite has written
            continue
        commands[run.folder] = command_line(overrides), leads[but_seed]
    return commands


def _downloads(finished: Sequence[RunFolder], verdicts: Sequence[Verdicts]) -> list[tuple[str, str]]:
    """Return file names and URIs: all final numbers, all epochs, all findings."""
    who = [{"experiment": run.label, "seed": run.seed, "folder": run.folder.name} for run in finished]
    numbers = [{**one, **run.metrics} for one, run in zip(who, finished, strict=True)]
    epochs = [{**one, **row} for one, run in zip(who, finished, strict=True) for row in run.rows]
    findings = [
        {"setting": one.setting, "claim": claim["claim"], "claim verdict": claim["verdict"], **finding}
        for one in verdicts
        for claim in one.to_json()["claims"]
        for finding in claim["findings"]
    ]
    files = {"metrics.csv": numbers, "epochs.csv": epochs, "claims.csv": findings}
    return [(name, data_uri(_csv(rows), "text/csv")) for name, rows in files.items() if rows]


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _plain(value) for name, value in row.items()} for row in rows])
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    """Write several numbers into one cell; a text that a spreadsheet would take for a formula is quoted."""
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@")):
        return f"'{value}"
    return value
