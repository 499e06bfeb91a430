"""A step that is recorded once and then played back: many small operations, started by one call.

At batch 8 a GPU is done with an operation before its processor has called the next. A CUDA graph holds all operations
of a step, on the same places in memory, and starts them together. What is learned is what separate calls learn.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_modules.elbo import Elbo
from lightning_modules.errors import InputError
from lightning_modules.optimization.data_parallel import SingleProcess
from lightning_modules.optimization.step_inputs import StepInputs

WARM_UP = 3  # steps by separate calls, in which libraries and optimizers set up what a recording must find in place


@dataclass
class RecordedStep:
    """One step on minibatches of one size.

    Attributes:
        inputs: what it reads; a minibatch is copied here.
        losses: (3,) what it writes.
        play: does it.
    """

    inputs: StepInputs
    losses: Tensor
    play: Callable[[], None]


def cuda_graph(step: Callable[[], Tensor]) -> tuple[Tensor, Callable[[], None]]:
    """Record a step, without doing it: return where it will write its losses, and what does it."""
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream()  # torch's own would stay on the GPU of the process's first recording
    with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
        losses = step()
    return losses, graph.replay


class CudaGraphStep(SingleProcess):
    """One process with one GPU, whose steps are played back.

    Attributes:
        recorded: a step for each size of minibatch: an epoch's last may be smaller.
    """

    def __init__(
        self,
        stop_requested: Callable[[], bool] = lambda: False,
        record: Callable[[Callable[[], Tensor]], tuple[Tensor, Callable[[], None]]] = cuda_graph,
    ) -> None:
        """Set who knows whether to stop, and what records."""
        super().__init__(stop_requested)
        self.recorded: dict[int, RecordedStep] = {}
        self._record, self._n_steps = record, Counter[int]()

    def descend(
        self, elbo: Callable[..., Elbo], inputs: StepInputs, index: Tensor, optimizers: Sequence[torch.optim.Optimizer]
    ) -> Tensor:
        """Take a step; see :meth:`SingleProcess.descend`.

        Raises:
            InputError: the minibatch is not on a GPU.
        """
        size, device = len(index), inputs.eps.device
        if self._record is cuda_graph and device.type != "cuda":
            raise InputError(
                f"trainer.capture=true: steps are captured on an NVIDIA GPU alone, and this is a {device.type}; "
                "expected trainer.capture=false"
            )
        self._n_steps[size] += 1
        if self._n_steps[size] <= WARM_UP:
            with _beside(device):
                return super().descend(elbo, inputs, index, optimizers)
        if size not in self.recorded:
            self.recorded[size] = self._recording(elbo, inputs, index, optimizers)
        step = self.recorded[size]
        step.inputs.take(inputs)
        step.play()
        return step.losses.clone()

    def _recording(
        self, elbo: Callable[..., Elbo], inputs: StepInputs, index: Tensor, optimizers: Sequence[torch.optim.Optimizer]
    ) -> RecordedStep:
        own, descend = inputs.own(), super().descend
        with _capturable(optimizers):
            losses, play = self._record(lambda: descend(elbo, own, index, optimizers))
        return RecordedStep(own, losses, play)


@contextmanager
def _beside(device: torch.device) -> Iterator[None]:
    """Work on another stream than usual, as torch asks for before a recording."""
    if device.type != "cuda":
        yield
        return
    stream, usual = torch.cuda.Stream(device), torch.cuda.current_stream(device)
    stream.wait_stream(usual)
    with torch.cuda.stream(stream):
        yield
    usual.wait_stream(stream)


@contextmanager
def _capturable(optimizers: Sequence[torch.optim.Optimizer]) -> Iterator[None]:
    """Tell Adam that it is recorded; at other times it would warn of being told."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups if "capturable" in group]
    for group in groups:
        group["capturable"] = True
    try:
        yield
    finally:
        for group in groups:
            group["capturable"] = False
