"""A step that is played back learns what a step of separate calls learns, bit for bit.

No GPU is needed to see that. What stands in for a CUDA graph does as one does: it knows the operations that were called
while it recorded, and the places in memory that they read and wrote, and nothing else of the program.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.configuration.compose import compose
from experiments.training.processes import places_of
from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin
from lightning_modules.errors import InputError
from lightning_modules.latents.table_init import ConstantLatents, LatentInit
from lightning_modules.optimization.cuda_graph import WARM_UP, CudaGraphStep
from lightning_modules.vae import vae
from tests.small_models import cryo_vae, particles_in, train, weights
from tests.tiny import tiny


def tensors(values: Any) -> list[Tensor]:
    """All tensors; of a sparse one, its two parts."""
    found = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    return [part for value in found for part in ([value._indices(), value._values()] if value.is_sparse else [value])]


class Recorder(TorchDispatchMode):
    """Writes operations down, and leaves the memory that was there before as it was: recording does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for part in tensors((args, kwargs)):
            memory = part.untyped_storage()
            if memory._cdata not in self.before:
                self.before[memory._cdata] = memory, memory.clone()
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        for memory, content in self.before.values():
            memory.copy_(content)

    @torch.no_grad()
    def play(self) -> None:
        for func, args, kwargs, out in self.calls:
            old = {part.untyped_storage()._cdata for part in tensors((args, kwargs))}
            for place, value in zip(tensors(out), tensors(func(*args, **kwargs)), strict=True):
                if place.untyped_storage()._cdata not in old:
                    place.copy_(value)


class Recordings:
    """Records on the CPU, and counts what is played."""

    def __init__(self) -> None:
        self.played: list[Recorder] = []

    def __call__(self, step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
        recorder = Recorder()
        with recorder:
            losses = step()
        recorder.undo()

        def play() -> None:
            self.played.append(recorder)
            recorder.play()

        return losses, play


def trained(
    folder: Path, monkeypatch: pytest.MonkeyPatch, record: Recordings | None, init: LatentInit | None, x: EncoderInput
) -> tuple[dict[str, np.ndarray], list[list[float]]]:
    """Train 18 particles, minibatches of four and one of two; return weights, and the losses of every step."""
    folder.mkdir()
    model = cryo_vae(particles_in(folder, n=18), x, init=init, lr=1e-3, table_lr=0.1)
    model.beta = lambda seen: seen / 100
    model.native = False  # as on a GPU; of C++ the recorder would know nothing
    if record is not None:
        model.team = CudaGraphStep(record=record)
    losses: list[list[float]] = []
    descend = model.team.descend

    def noted(*call: Any) -> Tensor:
        losses.append((terms := descend(*call)).tolist())
        return terms

    monkeypatch.setattr(model.team, "descend", noted)
    train(model, max_epochs=6)
    return weights(model), losses


@pytest.mark.parametrize(
    ("init", "x"),
    [(None, IdentityInput()), (None, NoiseTwin()), (ConstantLatents(), IdentityInput())],
    ids=["encoder", "noise twins", "lookup table"],
)
def test_steps_that_are_played_back_learn_the_same(
    init: LatentInit | None, x: EncoderInput, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recordings = Recordings()
    called, losses = trained(tmp_path / "called", monkeypatch, None, init, x)
    played, losses_of_played = trained(tmp_path / "played", monkeypatch, recordings, init, x)
    assert losses == losses_of_played and len(losses) == 6 * 5
    assert called.keys() == played.keys() and all(np.array_equal(called[key], played[key]) for key in called)
    assert len(recordings.played) == 6 * 5 - 2 * WARM_UP and len(set(map(id, recordings.played))) == 2


def test_a_number_that_the_program_counts_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch's SparseAdam counts steps in Python: its recorded step is forever the fourth."""
    monkeypatch.setattr(vae, "RowAdam", torch.optim.SparseAdam)
    called, _ = trained(tmp_path / "called", monkeypatch, None, ConstantLatents(), IdentityInput())
    played, _ = trained(tmp_path / "played", monkeypatch, Recordings(), ConstantLatents(), IdentityInput())
    assert not np.array_equal(called["latents.table.weight"], played["latents.table.weight"])


def test_a_processor_is_told_that_it_is_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trainer.capture=true: .*this is a cpu; expected trainer.capture=false"):
        tiny(tmp_path, "trainer.capture=true")


def test_several_devices_cannot_capture() -> None:
    config = compose("trainer.capture=true", "trainer.accelerator=cpu", "trainer.devices=2")
    with pytest.raises(InputError, match="captured on one GPU, and 2 devices were asked for"):
        places_of(config)
