"""Every experiment composes, differs from the baseline where its file says, and has the identity it should."""

import re
from functools import cache
from pathlib import Path

import hydra
import pytest
import yaml
from hydra import initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from experiments.configuration import schema, validation
from experiments.configuration.compose import CONF_DIR, compose, to_dict
from experiments.configuration.error_messages import one_line
from experiments.configuration.identity import identity as identity_of
from experiments.configuration.identity import source_of
from lightning_modules.errors import InputError

EXPERIMENTS = sorted(path.stem for path in (CONF_DIR / "exp").glob("*.yaml"))
OWN_DATA = ("data=cryodrgn", "data.particles=p.mrcs", "data.poses=poses.pkl", "data.ctf=ctf.pkl")
DATA: dict[str, tuple[str, ...]] = {"simulated": (), "cryodrgn": OWN_DATA, "empiar10076": ("data=empiar10076",)}

TABLE, ENCODER = "LookupTable", "AmortizedEncoder"
# latents, encoder input, encoder (layers, width), zdim, and what else: the grid of the paper.
GRID = {
    "baseline": (ENCODER, "IdentityInput", (3, 256), 8, {}),
    "baseline_large": (ENCODER, "IdentityInput", (5, 1024), 8, {}),
    "baseline_small": (ENCODER, "IdentityInput", (2, 256), 2, {}),
    "evil_twin_permuted": (ENCODER, "PermutedTwin", (3, 256), 8, {}),
    "evil_twin_permuted_large": (ENCODER, "PermutedTwin", (5, 1024), 8, {}),
    "evil_twin_permuted_small": (ENCODER, "PermutedTwin", (2, 256), 2, {}),
    "evil_twin_noise": (ENCODER, "NoiseTwin", (5, 1024), 8, {}),
    "evil_twin_noise_standard": (ENCODER, "NoiseTwin", (3, 256), 8, {}),
    "shift_1px": (ENCODER, "ShiftedInput", (3, 256), 8, {"dx_px": 1, "dy_px": 0, "source": "baseline"}),
    "rotate_90": (ENCODER, "RotatedInput", (3, 256), 8, {"clockwise_deg": 90, "source": "baseline"}),
    "shift_1px_consistent": (
        ENCODER, "ShiftedInput", (3, 256), 8,
        {"dx_px": 1, "dy_px": 0, "source": "baseline", "metadata": "ConsistentMetadata"},
    ),
    "rotate_90_consistent": (
        ENCODER, "RotatedInput", (3, 256), 8,
        {"clockwise_deg": 90, "source": "baseline", "metadata": "ConsistentMetadata"},
    ),
    "vlt_random": (TABLE, "IdentityInput", None, 8, {"init": "RandomLatents", "frozen": False}),
    "vlt_random_frozen": (TABLE, "IdentityInput", None, 8, {"init": "RandomLatents", "frozen": True}),
    "vlt_random_clusters": (TABLE, "IdentityInput", None, 8, {"init": "RandomClusters", "frozen": False}),
    "vlt_zero": (TABLE, "IdentityInput", None, 8, {"init": "ConstantLatents", "frozen": False}),
    "vlt_zero_frozen": (TABLE, "IdentityInput", None, 8, {"init": "ConstantLatents", "frozen": True}),
    "vlt_pretrained": (TABLE, "IdentityInput", None, 8, {"init": "PretrainedLatents", "frozen": False}),
    "vlt_pretrained_frozen": (TABLE, "IdentityInput", None, 8, {"init": "PretrainedLatents", "frozen": True}),
    "augmented_encoder": (ENCODER, "AugmentedInput", (3, 256), 8, {}),
    "augmented_heldout": (ENCODER, "AugmentedInput", (3, 256), 8, {"task": "HeldOut"}),
    "infer": (ENCODER, "IdentityInput", (3, 256), 8, {"task": "Infer", "source": "baseline"}),
    "heldout": (ENCODER, "IdentityInput", (3, 256), 8, {"task": "HeldOut"}),
    "heldout_vlt": (TABLE, "IdentityInput", None, 8, {"task": "HeldOut", "init": "ConstantLatents", "frozen": False}),
    "vlt_permuted": (TABLE, "IdentityInput", None, 8, {"init": "PermutedLatents", "frozen": False}),
}  # fmt: skip
NEEDS_BASELINE = (
    "shift_1px",
    "rotate_90",
    "shift_1px_consistent",
    "rotate_90_consistent",
    "infer",
    "vlt_pretrained",
    "vlt_pretrained_frozen",
    "vlt_permuted",
)


