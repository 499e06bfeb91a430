"""Runs of the installed ``cryodrgn train_vae`` are read, reproduced and judged; nothing in them is run or believed."""

import argparse
import html
import json
import pickle
import shutil
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from experiments.audit.measures import ImageCondition, Share, share_of
from experiments.audit.model import model_of, read_state, stored_latents
from experiments.audit.particles import AuditedData, read_unseen, take
from experiments.audit.reproduced import Reproduced, compare
from experiments.audit.settings import Settings
from experiments.audit.verdict import AMORTIZING, BOTH, MEMORIZING, UNKNOWN, judge
from experiments.configuration.compose import compose
from experiments.configuration.validation import check
from experiments.runs.execution import execute
from lightning_modules.errors import InputError
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.particles.particles import load_particles
from lightning_modules.vae.posterior_search import ElboTerms
from tests.particle_sets import ctf, dump, images, rotations, shifts, stack

N, D, N_TRAINED = 80, 24, 50
OLD_RUNS = Path(__file__).parent / "old_runs"
HOSTILE = "<img src=x onerror=alert(1)>"


def train(folder: Path, out: Path, *options: str) -> Path:
    """Train with cryoDRGN on the particles in a folder."""
    from cryodrgn.commands import train_vae

    parser = argparse.ArgumentParser()
    train_vae.add_args(parser)
    given = [str(folder / "p.mrcs"), "--poses", str(folder / "poses.pkl"), "--ctf", str(folder / "ctf.pkl")]
    small = [
        "--enc-dim",
        "16",
        "--dec-dim",
        "16",
        "--enc-layers",
        "1",
        "--dec-layers",
        "1",
        "--no-amp",
        "--no-analysis",
    ]
    train_vae.main(parser.parse_args([*given, *small, "--seed", "0", "-o", str(out), *options]))
    return out


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    stack(folder / "p.mrcs", images(N, D))
    dump(folder / "poses.pkl", (rotations(N), shifts(N)))
    dump(folder / "ctf.pkl", ctf(N, 2 * D))
    dump(folder / "ind.pkl", np.random.default_rng(5).permutation(N)[:N_TRAINED])
    return folder


@pytest.fixture(scope="module")
def usual(data, tmp_path_factory):
    """The defaults of cryoDRGN, but for the size; trained on a part of the stack, in a folder of a hostile name."""
    out = tmp_path_factory.mktemp("runs") / HOSTILE
    return train(data, out, "--zdim", "2", "-n", "2", "--ind", str(data / "ind.pkl"))


OTHERS = {
    "hartley": "--zdim 3 --domain hartley --pe-type gaussian --feat-sigma 1.5 --pe-dim 7 --activation leaky_relu",
    "mlp": "--zdim 2 --encode-mode mlp --enc-mask 8 --uninvert-data --no-window --pe-type geom_lowf",
    "unmasked": "--zdim 1 --enc-mask -1 --pe-type none --window-r 0.6 --domain hartley --norm 0.1 20",
}


@pytest.fixture(scope="module", params=OTHERS)
def other(request, data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp(request.param), "-n", "1", *OTHERS[request.param].split())


@pytest.fixture(scope="module")
def audited(usual, tmp_path_factory):
    return audit(tmp_path_factory.mktemp("house"), usual)


def audit(house, run, *overrides):
    few = ("task.search.steps=3", "task.n_samples=2", "audit.n_particles=24", "trainer.accelerator=cpu")
    paths = (f"paths.runs={house}/runs", f"paths.cache={house}/cache")
    # Hydra's own grammar stands between, and a name is quoted for it.
    return execute(compose("+exp=audit", f"audit.run='{run}'", *few, *paths, *overrides))


def opened(run, **told):
    """The model of a run on all its particles, with what belongs to it."""
    folder = Folder.find(run)
    settings = Settings.read(folder.config)
    taken = take(AuditedData(str(run), **told).particle_files(), 1000, 1000, 0)
    particles = load_particles(taken.trained, norm=settings.norm)
    return folder, settings, taken, model_of(folder, settings, particles, None, False, 0)


