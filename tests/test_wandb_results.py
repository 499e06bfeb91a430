"""What W&B's own reader finds of a finished run is what is in the run's folder."""

import json
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from experiments.runs.run import Run
from experiments.tracking import loggers, wandb_results
from experiments.volumes.files import write_mrc
from tests.test_loggers import history, no_key, of_kind, records, run_of, tracker_of

__all__ = ["no_key"]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
METRICS = {"loss/total": 0.5, "volumes/diversity": 0.25, "latents/knn_hinge_r2": None}


def ball(radius_px: float) -> np.ndarray:
    grid = np.mgrid[-8:8, -8:8, -8:8]
    return np.exp(-np.sum(grid**2, axis=0) / (2 * radius_px**2)).astype(np.float32)


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[dict[str, Any]]]:
    tmp_path = tmp_path_factory.mktemp("logged")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "settings"))
        run = run_of(tmp_path, "seed=2")
        tracker = tracker_of(run)
        rng = np.random.default_rng(0)
        mu = rng.standard_normal((12, 3)).astype(np.float32)
        np.savez(run.folder / "latents.npz", mu=mu, logvar=mu - 5, index=np.arange(12), state=np.arange(12) % 4)
        np.savez(run.folder / "latent_map.npz", xy=mu[:, :2], key="x")
        for i in (1, 2):
            write_mrc(run.folder / "volumes" / f"first_{i}.mrc", ball(1 + i), 3.0)
        (run.folder / "cryodrgn").mkdir()
        (run.folder / "cryodrgn" / "weights.pkl").write_bytes(b"weights")
        picture = tmp_path / "latent_space.png"
        matplotlib.image.imsave(picture, rng.uniform(size=(5, 4)))
        loggers.log_results(tracker, run, METRICS, [picture])
        loggers.close(tracker)
        return run, records(run)[0]


def media(logged: tuple[Run, list[dict[str, Any]]], key: str) -> Path:
    """The file that the history names under a key."""
    run, written = logged
    (relative,) = [row[f"{key}.path"] for row in history(written) if f"{key}.path" in row]
    (path,) = run.folder.glob(f"wandb/offline-run-*/files/{relative}")
    return path


def test_the_summary_holds_every_number_and_no_null(logged: Any):
    summary: dict[str, Any] = {}
    for record in of_kind(logged[1], "summary"):
        summary |= record["update"]
    assert (summary["loss/total"], summary["volumes/diversity"]) == (0.5, 0.25)
    assert "latents/knn_hinge_r2" not in summary


def test_the_picture_is_the_picture_and_not_black(logged: Any):
    picture = matplotlib.image.imread(media(logged, "figures/latent_space"))
    assert picture.shape[:2] == (5, 4) and picture[..., :3].std() > 0.1


def test_the_table_of_latents_has_a_row_per_particle_with_its_mu_place_and_state(logged: Any):
    table = json.loads(media(logged, "tables/latents").read_text())
    with np.load(logged[0].folder / "latents.npz") as stored:
        mu = stored["mu"]
    assert table["columns"] == ["particle", "mu_1", "mu_2", "mu_3", "state", "map_x", "map_y"]
    rows = np.array(table["data"])
    np.testing.assert_allclose(rows[:, 1:4], mu, rtol=1e-6)
    np.testing.assert_allclose(rows[:, 5:], mu[:, :2], rtol=1e-6)
    assert rows[:, 4].tolist() == (np.arange(12) % 4).tolist()


def test_the_table_of_metrics_holds_them(logged: Any):
    table = json.loads(media(logged, "tables/metrics").read_text())
    assert dict(table["data"]) == {"loss/total": 0.5, "volumes/diversity": 0.25}


def test_volumes_are_closed_surfaces(logged: Any):
    for name in ("first_1", "first_2"):
        lines = media(logged, f"volumes/{name}").read_text().splitlines()
        corners = [line for line in lines if line.startswith("v ")]
        triangles = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
        assert triangles.min() == 1 and triangles.max() == len(corners)
        edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
        assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()


def test_latents_weights_and_volumes_are_artifacts_kept_with_the_run(logged: Any):
    run, written = logged
    found = {artifact["type"]: artifact for artifact in of_kind(written, "artifact")}
    assert set(found) == {*wandb_results.ARTIFACTS, "run_table"}
    held = {kind: {entry["path"] for entry in found[kind]["manifest"]["contents"]} for kind in found}
    assert held["latents"] == {"latents.npz", "latent_map.npz"}
    assert held["weights"] == {"cryodrgn/weights.pkl"}
    assert held["volumes"] == {"volumes/first_1.mrc", "volumes/first_2.mrc"}
    for artifact in of_kind(written, "artifact"):
        for entry in artifact["manifest"]["contents"]:
            assert run.folder in Path(entry["local_path"]).parents


def test_a_large_table_is_a_sample_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wandb_results, "ROWS", 5)
    run = run_of(tmp_path)
    run.folder.mkdir(parents=True)
    np.savez(run.folder / "latents.npz", mu=np.arange(20.0)[:, None], logvar=np.zeros((20, 1)), index=np.arange(20))
    rows = np.array(wandb_results.latents_table(run).data)
    assert len(rows) == 5 and (np.diff(rows[:, 0]) > 0).all() and np.array_equal(rows[:, 0], rows[:, 1])