@cache
def checked(*overrides: str) -> DictConfig:
    return validation.check(compose(*overrides))


@cache
def identity(*overrides: str) -> str:
    return identity_of(checked(*overrides))


def target(node: DictConfig) -> str:
    return str(node._target_).rpartition(".")[2]


def text_of(experiment: str) -> str:
    return (CONF_DIR / "exp" / f"{experiment}.yaml").read_text()


def test_the_grid_is_complete() -> None:
    assert set(GRID) <= set(EXPERIMENTS)


ON_DATA = [
    *((experiment, data) for experiment in GRID for data in ("simulated", "empiar10076")),
    *(
        (experiment, "cryodrgn")
        for experiment in ("baseline", "evil_twin_permuted_small", "rotate_90", "vlt_zero_frozen")
    ),
]


@pytest.mark.parametrize(("experiment", "data"), ON_DATA)
def test_experiment_is_what_the_paper_says_on_every_data_set(experiment: str, data: str) -> None:
    config = checked(f"+exp={experiment}", *DATA[data])
    latents, encoder_input, encoder, zdim, more = GRID[experiment]
    assert (target(config.latents), target(config.encoder_input), config.zdim) == (latents, encoder_input, zdim)
    assert config.data.name == data
    if encoder:
        assert (config.latents.layers, config.latents.width, config.latents.activation) == (*encoder, "relu")
    if "init" in more:
        assert (target(config.latents.init), config.latents.frozen) == (more["init"], more["frozen"])
    for key in ("dx_px", "dy_px", "clockwise_deg"):
        assert config.encoder_input.get(key) == more.get(key)
    assert target(config.metadata) == more.get("metadata", "PaperMetadata")
    assert target(config.task) == more.get("task", "AmortizationTest" if "source" in more else "Train")
    assert config.task.get("source") == more.get("source")
    assert (config.decoder.layers, config.decoder.width, config.decoder.pe_type) == (3, 256, "geom_lowf")
    assert (config.decoder.domain, config.decoder.pe_dim) == ("fourier", None)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_file_names_itself_its_package_and_its_origin(experiment: str) -> None:
    first, second = text_of(experiment).splitlines()[:2]
    assert first == "# @package _global_"
    assert second.startswith("# ") and second.endswith(".")
    assert re.search(
        r"Fig \d|Table \d|authors' code|A control that the paper lacks|Beyond the paper", text_of(experiment)
    )
    assert yaml.safe_load(text_of(experiment))["name"] == experiment


@pytest.mark.parametrize("experiment", GRID)
def test_experiment_differs_from_the_baseline_only_where_its_file_says(experiment: str) -> None:
    ours, baseline = (to_dict(checked(*args)) for args in ((f"+exp={experiment}",), ()))
    said = yaml.safe_load(text_of(experiment))
    slots = {key.removeprefix("override /") for choice in said.pop("defaults", []) for key in choice}
    slots = {slot.partition("/")[0] for slot in slots} | said.keys()
    if "encoder" in slots:
        slots.add("latents")  # the amortized encoder takes its size from there
    assert {key for key in ours if ours[key] != baseline[key]} <= slots
    assert said["name"] == ours["name"]
    for slot in slots - {"latents"}:
        assert ours[slot] != baseline[slot] or experiment == "baseline"


