"""A training step never waits for its device: nothing is read back, and nothing is copied to it one step at a time.

Losses are read once per block of minibatches, so that one that is no number is noticed soon.

No GPU is needed to see that. Tensors of torch's "meta" device have no values, so that reading one back fails; and
what is called is traced.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_modules.encoder_inputs.encoder_input import EncoderInput, IdentityInput
from lightning_modules.encoder_inputs.twins import NoiseTwin, PermutedTwin
from lightning_modules.latents.table_init import ConstantLatents
from lightning_modules.optimization.minibatches import EpochBlocks, MinibatchBlock
from lightning_modules.optimization.row_adam import RowAdam
from lightning_modules.particles.particles import Particles
from lightning_modules.vae.cryo_vae import CryoVAE
from tests.small_models import cryo_vae, particles_in

# What makes a processor wait for its GPU: reading a value, or learning a size from values.
WAITS = {
    "_local_scalar_dense",
    "nonzero",
    "unique",
    "unique2",
    "_unique2",
    "masked_select",
    "_coalesce",
    "equal",
    "is_nonzero",
}


class Trace(TorchDispatchMode):
    """Counts the operations, and the copies from one device to another."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.calls[func.overloadpacket.__name__] += 1
        if isinstance(out, torch.Tensor) and args and isinstance(args[0], torch.Tensor):
            self.copies += func.overloadpacket.__name__ in ("_to_copy", "copy_") and _from(func, args) != out.device
        return out


def _from(func: Any, args: Any) -> torch.device:
    return args[1].device if func.overloadpacket.__name__ == "copy_" else args[0].device


@pytest.fixture
def particles(tmp_path: Path) -> Particles:
    return particles_in(tmp_path, n=40)


@contextmanager
def on_meta(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what knows nothing of the device meta treat it as a GPU."""
    with monkeypatch.context() as patch:
        patch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
        patch.setattr(torch, "is_autocast_enabled", lambda *_: False)
        patch.setattr(
            sys.modules[torch.optim.Optimizer.__module__], "_get_fused_kernels_supported_devices", lambda: ["meta"]
        )
        yield


def trained(model: CryoVAE, n_batches: int) -> Trace:
    """Trace a block of minibatches of four, but for its optimizers' first step, which makes their states."""
    model.prepare()
    optimizers = model.configure_optimizers()
    model.optimizers = lambda **_: optimizers  # type: ignore[method-assign]
    reports: list[MinibatchBlock] = []
    model._report = reports.append  # type: ignore[method-assign]
    first, second = list(EpochBlocks(len(model.particles), 4, n_batches, seed=0, epoch=0))[:2]
    model.training_step(first, 0)
    with Trace() as trace:
        model.training_step(second, 1)
    assert reports == [first, second]
    assert trace.calls["mm"] >= 8 * n_batches, "matrix products were traced"
    return trace


@pytest.mark.parametrize("encoder_input", [IdentityInput, PermutedTwin, NoiseTwin])
def test_nothing_is_read_back_and_copies_do_not_grow_with_the_steps(
    encoder_input: type[EncoderInput], particles: Particles, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = []
    for n_batches in (2, 5):
        model = cryo_vae(particles, encoder_input())
        with on_meta(monkeypatch):
            trace = trained(model.to("meta"), n_batches)
        assert not trace.calls.keys() & WAITS
        copies.append(trace.copies)
    assert copies[0] == copies[1] <= 3  # indices of the particles, noise in z


def test_a_value_that_is_read_back_fails(particles: Particles, monkeypatch: pytest.MonkeyPatch) -> None:
    model = cryo_vae(particles)
    descend = model.team.descend
    model.team.descend = lambda *call: (losses := descend(*call), losses.tolist())[0]  # type: ignore[method-assign]
    with on_meta(monkeypatch), pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        trained(model.to("meta"), 2)


def test_a_table_is_trained_without_waiting(particles: Particles) -> None:
    trace = trained(cryo_vae(particles, init=ConstantLatents()), 3)
    assert not trace.calls.keys() & WAITS


def test_rows_move_as_sparse_adam_moves_them() -> None:
    ours, theirs = (torch.nn.Embedding(10, 3, sparse=True) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    optimizers = RowAdam(ours.parameters(), lr=0.1), torch.optim.SparseAdam(theirs.parameters(), lr=0.1)
    for step in range(4):
        index = torch.randperm(10, generator=torch.Generator().manual_seed(step))[:4]
        for table, optimizer in zip((ours, theirs), optimizers, strict=True):
            optimizer.zero_grad()
            (table(index) ** 2).sum().backward()
            optimizer.step()
        assert torch.equal(ours.weight, theirs.weight)
    states = [optimizer.state[optimizer.param_groups[0]["params"][0]] for optimizer in optimizers]
    assert torch.equal(states[0]["exp_avg"], states[1]["exp_avg"]) and states[0]["step"] == states[1]["step"]
