"""Parts of the user's own: trusted where a configuration file names them, known by their code, exported honestly."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from experiments.configuration.compose import compose
from experiments.configuration.identity import identity
from experiments.configuration.validation import check
from experiments.runs.execution import execute
from experiments.sweeps.planning import Refused, wanted
from lightning_modules.errors import InputError
from lightning_modules.latents.encoder import AmortizedEncoder
from tests.tiny import SETTINGS, tiny, trusted

ROOT = Path(__file__).resolve().parents[1]


class Sines(AmortizedEncoder):
    """The weights of cryoDRGN's encoder, applied in another way."""

    def forward(self, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x.sin(), index)


class Wide(AmortizedEncoder):
    """Other layers than cryoDRGN's encoder has."""

    @staticmethod
    def network(n_inputs: int, layers: int, width: int, n_outputs: int, activation: type[nn.Module]) -> nn.Module:
        from cryodrgn.models import ResidLinearMLP

        return ResidLinearMLP(n_inputs, layers + 1, 2 * width, n_outputs, activation)


@pytest.mark.parametrize("encoder", [Sines, Wide])
def test_an_encoder_that_is_not_cryodrgns_is_left_out_of_the_export(tmp_path: Path, encoder: type) -> None:
    from cryodrgn.models import HetOnlyVAE, load_decoder

    with trusted(encoder):
        run = tiny(tmp_path, f"latents._target_={encoder.__module__}.{encoder.__name__}")
    folder = run.folder / "cryodrgn"
    load_decoder(str(folder / "config.yaml"), weights=str(folder / "weights.pkl"))
    with pytest.raises(KeyError):
        HetOnlyVAE.load(str(folder / "config.yaml"), str(folder / "weights.pkl"))
    HetOnlyVAE.load(*(str(tiny(tmp_path).folder / "cryodrgn" / name) for name in ("config.yaml", "weights.pkl")))


def test_a_class_that_no_file_names_is_refused_before_training(tmp_path: Path) -> None:
    overrides = [*SETTINGS, "latents._target_=tests.test_own_parts.Sines", f"paths.runs={tmp_path}/runs"]
    expected = (
        r"latents\._target_=tests\.test_own_parts\.Sines: no configuration file names it, .* write "
        r"conf/latents/mine\.yaml with the line `_target_: tests\.test_own_parts\.Sines`, and choose it by latents=mine"
    )
    with pytest.raises(InputError, match=expected):
        execute(compose(*overrides))
    refused = wanted(overrides, compose(*overrides))
    assert isinstance(refused, Refused) and "no configuration file names it" in refused.reason
    assert not (tmp_path / "runs").exists()


MINE = """
from lightning_modules.latents.encoder import AmortizedEncoder

class Mine(AmortizedEncoder):
    FACTOR = 1
"""


def test_another_class_under_the_same_name_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "my_encoders.py"

    def identity_now() -> str:
        return identity(check(compose(*SETTINGS, "latents._target_=my_encoders.Mine")))

    with pytest.raises(InputError, match=r"_target_: my_encoders\.Mine: no file of such a module was found"):
        identity_now()
    module.write_text(MINE)
    first = identity_now()
    assert identity_now() == first != identity(check(compose(*SETTINGS)))
    module.write_text(MINE.replace("1", "2"))
    assert identity_now() != first


@pytest.mark.slow
def test_a_class_that_a_file_of_the_users_own_folder_names_is_trained(tmp_path: Path) -> None:
    (tmp_path / "conf" / "latents").mkdir(parents=True)
    (tmp_path / "conf" / "latents" / "mine.yaml").write_text("defaults: [encoder]\n_target_: my_encoders.Mine\n")
    (tmp_path / "my_encoders.py").write_text(MINE)
    where = [f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache", "latents=mine"]
    command = [sys.executable, str(ROOT / "run.py"), "--config-dir", str(tmp_path / "conf"), *SETTINGS, *where]
    done = subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(tmp_path), "PATH": ""}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(tmp_path.rglob("metrics.json"))) == 1