def test_without_an_experiment_it_is_the_baseline() -> None:
    assert checked() == checked("+exp=baseline")
    assert identity() == identity("+exp=baseline")


def test_the_papers_settings_on_the_papers_data() -> None:
    config = checked("data=empiar10076")
    assert (config.batch_size, config.lr, config.weight_decay, config.zdim) == (8, 1e-4, 0, 8)
    assert (config.trainer.max_epochs, config.table_lr) == (50, 1e-3)
    assert (config.data.window, config.data.window_r, config.data.invert) == (True, 0.85, True)
    assert (config.beta, config.beta_control) == (None, None)
    table = checked("data=empiar10076", "+exp=vlt_random").latents.init
    assert (table.mu_mean, table.mu_std, table.logvar_mean, table.logvar_std) == (-0.05, 1.494, -5.47, 0.715)
    assert checked("+exp=vlt_zero").latents.init.logvar == -8


def test_ones_own_values_win_over_those_of_the_data_set_and_the_experiment() -> None:
    config = checked("+exp=baseline_small", "data=empiar10076", "lr=3e-4", "zdim=3", "trainer.max_epochs=7")
    assert (config.lr, config.zdim, config.trainer.max_epochs) == (3e-4, 3, 7)


def test_all_experiments_have_different_identities() -> None:
    identities = [identity(f"+exp={experiment}") for experiment in GRID]
    assert len(set(identities)) == len(GRID)


IRRELEVANT = [
    "logger=wandb",
    "paths.runs=/elsewhere",
    "paths.cache=/elsewhere",
    "trainer.accelerator=cpu",
    "trainer=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.checkpoint_every_s=1",
    "trainer.capture=true",
    "data.residency=disk",
    "data.cache_images=true",
    "data.cache_dir=/elsewhere",
    "data.name=other",
    "overwrite=true",
    "name=other",
    "table_lr=0.3",
    "metadata=consistent",
    "encoder_input=identity",
    "precision=float32",
    "trainer.native=false",
]


@pytest.mark.parametrize("override", IRRELEVANT)
def test_identity_does_not_depend_on(override: str) -> None:
    assert identity("precision=float32", override) == identity("precision=float32")


DECISIVE = [
    "seed=1", "lr=2e-4", "batch_size=16", "zdim=4", "precision=bfloat16", "weight_decay=0.1", "beta=0.5", "beta=a",
    "beta_control=1", "trainer.max_epochs=3", "data.snr=0.2", "data.n_particles=100", "data.seed=1", "data.box_px=64",
    "encoder_input=permuted_twin", "encoder_input=noise_twin", "encoder=large", "encoder.width=128",
    "encoder.activation=leaky_relu", "latents=lookup_table", "decoder.pe_type=gaussian", "decoder.width=128",
    "decoder.domain=hartley",
]  # fmt: skip


def test_identity_depends_on_everything_that_decides_the_numbers() -> None:
    identities = [identity("precision=float32", override) for override in DECISIVE]
    assert len({identity("precision=float32"), *identities}) == len(DECISIVE) + 1


def test_table_lr_decides_for_trained_tables_alone() -> None:
    for experiment, matters in (("vlt_zero", True), ("vlt_zero_frozen", False), ("evil_twin_noise", False)):
        assert (identity(f"+exp={experiment}") != identity(f"+exp={experiment}", "table_lr=0.3")) == matters


def test_encoder_size_does_not_decide_for_tables() -> None:
    assert identity("+exp=vlt_zero") == identity("+exp=vlt_zero", "encoder=large")


def test_identity_depends_on_the_run_that_is_needed() -> None:
    # A table does not depend on the encoder's size, but the baseline that it starts from does.
    assert identity("+exp=vlt_pretrained") != identity("+exp=vlt_pretrained", "encoder=large")


