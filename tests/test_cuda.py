"""What only a GPU can show: it computes what a processor does, by itself, played back, in turns and in two processes.

python -m pytest -m cuda
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.runs.run import Run
from experiments.training import fit as training
from experiments.training.processes import Place
from lightning_modules.latents.table_init import ConstantLatents, LatentInit
from lightning_modules.optimization.cuda_graph import CudaGraphStep
from tests.small_models import cryo_vae, particles_in, train
from tests.test_ddp import fit_run
from tests.test_ddp import run_in as small_run_in
from tests.test_resume import checkpoint_of, interrupt, losses_in, run_in
from tests.test_resume import train as train_run

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is here that torch can use"),
]
CPU, GPU = "trainer.accelerator=cpu", "trainer.accelerator=gpu"
# Additions in another order: the last bits of float32 differ, and Adam divides small gradients by small numbers.
SUMS, TRAINED = 1e-4, 1e-2
INITS = pytest.mark.parametrize("init", [None, ConstantLatents()], ids=["encoder", "lookup table"])


def gradients(folder: Path, init: LatentInit | None, device: str) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Return the losses of a minibatch, and their gradients."""
    model = cryo_vae(particles_in(folder), init=init).to(device)
    model.prepare()
    index, eps = torch.arange(12), torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
    terms = model.elbo(model.observe(index), eps.to(device), 0.5)
    terms.total.backward()
    found = {name: p.grad.to_dense().cpu() for name, p in model.named_parameters() if p.grad is not None}
    return [term.item() for term in terms], found


@INITS
def test_a_step_is_the_processors(init: LatentInit | None, tmp_path: Path) -> None:
    (expected, on_cpu), (losses, on_gpu) = (gradients(tmp_path, init, device) for device in ("cpu", "cuda"))
    assert losses == pytest.approx(expected, rel=SUMS)
    assert on_gpu.keys() == on_cpu.keys() and on_cpu
    for name, gradient in on_cpu.items():
        assert (on_gpu[name] - gradient).abs().max() <= 10 * SUMS * gradient.abs().max(), name


@INITS
def test_a_step_that_is_captured_is_the_one_that_is_called(init: LatentInit | None, tmp_path: Path) -> None:
    losses, captured = [], CudaGraphStep()
    for team in (None, captured):
        model = cryo_vae(particles_in(tmp_path, n=18), init=init, lr=1e-3, table_lr=0.1)
        model.team = team or model.team
        fitted = train(model, max_epochs=6, accelerator="gpu")  # minibatches of four, and one of two
        losses.append({name: value.item() for name, value in fitted.callback_metrics.items()})
    assert losses[1] == pytest.approx(losses[0], rel=TRAINED) and "loss/total" in losses[0]
    assert sorted(captured.recorded) == [2, 4]


@pytest.mark.parametrize("exp", ["baseline", "vlt_random"])
@pytest.mark.parametrize(("first", "then"), [(GPU, CPU), (CPU, GPU)], ids=["on the CPU", "on the GPU"])
def test_what_was_begun_elsewhere_is_continued(
    first: str, then: str, exp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(name: str, accelerator: str) -> Run:
        return run_in(tmp_path / name, f"+exp={exp}", "encoder=small", accelerator)

    whole, begun, continued = run("whole", CPU), run("broken", first), run("broken", then)
    assert begun.folder == continued.folder
    train_run(whole)
    interrupt(begun, monkeypatch, 100)
    ended = train_run(continued)
    assert ended["ParticleBlocks"]["epoch"] == 2
    for found, expected in zip(losses_in(continued), losses_in(whole), strict=True):
        assert [float(value) for value in found] == pytest.approx([float(value) for value in expected], rel=TRAINED)
    assert {value.device.type for value in checkpoint_of(continued)["state_dict"].values()} <= {"cpu", "cuda"}


@pytest.mark.slow
@pytest.mark.parametrize("exp", ["baseline", "vlt_random"])
def test_two_processes_train_as_one_does(exp: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = fit_run(small_run_in(tmp_path / "alone", f"+exp={exp}", GPU))
    if torch.cuda.device_count() == 1:  # NCCL wants a GPU for each process; gloo does not
        places = [Place("gpu", [0], "gloo")] * 2
        monkeypatch.setattr(training, "places_of", lambda config: places)
    together = fit_run(small_run_in(tmp_path / "together", f"+exp={exp}", GPU, "trainer.devices=-1"))
    assert len(alone.rows) == len(together.rows) == 2
    for one, two in zip(alone.rows, together.rows, strict=True):
        assert losses_of(two) == pytest.approx(losses_of(one), rel=TRAINED)


def losses_of(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name.startswith("loss/")}
