"""Interrupted anywhere, any number of times, by whatever means: the result is the same, bit for bit."""

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.configuration.compose import compose
from experiments.machine import signals
from experiments.machine.signals import EXIT_CODE, Interrupted, request_stop
from experiments.runs.building import model_of, particles_of
from experiments.runs.execution import execute
from experiments.runs.run import Run
from experiments.training.callbacks import LOSSES, EpochLog
from experiments.training.checkpoints import LastCheckpoint, before, newest_whole
from experiments.training.fit import fit
from lightning_modules.latents.table_init import Latents
from lightning_modules.vae import vae
from tests.tiny import SETTINGS, trusted

ROOT = Path(__file__).resolve().parents[1]
# Two blocks per epoch, and a last minibatch of a single particle.
SIZES = ("data.n_particles=131", "batch_size=2")
N_BATCHES = 2 * 66
ONLY_TRAIN = ("task._target_=tests.test_resume.OnlyTrain",)


def settings(folder: Path) -> tuple[str, ...]:
    return (*SETTINGS, *SIZES, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache")


def run_in(folder: Path, *overrides: str) -> Run:
    return Run.of(compose(*settings(folder), *overrides))


def train(run: Run) -> dict[str, Any]:
    """Train a run, or what is left of it; return its last checkpoint."""
    particles = particles_of(run.config)
    source = Latents(*torch.randn(2, len(particles), run.config.zdim, generator=torch.Generator().manual_seed(0)))
    torch.manual_seed(random.randrange(10**6))  # nothing may depend on it
    fit(run, model_of(run.config, particles, source), EpochLog(run.folder / "log.csv", len(particles)))
    return checkpoint_of(run)


def checkpoint_of(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
    return found


@contextmanager
def stopped_after(monkeypatch: pytest.MonkeyPatch, n_batches: int, stop: Callable[[], Any]) -> Iterator[None]:
    """Call something when so many minibatches were trained."""
    count, original = iter(range(1, 10**6)), LastCheckpoint.after_minibatch

    def counted(self: LastCheckpoint) -> None:
        if next(count) == n_batches:
            stop()
        original(self)

    with monkeypatch.context() as patched:
        patched.setattr(LastCheckpoint, "after_minibatch", counted)
        yield


def interrupt(run: Run, monkeypatch: pytest.MonkeyPatch, n_batches: int) -> None:
    """Train so many minibatches, then ask to stop."""
    with (
        stopped_after(monkeypatch, n_batches, request_stop),
        signals.answered(),
        pytest.raises(Interrupted),
    ):
        train(run)


def assert_equal(ours: Any, theirs: Any, where: str = "checkpoint") -> None:
    """Compare two checkpoints, all but the clock."""
    assert type(ours) is type(theirs), where
    if isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            if key not in ("time/epoch_s", "images_per_s", "seconds_before", "loops"):
                assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for place, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(a, b, f"{where}.{place}")
    elif isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    else:
        assert ours == theirs, where


def losses_in(run: Run) -> list[tuple[str, ...]]:
    with (run.folder / "log.csv").open() as file:
        return [tuple(row[name] for name in ("epoch", *LOSSES)) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    ("exp", "places"),
    [
        ("baseline", (1, 100)),
        ("vlt_random", (63, 66, 1)),  # of the second: the end of a block, of an epoch
        ("evil_twin_noise_standard", (65, 3)),
        ("evil_twin_permuted", (64, 67)),
        ("vlt_pretrained_frozen", (131,)),
        ("vlt_random", (132,)),  # nothing is left to train
    ],
)
def test_an_interrupted_training_comes_to_the_same_checkpoint_and_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exp: str, places: tuple[int, ...]
) -> None:
    options = (f"+exp={exp}", "encoder=small")
    whole, broken = run_in(tmp_path / "whole", *options), run_in(tmp_path / "broken", *options)
    expected = train(whole)
    for n_batches in places:
        interrupt(broken, monkeypatch, n_batches)
    assert_equal(train(broken), expected)
    assert losses_in(broken) == losses_in(whole)
    assert expected["ParticleBlocks"] == {"epoch": 2, "n_batches": 0, "n_seen": 0, "sums": []}


@pytest.mark.parametrize("exp", ["baseline", "vlt_random"])
def test_it_holds_in_bfloat16_and_at_random_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exp: str) -> None:
    monkeypatch.setattr(vae, "OBSERVED_AT_ONCE", 10)  # several groups per block
    options = (f"+exp={exp}", "precision=bfloat16", "encoder=small")
    whole, broken = run_in(tmp_path / "whole", *options), run_in(tmp_path / "broken", *options)
    expected, left = train(whole), N_BATCHES
    while (n_batches := random.randrange(1, 90)) < left:
        interrupt(broken, monkeypatch, n_batches)
        left -= n_batches
    assert_equal(train(broken), expected)
    assert losses_in(broken) == losses_in(whole)