def test_the_same_name_in_another_folder_is_another_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        checked.cache_clear()
        found.append(identity_of(checked(*OWN_DATA)))
        absolute = [value.replace("=", f"={Path.cwd()}/") for value in OWN_DATA[1:]]
        assert identity("data=cryodrgn", *absolute) == found[-1]
    checked.cache_clear()
    assert found[0] != found[1]


OVERRIDES = [
    (),
    ("encoder=large",),
    ("zdim=4", "seed=3", "lr=1e-3", "batch_size=4"),
    ("beta=a", "beta_control=2", "weight_decay=0.1"),
    ("trainer.max_epochs=3", "trainer=cpu"),
    ("precision=float32", "decoder.pe_type=gaussian", "decoder.width=64"),
    ("data.n_particles=50", "data.snr=1", "data.seed=2", "data.name=mine", "paths.runs=/elsewhere"),
    OWN_DATA,
    (*OWN_DATA, "data.name=mine", "encoder.width=100"),
    ("data=empiar10076", "data.n_particles=100", "lr=5e-5"),
]


NEEDED = [
    *(("vlt_pretrained_frozen", overrides) for overrides in OVERRIDES),
    *(("shift_1px", overrides) for overrides in (OVERRIDES[1], OVERRIDES[-2])),
]


@pytest.mark.parametrize(("experiment", "overrides"), NEEDED)
def test_the_baseline_that_is_needed_is_the_one_of_the_same_command_line(
    experiment: str, overrides: tuple[str, ...]
) -> None:
    needed = source_of(checked(f"+exp={experiment}", *overrides))
    baseline = checked(*overrides)
    assert isinstance(needed, DictConfig)
    assert identity_of(needed) == identity_of(baseline)
    assert (needed.name, needed.data.name, needed.paths.runs) == ("baseline", baseline.data.name, baseline.paths.runs)
    assert needed.trainer == baseline.trainer


def test_only_these_experiments_need_another_run_and_it_is_the_baseline() -> None:
    for experiment in GRID:
        needed = source_of(checked(f"+exp={experiment}"))
        assert (needed is not None) == (experiment in NEEDS_BASELINE)
        assert needed is None or (isinstance(needed, DictConfig) and identity_of(needed) == identity())


def test_a_needed_run_keeps_what_its_own_file_sets() -> None:
    needed = source_of(checked("+exp=vlt_pretrained", "latents.init.source=baseline_small", "zdim=2", "seed=5"))
    assert isinstance(needed, DictConfig)
    assert identity_of(needed) == identity("+exp=baseline_small", "seed=5")
    needed = source_of(checked("+exp=shift_1px", "task.source=evil_twin_noise", "encoder=small", "seed=5"))
    assert isinstance(needed, DictConfig)
    assert identity_of(needed) == identity("+exp=evil_twin_noise", "seed=5")


@pytest.mark.parametrize("experiment", ["evil_twin_noise", "rotate_90", "vlt_permuted", "vlt_zero_frozen"])
def test_a_written_configuration_is_read_back_with_its_identity_and_source(experiment: str, tmp_path: Path) -> None:
    config = checked(f"+exp={experiment}", "encoder=small", "seed=2")
    OmegaConf.save(config, tmp_path / "config.yaml")
    found = OmegaConf.load(tmp_path / "config.yaml")
    assert isinstance(found, DictConfig)
    assert identity_of(found) == identity_of(config)
    assert to_dict(found) == to_dict(config)


def test_a_finished_run_may_be_named_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "metrics.json").write_text("{}")
    config = checked("+exp=vlt_pretrained", f"latents.init.source={tmp_path}")
    assert source_of(config) == tmp_path
    assert identity_of(config) != identity("+exp=vlt_pretrained")


@pytest.mark.parametrize("override", ["task.source=nobody", "latents.init.source=nobody"])
def test_a_needed_run_that_does_not_exist_is_named(override: str) -> None:
    experiment = "shift_1px" if override.startswith("task") else "vlt_permuted"
    with pytest.raises(InputError, match="source=nobody: neither an experiment"):
        identity(f"+exp={experiment}", override)


