"""What a finished run hands to Weights & Biases: numbers, pictures, tables, volumes, artifacts.

Everything is read from the run's folder, so that a run may be logged again without being trained again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.runs.epoch_log import read_log
from experiments.runs.run import Run
from lightning_modules.files.safe_numpy import load_npz

if TYPE_CHECKING:
    import wandb

ROWS = 10_000  # of the table of latents, drawn at random beyond
VOLUMES = ("first_*.mrc", "original_*.mrc", "altered_*.mrc")
# What an artifact of a type holds; a run has those that apply to it.
ARTIFACTS = {
    "latents": ("latents.npz", "latent_map.npz"),
    "weights": ("cryodrgn/weights.pkl", "cryodrgn/config.yaml", "config.yaml"),
    "volumes": ("volumes/*.mrc", "volumes/index.json"),
}


def log_all(experiment: wandb.Run, run: Run, metrics: dict[str, Any], figures: Sequence[Path]) -> None:
    """Log what is known at the end of a run.

    Args:
        experiment: the open W&B run.
        run: its folder holds latents, volumes and weights.
        metrics: become the summary, where they can be plotted across runs, and a table; None values are left out.
        figures: PNG files, shown as figures/NAME.
    """
    import wandb

    known = {name: value for name, value in metrics.items() if value is not None}
    media: dict[str, Any] = {f"figures/{path.stem}": wandb.Image(str(path)) for path in figures}
    numbers = [[name, float(value)] for name, value in known.items() if isinstance(value, int | float)]
    media["tables/metrics"] = wandb.Table(["metric", "value"], numbers)
    if (run.folder / "latents.npz").exists():
        media["tables/latents"] = latents_table(run)
    with _staged_in(run.folder / "wandb"), tempfile.TemporaryDirectory() as folder:
        media |= {f"volumes/{name}": wandb.Object3D(str(path)) for name, path in surfaces_of(run, Path(folder))}
        # In the last epoch's row, also where a resumed run had nothing left to train. Committed, or the row would
        # come after the summary and put the last epoch's time in place of the mean.
        experiment.log(media, step=len(read_log(run.folder / "log.csv")) or None, commit=True)
        for kind in ARTIFACTS:
            artifact = artifact_of(run, experiment.id, kind)
            if artifact is not None:
                experiment.log_artifact(artifact)
    experiment.summary.update(known)


@contextmanager
def _staged_in(folder: Path) -> Iterator[None]:
    """Let wandb keep what waits for its upload with the run, not in the user's home."""
    name = "WANDB_DATA_DIR"
    before = os.environ.get(name)
    os.environ[name] = before or str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]


def latents_table(run: Run) -> wandb.Table:
    """Return one row per particle: index, mu, place on the map, and the true conformation where it is known."""
    import wandb

    columns: dict[str, Any] = {}
    stored = load_npz(run.folder / "latents.npz")
    mu = stored["mu"]
    columns["particle"] = stored["index"] if "index" in stored else np.arange(len(mu))
    columns |= {f"mu_{d + 1}": mu[:, d] for d in range(mu.shape[1])}
    columns |= {name: array for name, array in stored.items() if array.shape == (len(mu),)}
    columns.pop("index", None)
    mapped = run.folder / "latent_map.npz"
    if mapped.exists():
        xy = load_npz(mapped)["xy"]
        if len(xy) == len(mu):
            columns |= {"map_x": xy[:, 0], "map_y": xy[:, 1]}
    rows = np.arange(len(mu))
    if len(rows) > ROWS:
        rows = np.sort(np.random.default_rng(0).choice(rows, ROWS, replace=False))
    return wandb.Table(list(columns), [[column[i].item() for column in columns.values()] for i in rows])


def surfaces_of(run: Run, folder: Path) -> Iterator[tuple[str, Path]]:
    """Write the isosurfaces of a run's volumes as .obj files, all at one threshold; yield name and file."""
    from experiments.volumes.isosurface import mesh, threshold_of
    from lightning_modules.files.mrc_headers import read_volume

    paths = [path for pattern in VOLUMES for path in sorted((run.folder / "volumes").glob(pattern))]
    volumes = [read_volume(path) for path in paths]
    if not volumes:
        return
    threshold = threshold_of(volumes)
    for path, volume in zip(paths, volumes, strict=True):
        vertices, faces = mesh(volume, threshold)
        if len(faces):
            written = folder / f"{path.stem}.obj"
            corners = [f"v {x:.3f} {y:.3f} {z:.3f}" for x, y, z in vertices]
            triangles = [f"f {a} {b} {c}" for a, b, c in faces + 1]
            written.write_text("\n".join([*corners, *triangles]) + "\n", encoding="utf-8")
            yield path.stem, written


def artifact_of(run: Run, run_id: str, kind: str) -> wandb.Artifact | None:
    """Return the files of a type as an artifact named after the run; None where the run has none of them."""
    import wandb

    found = [path for pattern in ARTIFACTS[kind] for path in sorted(run.folder.glob(pattern))]
    if not found:
        return None
    about = {"experiment": str(run.config.name), "seed": int(run.config.seed), "data": str(run.config.data.name)}
    artifact = wandb.Artifact(f"{run_id}-{kind}", type=kind, metadata=about)
    for path in found:
        artifact.add_file(str(path), name=str(path.relative_to(run.folder)))
    return artifact
