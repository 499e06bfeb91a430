"""One run in several processes: the same training as in one, and one run to whoever looks at it."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist

from experiments.configuration.compose import compose
from experiments.machine import signals
from experiments.machine.signals import Interrupted
from experiments.runs.building import untrained_model
from experiments.runs.run import Run
from experiments.training import processes
from experiments.training.callbacks import EpochLog
from experiments.training.fit import fit
from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin
from lightning_modules.errors import InputError
from lightning_modules.latents.table_init import RandomLatents
from lightning_modules.optimization.data_parallel import DataParallel, SingleProcess
from lightning_modules.optimization.joined_adam import LARGE
from lightning_modules.particles.particles import Particles
from tests.small_models import cryo_vae, particles_in, train, weights
from tests.test_resume import assert_equal, checkpoint_of, stopped_after
from tests.tiny import SETTINGS

ROOT = Path(__file__).resolve().parents[1]
ON_TWO = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2")


@pytest.fixture(scope="module")
def particles(tmp_path_factory: pytest.TempPathFactory) -> Particles:
    return particles_in(tmp_path_factory.mktemp("particles"), n=22)


def model_on(particles: Particles, kind: str, **options: Any) -> Any:
    inputs: dict[str, EncoderInput] = {"noise twin": NoiseTwin()}
    init = RandomLatents() if "table" in kind else None
    return cryo_vae(
        particles,
        inputs.get(kind, IdentityInput()),
        init=init,
        frozen=kind == "frozen table",
        lr=1e-3,
        table_lr=0.05,
        **options,
    )


def _member(rank: int, size: int, folder: Path, particles: Particles, kind: str, options: dict[str, Any]) -> None:
    """Train as one of several processes; leave weights and losses in a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    model = model_on(particles, kind, **options.pop("model", {}))
    model.team = DataParallel(rank, size)
    fitted = train(model, **options)
    losses = {name: value.item() for name, value in fitted.callback_metrics.items()}
    torch.save((model.state_dict(), losses), folder / f"{rank}.pt")
    dist.destroy_process_group()


def trained_by(size: int, folder: Path, particles: Particles, kind: str, **options: Any) -> list[Any]:
    """Train in several processes; return what each of them has in the end."""
    context = multiprocessing.get_context("fork")
    arguments = (size, folder, particles, kind, options)
    members = [context.Process(target=_member, args=(rank, *arguments)) for rank in range(size)]
    for member in members:
        member.start()
    for member in members:
        member.join(60)
    assert [member.exitcode for member in members] == [0] * size
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.mark.parametrize(
    ("kind", "size", "batch_size", "max_epochs"),
    [
        ("encoder", 2, 4, 2),  # the last minibatch: 2 particles
        ("table", 2, 4, 2),
        ("table", 3, 5, 2),  # shares of 2, 2, 1, and 1, 1, 0
        ("frozen table", 2, 8, 1),
        ("noise twin", 2, 1, 1),  # one of the two has nothing to do
    ],
)
@pytest.mark.parametrize("large", [LARGE, 64])  # in elements: matrices from there on have gradients of their own
def test_several_processes_train_as_one_does(
    tmp_path: Path,
    particles: Particles,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    size: int,
    batch_size: int,
    max_epochs: int,
    large: int,
) -> None:
    monkeypatch.setattr("lightning_modules.optimization.joined_adam.LARGE", large)
    alone = model_on(particles, kind)
    start = weights(alone)
    options = {"batch_size": batch_size, "max_epochs": max_epochs}
    losses = train(alone, **options).callback_metrics
    members = trained_by(size, tmp_path, particles, kind, **options)
    for state, their_losses in members:
        assert_equal(state, members[0][0])
        for name, value in losses.items():
            assert their_losses[name] == pytest.approx(value.item(), rel=1e-5)
    for key, value in members[0][0].items():
        moved = np.abs(weights(alone)[key] - start[key]).max()
        assert np.abs(value.numpy() - weights(alone)[key]).max() <= 0.02 * moved, key


