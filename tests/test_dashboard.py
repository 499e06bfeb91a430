"""The dashboard asks for what the suite logs, and for nothing else."""

import json
from typing import Any

import pytest

from experiments.tracking import dashboard

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is not installed")


def described() -> dict[str, Any]:
    view = dashboard.workspace("team", "project")._to_model()
    return json.loads(view.model_dump_json(by_alias=True))


def test_each_section_shows_its_numbers_and_pictures():
    text = json.dumps(described())
    for name, parts in dashboard.SECTIONS.items():
        assert f'"{name}"' in text
        for key in (key for part in parts for key in part):
            assert f'"{key}"' in text, key


def test_curves_run_over_epochs_and_runs_are_coloured_by_experiment():
    sections = {section.name: section for section in dashboard.workspace("team", "project").sections}
    curves = [panel for panel in sections["Losses"].panels if type(panel).__name__ == "LinePlot"]
    assert [str(curve.x) for curve in curves] and all("epoch" in str(curve.x) for curve in curves)
    assert [str(key.name) for key in dashboard.workspace("team", "project").runset_settings.groupby] == ["name"]


def test_without_a_key_one_line_says_what_to_do(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name in ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert dashboard.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "wandb login" in line