OUT_OF_RANGE = {
    "trainer.max_epochs=0": "trainer.max_epochs=0: expected at least 1",
    "lr=0": "lr=0.0: expected a value above 0",
    "lr=-1": "lr=-1.0: expected a value above 0",
    "lr=nan": "lr=nan: expected a finite number",
    "seed=-1": "seed=-1: expected at least 0",
    "batch_size=0": "batch_size=0: expected at least 1",
    "zdim=0": "zdim=0: expected at least 1",
    "data.snr=0": "data.snr=0.0: expected a value above 0",
    "data.n_particles=0": "data.n_particles=0: expected at least 1",
    "decoder.layers=0": "decoder.layers=0: expected at least 1",
    "decoder.pe_dim=1": "decoder.pe_dim=1: expected at least 2",
    "decoder.pe_type=geom": "decoder.pe_type=geom: expected one of geom_lowf, geom_ft",
    "decoder.activation=gelu": "decoder.activation=gelu: expected one of relu, leaky_relu",
    "data.residency=tape": "data.residency=tape: expected one of memory, disk",
    "data=cryodrgn": "data.particles is not set",
    "+lrr=3": "lrr: there is no such key",
    "+trainer.epochs=3": "trainer.epochs: there is no such key",
    "~lr": "lr was deleted",
}


@pytest.mark.parametrize("override", OUT_OF_RANGE)
def test_a_value_out_of_range_is_refused_by_its_key(override: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(OUT_OF_RANGE[override])}"):
        checked(override)


@pytest.mark.parametrize(
    ("override", "experiment"),
    [("latents.init.mu_std=-1", "vlt_random"), ("latents.init.n_clusters=0", "vlt_random_clusters")],
)
def test_a_value_out_of_range_in_the_tables_start_is_refused_by_its_key(override: str, experiment: str) -> None:
    with pytest.raises(InputError, match=f"^{override.partition('=')[0]}=.*expected at least"):
        checked(f"+exp={experiment}", override)


BAD_FILES = {
    "misspelt": ("seeed: 3", "seeed: .*exp/bad.*Did you mean seed"),
    "misspelt_deeper": ("trainer:\n  max_epoch: 3", "trainer.max_epoch: .*exp/bad.*Did you mean max_epochs"),
    "wrong_type": ("lr: fast", "lr: .*exp/bad.*'fast'"),
    "wrong_type_deeper": ("trainer:\n  max_epochs: many", "trainer.max_epochs: .*exp/bad.*'many'"),
    "of_another_slot": ("latents:\n  frozen: true", "latents.frozen: .*exp/bad.*not in 'EncoderLatents'$"),
    "unknown_choice": ("defaults:\n  - override /latents: tabel", "Could not find 'latents/tabel'.*lookup_table"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_mistake_in_an_experiment_file_is_an_error_that_names_the_key(kind: str, tmp_path: Path) -> None:
    content, message = BAD_FILES[kind]
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "bad.yaml").write_text(f"# @package _global_\n{content}\nname: bad\n")
    schema.register()
    with (
        initialize_config_dir(str(CONF_DIR), version_base="1.3"),
        pytest.raises(Exception) as raised,
    ):
        hydra.compose("config", ["+exp=bad", f"hydra.searchpath=[file://{tmp_path}]"])
    assert re.search(message, one_line(raised.value))


def test_a_forgotten_package_line_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "exp").mkdir()
    (tmp_path / "exp" / "bad.yaml").write_text("name: bad\nlr: 1\n")
    schema.register()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"), pytest.raises(Exception) as raised:
        hydra.compose("config", ["+exp=bad", f"hydra.searchpath=[file://{tmp_path}]"])
    assert re.search("^exp: .*exp/bad", one_line(raised.value))