def test_one_process_shares_with_nobody() -> None:
    batch = torch.arange(7)
    assert SingleProcess().part(batch) is batch
    parts = [DataParallel(rank, 3).part(batch) for rank in range(3)]
    assert torch.equal(torch.cat(parts), batch) and max(map(len, parts)) - min(map(len, parts)) == 1


def test_several_devices_do_not_change_which_run_it_is(tmp_path: Path) -> None:
    one, two = (Run.of(compose(*SETTINGS, f"paths.runs={tmp_path}", *options)) for options in ((), ON_TWO))
    assert one.folder == two.folder


def test_places_are_what_lightning_makes_of_the_devices(tmp_path: Path) -> None:
    for devices, n in (("1", 1), ("2", 2), ("auto", 1)):
        config = compose("trainer.accelerator=cpu", f"trainer.devices={devices}")
        assert [place.backend for place in processes.places_of(config)] == ["gloo"] * n


def test_kl_control_is_refused_on_several_devices() -> None:
    with pytest.raises(InputError, match=r"beta_control=1.0.*2 devices.*trainer\.devices=1"):
        processes.places_of(compose(*ON_TWO, "beta_control=1"))


# --- whole runs: each starts a Python that imports torch


SIZES = ("data.n_particles=41", "batch_size=4", "encoder=small")


def run_in(folder: Path, *overrides: str) -> Run:
    where = (f"paths.runs={folder}/runs", f"paths.cache={folder}/cache")
    return Run.of(compose(*SETTINGS, *SIZES, *where, *overrides))


def fit_run(run: Run) -> EpochLog:
    model = untrained_model(run, None)
    epochs = EpochLog(run.folder / "log.csv", len(model.particles))
    with signals.answered():
        fit(run, model, epochs)
    return epochs


@pytest.mark.slow
def test_a_shared_run_is_interrupted_and_continued_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken = (run_in(tmp_path / name, "+exp=vlt_random", *ON_TWO) for name in ("whole", "broken"))
    fit_run(whole)
    with (
        stopped_after(monkeypatch, 7, lambda: os.kill(os.getpid(), signal.SIGUSR2)),
        pytest.raises(Interrupted, match="SIGUSR2"),
    ):
        fit_run(broken)
    assert checkpoint_of(broken)["ParticleBlocks"]["n_batches"] == 8  # all agree after the next one
    fit_run(broken)
    assert_equal(checkpoint_of(broken), checkpoint_of(whole))


def _fail(team: DataParallel, place: processes.Place, ready: Any, reason: str) -> None:
    ready()
    if reason == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise InputError("the stack is gone")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reason", "error", "text"),
    [
        ("input", InputError, "the stack is gone"),
        ("killed", RuntimeError, "process 2 of 2 was killed by SIGKILL"),
    ],
)
def test_the_failure_of_another_process_is_told_at_once(reason: str, error: type[Exception], text: str) -> None:
    places = [processes.Place("cpu", 1)] * 2
    with pytest.raises(error, match=text), processes.team_of(places, _fail, reason):
        dist.all_reduce(torch.zeros(1))
    assert not dist.is_initialized() and not multiprocessing.active_children()


@pytest.mark.slow
def test_the_command_shows_one_run_and_leaves_nothing_behind(tmp_path: Path) -> None:
    where = (f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    own = ("--config-dir", str(ROOT / "tests" / "conf"))
    command = [sys.executable, str(ROOT / "run.py"), *own, *SETTINGS, *SIZES, *where, *ON_TWO, "task=only_train"]
    options = ("trainer.max_epochs=100000", "trainer.enable_progress_bar=true")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (tmp_path / "shown").open("w") as shown:
        process = subprocess.Popen([*command, *options], stdout=shown, stderr=shown, cwd=ROOT, env=environment)
        deadline = time.monotonic() + 120
        while not list(tmp_path.rglob("log.csv")) and time.monotonic() < deadline:
            time.sleep(0.1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        process.kill()
        process.wait()
    bars = [text for text in (tmp_path / "shown").read_text().splitlines() if "image/s" in text]
    assert len(bars) > 1 and sum(" 0.00/" in text for text in bars) == 1
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert children and not [child for child in children if Path(f"/proc/{child}").exists()]
    assert len(list(tmp_path.rglob("log.csv"))) == 1