def test_what_was_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, done = run_in(tmp_path), []
    interrupt(run, monkeypatch, 70)
    with stopped_after(monkeypatch, -1, lambda: None):
        counted = LastCheckpoint.after_minibatch
        monkeypatch.setattr(LastCheckpoint, "after_minibatch", lambda self: (done.append(1), counted(self)))
        train(run)
    assert len(done) == N_BATCHES - 70


def test_checkpoints_are_written_within_an_epoch_and_cost_nothing_in_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    write = LastCheckpoint._write

    def noted(self: LastCheckpoint) -> None:
        write(self)
        seen.append(checkpoint_of(self.run)["ParticleBlocks"]["n_batches"])

    rare = train(run_in(tmp_path / "rare"))
    monkeypatch.setattr(LastCheckpoint, "_write", noted)
    often = train(run_in(tmp_path / "often", "trainer.checkpoint_every_s=0"))
    assert seen == [*range(1, 66), 0, *range(1, 66), 0]
    assert_equal(often, rare)


def test_a_time_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path)
    with stopped_after(monkeypatch, 20, lambda: time.sleep(0.5)):
        interrupt_after_30 = stopped_after(monkeypatch, 30, request_stop)
        with interrupt_after_30, signals.answered(), pytest.raises(Interrupted):
            train(run)
    train(run)
    with (run.folder / "log.csv").open() as file:
        first = next(csv.DictReader(file))
    assert float(first["time/epoch_s"]) > 0.5
    assert float(first["images_per_s"]) == pytest.approx(131 / float(first["time/epoch_s"]))