def test_z_is_reproduced_for_every_kind_of_network(other):
    folder, settings, taken, model = opened(other)
    stored = stored_latents(folder, N, settings.model["zdim"], taken.positions)
    reproduced = compare(stored, model.encode())
    assert reproduced.is_same and reproduced.n == N
    assert reproduced.largest_of_spread < 1e-4
    assert np.allclose(model.encode().logvar, stored.logvar, atol=1e-4)


def test_losses_are_those_of_cryodrgn(other):
    from cryodrgn.models import HetOnlyVAE

    _, _, _, model = opened(other)
    theirs, lattice = HetOnlyVAE.load(str(other / "config.yaml"), str(other / "weights.pkl"))
    theirs.eval()
    model.prepare()
    observed = model.observe(torch.arange(5))
    z = torch.randn(5, model.latents.zdim, generator=torch.Generator().manual_seed(0))
    mask = lattice.get_circular_mask(lattice.D // 2)
    with torch.no_grad():
        slices = theirs.decode(lattice.coords[mask] / lattice.extent / 2 @ observed.rotations, z).view(5, -1)
        assert torch.allclose(model.render(observed, z), slices * observed.ctf, atol=1e-4)
    assert observed.y.shape == slices.shape


def test_an_audit_judges_and_makes_a_page(audited, usual):
    metrics = audited.metrics
    assert metrics["audit/verdict"].partition(",")[0] in (AMORTIZING, MEMORIZING, BOTH, UNKNOWN)
    assert metrics["audit/z/rms_of_spread"] < 1e-4
    for view in ("train", "unseen", "rotate_90_consistent", "rotate_90", "shift_1px", "shift_1px_consistent", "noise"):
        assert 0 <= metrics[f"audit/{view}/share_low"] <= metrics[f"audit/{view}/share_high"] <= 1
        own, other = metrics[f"audit/{view}/loss"], metrics[f"audit/{view}/loss_of_anothers"]
        assert metrics[f"audit/{view}/information"] == pytest.approx(other - own, abs=1e-9)
    assert metrics["audit/train/amortization_gap"] >= 0
    assert metrics["audit/shift_1px_consistent/displacement_ratio"] < metrics["audit/shift_1px/displacement_ratio"]
    with np.load(audited.folder / "latents.npz") as stored:
        assert np.abs(stored["mu"] - stored["mu_stored"]).max() < 1e-4
    assert (audited.folder / "volumes" / "altered_1.mrc").exists()
    record = json.loads((audited.folder / "provenance.json").read_text())
    assert {"particles", "poses", "ctf", "ind"} <= record["data"].keys()


def test_names_are_escaped_on_the_page(audited):
    page = (audited.folder / "audit.html").read_text()
    assert HOSTILE not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "<script" not in page and "default-src &#39;none&#39;" in page


def test_an_audit_is_found_again_and_another_epoch_is_another_one(audited, usual, tmp_path):
    from experiments.runs.run import Run

    def of(*overrides):
        return Run.of(compose("+exp=audit", f"audit.run='{usual}'", "trainer.accelerator=cpu", *overrides)).folder.name

    assert of() == of("lr=1", f"paths.runs={tmp_path}")
    assert len({of(), of("audit.epoch=1"), of("seed=1"), of("audit.n_particles=30")}) == 4


def test_a_command_line_leads_back_to_an_audit(audited):
    from experiments.configuration.compose import to_dict
    from experiments.configuration.overrides import overrides_of
    from experiments.runs.run import Run

    found = Run.of(compose(*overrides_of(to_dict(audited.config)), "trainer.accelerator=cpu"))
    assert found.folder.name == audited.folder.name


def test_an_audit_verifies(audited):
    from experiments.tasks.findings import FAILS
    from experiments.tasks.verify import verify

    assert [finding for finding in verify(audited.folder) if finding.verdict == FAILS] == []


def test_an_audit_stands_in_the_report_with_its_verdict(audited, usual):
    from experiments.claims import comparable_runs
    from experiments.report.numbers import labelled
    from experiments.runs import folders

    (found,) = folders.find([audited.folder])
    (group,) = comparable_runs.group([found])
    assert comparable_runs.describe(group).startswith(f"audit of {usual.parent.name}/{usual.name}, last epoch, ")
    assert labelled(found, brief=True)[0] == ("verdict", audited.metrics["audit/verdict"])


def test_a_wrong_number_is_told_by_the_key_that_can_be_mended():
    with pytest.raises(InputError, match=r"^audit\.n_particles=1: expected at least 2"):
        check(compose("+exp=audit", "audit.run=x", "audit.n_particles=1"))


def test_unseen_particles_are_those_that_the_index_leaves_out(usual, data):
    taken = take(AuditedData(str(usual)).particle_files(), 1000, 1000, 0)
    with (data / "ind.pkl").open("rb") as file:
        trained = pickle.load(file)
    assert set(taken.unseen.split.taken) == set(range(N)) - set(trained.tolist())
    assert (taken.n_trained, taken.n_unseen) == (N_TRAINED, N - N_TRAINED)
    assert np.array_equal(load_particles(taken.trained).raw(np.arange(3)), images(N, D)[trained[:3]])


def test_a_config_pickle_of_old_versions_is_the_same(usual, tmp_path):
    old = shutil.copytree(usual, tmp_path / "old")
    config = yaml.safe_load((old / "config.yaml").read_text())
    for name in ("version", "time", "cmd"):
        config.pop(name)
    for name in ("activation", "tilt_params"):  # before version 1
        config["model_args"].pop(name)
    config["dataset_args"]["norm"] = [0, np.float32(config["dataset_args"]["norm"][1])]
    config["lattice_args"]["D"] = np.int64(config["lattice_args"]["D"])
    (old / "config.yaml").unlink()
    with (old / "config.pkl").open("wb") as file:
        pickle.dump(config, file)
        pickle.dump({"time": datetime.now(), "version": "1.0"}, file)
    new, found = Settings.read(usual / "config.yaml"), Settings.read(old / "config.pkl")
    assert found.model == new.model
    assert found.norm == pytest.approx(new.norm)
    folder, _, taken, model = opened(old)
    assert compare(stored_latents(folder, N_TRAINED, 2, taken.positions), model.encode()).is_same


@pytest.mark.parametrize("version", ["1.1.1", "2.3.0", "3.5.4"])
def test_z_of_runs_that_old_versions_made_is_reproduced_though_the_particles_have_moved(version):
    folder, settings, taken, model = opened(OLD_RUNS / version)
    reproduced = compare(stored_latents(folder, 48, settings.model["zdim"], taken.positions), model.encode())
    assert (reproduced.n, reproduced.is_same) == (48, True)
    assert reproduced.largest_of_spread < 1e-4


class Runs:
    """Something that runs when a pickle is loaded."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return Path.touch, (self.proof,)


@pytest.mark.parametrize("name", ["config.pkl", "weights.pkl", "z.pkl", "config.yaml"])
def test_what_would_run_code_is_refused_by_name_and_does_not_run(name, usual, tmp_path):
    run = shutil.copytree(usual, tmp_path / "run")
    for each in run.glob("weights.*.pkl"):
        each.unlink()
    proof = tmp_path / "proof"
    if name == "config.yaml":
        text = f"model_args: !!python/object/apply:pathlib.Path.touch [{proof}]"
        (run / name).write_text(text)
    elif name == "weights.pkl":
        torch.save({"model_state_dict": Runs(proof)}, run / name)
    else:
        dump(run / name, Runs(proof))
    if name == "config.pkl":
        (run / "config.yaml").unlink()
    with pytest.raises(InputError, match=rf"{name}: .*(pathlib|touch|getattr)"):
        opened_latents(run)
    assert not proof.exists()


def opened_latents(run):
    folder, settings, taken, _ = opened(run)
    return stored_latents(folder, taken.n_trained, settings.model["zdim"], taken.positions)


def changed(run: Path, to: Path, part: str, **values: object) -> Path:
    """Copy a run with some of its configuration changed."""
    run = shutil.copytree(run, to)
    config = yaml.safe_load((run / "config.yaml").read_text())
    config[part] |= values
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


REFUSED = {
    "mode": ("model_args", {"encode_mode": "conv"}, "encode_mode=conv: only encoders of the modes resid, mlp"),
    "domain": ("model_args", {"domain": "real"}, "domain=real, expected one of fourier, hartley"),
    "size": ("model_args", {"qdim": 60000}, "weights.pkl is too small for such a network"),
    "layers": ("model_args", {"qlayers": 2}, "weights cannot be read .*expected those of"),
    "zdim": ("model_args", {"zdim": "many"}, "zdim=many, expected a whole number"),
    "mask": ("model_args", {"enc_mask": 99}, "enc_mask=99, expected a whole number from 1 to 12"),
    "norm": ("dataset_args", {"norm": [0, -1]}, "expected a standard deviation above 0"),
    "particles": (
        "dataset_args",
        {"particles": "gone.mrcs"},
        "particles=gone.mrcs: there is no such file .* say where it is with audit.particles=PATH",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_audited_is_said_in_one_line(case, usual, tmp_path):
    part, values, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        opened(changed(usual, tmp_path / "run", part, **values))


def test_a_decoder_alone_is_no_run_to_audit(usual, tmp_path):
    run = shutil.copytree(usual, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model_args"] = {"layers": 3, "dim": 16, "zdim": 2}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match="no encoder"):
        Settings.read(run / "config.yaml")


def test_files_that_have_moved_are_found_beside_the_run_or_told(usual, data, tmp_path):
    run = changed(usual, tmp_path / "run", "dataset_args", poses="/elsewhere/poses.pkl", ctf="/elsewhere/c.pkl")
    shutil.copy(data / "poses.pkl", tmp_path / "poses.pkl")
    with pytest.raises(InputError, match=r"ctf=/elsewhere/c.pkl: .* audit.ctf=PATH"):
        AuditedData(str(run)).particle_files()
    files = AuditedData(str(run), ctf=str(data / "ctf.pkl")).particle_files()
    assert (files.poses, files.ctf) == (str(tmp_path / "poses.pkl"), str(data / "ctf.pkl"))


def test_poses_refined_in_training_are_taken(usual, data, tmp_path):
    run = changed(usual, tmp_path / "run", "dataset_args", do_pose_sgd=True)
    refined = dump(run / "pose.pkl", (rotations(N_TRAINED), shifts(N_TRAINED)))
    taken = take(AuditedData(str(run)).particle_files(), 10, 10, 0)
    assert taken.trained.poses == refined
    assert load_particles(taken.trained).rotations.shape == (10, 3, 3)


@pytest.fixture(scope="module")
def refined(data, tmp_path_factory):
    """Trained on a part of the stack, its poses refined on the way."""
    options = ["--ind", str(data / "ind.pkl"), "--do-pose-sgd", "--pose-lr", "0.1"]
    options += ["--pretrain", "0", "--domain", "hartley", "--emb-type", "quat"]
    return train(data, tmp_path_factory.mktemp("refined") / "run", "--zdim", "2", "-n", "2", *options)


def test_of_refined_poses_the_encoder_sees_the_shifts_that_it_was_given(refined, tmp_path):
    with (refined / "pose.pkl").open("rb") as file:
        moved = np.abs(pickle.load(file)[1] - shifts(N)[_trained(refined)]).max()
    assert moved > 1e-4, "the shifts were refined"
    _, settings, taken, model = opened(refined)
    stored = stored_latents(Folder.find(refined), N_TRAINED, settings.model["zdim"], taken.positions)
    assert compare(stored, model.encode()).rms_of_spread > 1e-3, "by the refined shifts it is another z"
    metrics = audit(tmp_path, refined).metrics
    assert metrics["audit/z/rms_of_spread"] < 1e-4
    assert "audit/unseen/share" not in metrics
    (page,) = tmp_path.rglob("audit.html")
    assert "cannot be looked at, so turned training images stand for them" in page.read_text()


def _trained(run: Path) -> np.ndarray:
    with Path(yaml.safe_load((run / "config.yaml").read_text())["dataset_args"]["ind"]).open("rb") as file:
        return np.asarray(pickle.load(file))


def test_where_poses_are_those_of_the_indexed_particles_turned_images_decide(usual, data, tmp_path):
    indexed = _trained(usual)
    filtered = dump(tmp_path / "filtered.pkl", (rotations(N)[indexed], shifts(N)[indexed]))
    holes = np.full((N, 3, 3), np.nan), np.full((N, 2), np.nan)
    for part, whole in zip(holes, (rotations(N), shifts(N)), strict=True):
        part[indexed] = whole[indexed]
    for poses, why in ((filtered, "rotations for 50 particles"), (dump(tmp_path / "holes.pkl", holes), "NaN")):
        taken = take(AuditedData(str(usual), poses=poses).particle_files(), 10, 24, 0)
        assert taken.unseen is not None
        taken, unseen = read_unseen(taken, None)
        assert unseen is None and taken.unseen is None and why in taken.why_not
        assert load_particles(taken.trained).rotations.shape == (10, 3, 3)
    verdict = judge(SAME, view(0.5, 0.6, 0.5), view(0.51, 0.6, 0.5), None, taken.why_not)
    assert verdict.word == AMORTIZING and "holes.pkl" in verdict.warnings[0]


def test_nothing_takes_long_before_everything_is_read(usual, data, tmp_path, monkeypatch):
    from lightning_modules.vae.posterior_search import PosteriorSearch

    def searched(*_):
        raise AssertionError("a search has begun")

    monkeypatch.setattr(PosteriorSearch, "__call__", searched)
    run = changed(usual, tmp_path / "run", "dataset_args", do_pose_sgd=True, poses="/gone/poses.pkl")
    dump(run / "pose.pkl", (rotations(N_TRAINED), shifts(N_TRAINED)))
    with pytest.raises(InputError, match=r"poses=/gone/poses.pkl: there is no such file"):
        audit(tmp_path, run)


def test_of_preprocessed_particles_the_original_stack_is_asked_for(usual, data, tmp_path):
    run = shutil.copytree(usual, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["cmd"] = [*config["cmd"], "--preprocessed"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=r"trained with --preprocessed, .*audit\.particles=<original stack>"):
        AuditedData(str(run)).particle_files()
    told = AuditedData(str(run), particles=str(data / "p.mrcs")).particle_files()
    assert told.particles == str(data / "p.mrcs")


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ({"layers": 3, "dim": 16, "pe_type": "geom_lowf"}, r"a run of `cryodrgn train_nn`, one volume without z"),
        ({"encode_mode": "tilt", "qlayers": 1, "qdim": 16, "zdim": 2}, "a run of tilt series"),
    ],
)
def test_runs_of_another_kind_are_named(usual, tmp_path, model, found):
    run = shutil.copytree(usual, tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model_args"] = model
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=found):
        Settings.read(run / "config.yaml")


def test_the_last_epoch_is_the_newest(usual, tmp_path):
    import os

    run = shutil.copytree(usual, tmp_path / "run")
    assert Folder.find(run).weights.name == "weights.pkl"
    assert Folder.find(run, 1).z.name == "z.1.pkl"
    newest = (run / "weights.pkl").stat().st_mtime + 100
    os.utime(run / "weights.2.pkl", (newest, newest))
    assert Folder.find(run).weights.name == "weights.2.pkl"
    with pytest.raises(InputError, match=r"audit.epoch=7: no weights.7.pkl .*expected one of: 1, 2"):
        Folder.find(run, 7)


def test_other_particles_are_noticed(usual, data, tmp_path):
    wrong = stack(tmp_path / "wrong.mrcs", images(N, D, seed=9))
    folder, _, taken, model = opened(usual, particles=wrong)
    reproduced = compare(stored_latents(folder, N_TRAINED, 2, taken.positions), model.encode())
    assert reproduced.says == "not reproduced"
    train_view = view(own=0.5, other=0.6, best=0.5)
    verdict = judge(reproduced, train_view, train_view, None)
    assert verdict.word == UNKNOWN and "not the particles" in verdict.warnings[0]


def test_weights_of_several_gpus_have_the_same_names(usual, tmp_path):
    state = torch.load(usual / "weights.pkl", weights_only=True)["model_state_dict"]
    torch.save({"model_state_dict": {f"module.{name}": value for name, value in state.items()}}, tmp_path / "w.pkl")
    assert read_state(tmp_path / "w.pkl").keys() == state.keys()


def view(own: float, other: float, best: float, n: int = 200, name: str = "train") -> ImageCondition:
    """Losses about given means."""
    noise = np.random.default_rng(0).normal(0, 0.01, n)
    terms = ElboTerms(own + noise, own + noise, np.ones(n))
    share = share_of(own + noise, other + noise[::-1], best + noise, 0)
    return ImageCondition(name, name, n, terms, other + noise[::-1], best + noise, share, {})


SAME = Reproduced(10, 0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("own", "expected"),
    [(0.51, AMORTIZING), (0.55, BOTH), (0.59, MEMORIZING), (0.62, MEMORIZING)],
)
def test_the_verdict_is_the_share_of_what_z_could_tell(own, expected):
    new = view(own=own, other=0.6, best=0.5)
    assert judge(SAME, view(0.5, 0.6, 0.5), new, None).word == expected
    assert judge(SAME, view(0.5, 0.6, 0.5), view(0.55, 0.6, 0.5), new).word == expected


@pytest.mark.parametrize(
    ("share", "word", "headline"),
    [
        (Share(0.30, 0.25, 0.33), MEMORIZING, "memorizing"),
        (Share(0.30, 0.25, 0.36), MEMORIZING, "memorizing, not for certain: the interval crosses 1/3"),
        (Share(0.40, 0.30, 0.50), BOTH, "in part both, not for certain: the interval crosses 1/3"),
        (Share(0.60, 0.50, 0.70), BOTH, "in part both, not for certain: the interval crosses 2/3"),
        (Share(0.70, 0.60, 0.80), AMORTIZING, "amortizing, not for certain: the interval crosses 2/3"),
        (Share(0.80, 0.70, 0.90), AMORTIZING, "amortizing"),
        (Share(0.50, 0.20, 0.80), UNKNOWN, "inconclusive"),
    ],
)
def test_an_interval_that_crosses_a_threshold_is_in_the_headline(share, word, headline):
    new = view(0.5, 0.6, 0.5)._replace(share=share)
    verdict = judge(SAME, view(0.5, 0.6, 0.5), new, None)
    assert (verdict.word, verdict.headline) == (word, headline)


def test_audits_are_told_apart_by_run_and_epoch(audited, usual, tmp_path):
    from experiments.report.__main__ import main
    from experiments.sweeps.status import status_of, table

    copy = shutil.copytree(audited.folder, tmp_path / "runs" / "audited" / "audit" / "another")
    shutil.copytree(audited.folder, copy.with_name(audited.folder.name))
    config = yaml.safe_load((copy / "config.yaml").read_text())
    config["audit"]["epoch"] = config["data"]["epoch"] = 1
    (copy / "config.yaml").write_text(yaml.safe_dump(config))
    name = f"audit of {usual.parent.name}/{usual.name}"
    shown = table([status_of(folder) for folder in copy.parent.iterdir()])
    assert f"{name}, last epoch " in shown and f"{name}, epoch 1 " in shown
    assert main([str(tmp_path / "runs")]) == 0
    page = html.unescape((tmp_path / "runs" / "report.html").read_text())
    assert page.count(f"{name}, last epoch") >= 4 and page.count(f"{name}, epoch 1") >= 4  # grid, table, heading
    assert 'id="claims"' not in page and "#claims" not in page and 'id="missing"' not in page


def test_latents_that_say_nothing_are_not_judged():
    nothing = view(own=0.6, other=0.6, best=0.59)
    verdict = judge(SAME, nothing, nothing, None)
    assert verdict.word == UNKNOWN and "too little" in verdict.reasons[0]


def test_tests_that_contradict_each_other_decide_nothing():
    rule, memory = view(0.5, 0.6, 0.5), view(0.6, 0.6, 0.5)
    assert judge(SAME, rule, rule, memory).word == UNKNOWN


def test_a_share_is_one_for_the_best_q_and_zero_for_anothers():
    own, other = np.full(9, 0.5), np.full(9, 0.7)
    assert share_of(own, other, own, 0) == (1, 1, 1)
    assert share_of(other, other, own, 0) == (0, 0, 0)
    assert share_of(np.full(9, 0.55), other, own, 0).value == pytest.approx(0.75)
