"""What a user waits for before anything is computed."""

import copy
import subprocess
import sys
from pathlib import Path

from hydra.core.config_store import ConfigStore

from experiments.configuration.compose import compose

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "numpy", "cryodrgn", "pytorch_lightning", "scipy", "sklearn", "matplotlib", "wandb", "umap", "ray"}


def test_help_imports_nothing_heavy() -> None:
    command = [sys.executable, "-X", "importtime", ROOT / "run.py", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "evil_twin_noise" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "hydra" in imported and not imported & HEAVY


def test_composing_leaves_the_schemas_as_they_are() -> None:
    """Hydra's store is not copied; what it hands out is."""
    compose("+exp=vlt_zero", "latents.init.logvar=-1", "lr=1")
    assert copy.deepcopy(ConfigStore.instance()) is ConfigStore.instance()
    schema = ConfigStore.instance().load("schema/config.yaml").node
    schema.lr = 3.0
    assert compose("+exp=vlt_zero").lr == compose().lr != 3.0
    assert compose("+exp=vlt_zero").latents.init.logvar == -8