@pytest.mark.parametrize("damage", ["truncated", "one bit", "empty"])
def test_from_a_damaged_checkpoint_it_goes_back_to_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    run = run_in(tmp_path / "broken")
    for n_batches in (40, 40):
        interrupt(run, monkeypatch, n_batches)
    content = bytearray(run.checkpoint.read_bytes())
    weights = content.index(checkpoint_of(run)["state_dict"]["decoder.decoder.decoder.main.0.weight"].numpy().tobytes())
    if damage == "one bit":
        content[weights + 5] ^= 1
    run.checkpoint.write_bytes(content[: {"truncated": len(content) // 2, "one bit": None, "empty": 0}[damage]])
    assert newest_whole(run) == before(run.checkpoint)
    assert "damaged" in caplog.text
    assert_equal(train(run), train(run_in(tmp_path / "whole")))
    assert not before(run.checkpoint).exists()


def test_with_no_whole_checkpoint_it_starts_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_in(tmp_path / "broken")
    for n_batches in (40, 40):
        interrupt(run, monkeypatch, n_batches)
    for path in (run.checkpoint, before(run.checkpoint)):
        path.write_bytes(path.read_bytes()[:1000])
    assert_equal(train(run), train(run_in(tmp_path / "whole")))


@pytest.mark.parametrize("number", signals.SIGNALS, ids=lambda number: number.name)
def test_a_signal_is_answered_after_the_minibatch_and_then_handed_to_the_launcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    run, calls = run_in(tmp_path), []

    def launcher(number: int, frame: Any) -> None:
        calls.append((number, checkpoint_of(run)["ParticleBlocks"]["n_batches"]))
        sys.exit(-1)

    former = signal.signal(number, launcher)
    try:
        with (
            stopped_after(monkeypatch, 20, lambda: os.kill(os.getpid(), number)),
            signals.answered(),
            pytest.raises(Interrupted, match=f"interrupted by {number.name}; the same command continues"),
        ):
            train(run)
        assert calls == [(number, 20)]
        assert signal.getsignal(number) is launcher
    finally:
        signal.signal(number, former)


def test_a_launcher_that_refuses_to_queue_again_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def launcher(number: int, frame: Any) -> None:
        raise RuntimeError("timed out too many times")

    former = signal.signal(signal.SIGUSR2, launcher)
    try:
        with (
            stopped_after(monkeypatch, 20, lambda: os.kill(os.getpid(), signal.SIGUSR2)),
            signals.answered(),
            pytest.raises(RuntimeError, match="too many times"),
        ):
            train(run_in(tmp_path))
    finally:
        signal.signal(signal.SIGUSR2, former)


def test_a_signal_outside_training_is_answered_at_once(tmp_path: Path) -> None:
    with pytest.raises(Interrupted), signals.answered():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        pytest.fail("still here")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


class OnlyTrain:
    """A task that trains, and leaves out what comes after."""

    def __call__(self, run: Run, source: Run | None) -> dict[str, Any]:
        train(run)
        return {"loss/total": 0.0}


def carry_out(folder: Path, *overrides: str) -> Run:
    """Do all that a run does, but encode, measure and draw."""
    with trusted(OnlyTrain):
        return execute(compose(*settings(folder), *ONLY_TRAIN, *overrides))


def test_an_interrupted_run_is_not_finished_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with stopped_after(monkeypatch, 4, lambda: os.kill(os.getpid(), signal.SIGTERM)), pytest.raises(Interrupted):
        carry_out(tmp_path)
    (log,) = tmp_path.rglob("run.log")
    assert "interrupted by SIGTERM; the same command continues" in log.read_text().splitlines()[-1]
    assert "Traceback" not in log.read_text()
    assert not list(tmp_path.rglob("metrics.json"))
    assert carry_out(tmp_path).metrics is not None


KILLED = ("trainer.max_epochs=4", "trainer.checkpoint_every_s=0.05")


def _carry_out_to_be_killed(folder: Path, n_threads: int) -> None:
    torch.set_num_threads(n_threads)
    carry_out(folder, *KILLED)


@pytest.mark.slow
def test_a_run_that_is_killed_at_random_moments_comes_to_the_same_end(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_resume"])
    run, positions = Run.of(compose(*settings(tmp_path / "broken"), *ONLY_TRAIN, *KILLED)), [(0, 0)]
    for _ in range(6):
        process = context.Process(target=_carry_out_to_be_killed, args=(tmp_path / "broken", torch.get_num_threads()))
        process.start()
        while process.is_alive() and not (run.checkpoint.exists() and position(run) > positions[-1]):
            time.sleep(0.01)
        process.join(random.uniform(0, 0.2))
        process.kill()
        process.join()
        positions.append(position(run))
    assert positions == sorted(positions)
    continued, whole = (carry_out(tmp_path / name, *KILLED) for name in ("broken", "whole"))
    assert_equal(checkpoint_of(continued), checkpoint_of(whole))
    assert losses_in(continued) == losses_in(whole)
    assert not list(continued.folder.rglob(".unfinished-*"))


def position(run: Run) -> tuple[int, int]:
    """Where a run's last checkpoint is: epoch and minibatch."""
    state = checkpoint_of(run)["ParticleBlocks"]
    return state["epoch"], state["n_batches"]


@pytest.mark.slow
def test_the_command_saves_within_seconds_and_says_how_to_go_on(tmp_path: Path) -> None:
    where = (f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache")
    command = [sys.executable, str(ROOT / "run.py"), *SETTINGS, *where, "trainer.max_epochs=100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("log.csv")) and time.monotonic() < deadline:
        time.sleep(0.1)
    sent = time.time()
    process.send_signal(signal.SIGUSR2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == EXIT_CODE
    assert errors.splitlines()[-1] == "interrupted by SIGUSR2; the same command continues from the last checkpoint"
    (written,) = tmp_path.rglob("last.ckpt")
    assert 0 < written.stat().st_mtime - sent < 5
    assert torch.load(written, weights_only=True)["ParticleBlocks"]["epoch"] > 0
