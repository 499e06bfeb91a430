"""The smallest settings at which every experiment still does all that it does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from experiments.configuration import stored
from experiments.configuration.compose import compose
from experiments.runs.execution import execute
from experiments.runs.run import Run

SETTINGS = (
    "data.n_particles=24",
    "data.box_px=16",
    "data.shift_px=0.5",
    "trainer.max_epochs=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "precision=float32",
    "decoder.width=16",
    "zdim=3",
)
# For runs in processes of their own: in each, UMAP would be imported, and compiled where it was not before.
ON_A_PLANE = (*SETTINGS, "zdim=2")


def tiny(folder: Path, *overrides: str) -> Run:
    """Carry out an experiment at the smallest size, everything below a folder."""
    return execute(compose(*SETTINGS, f"paths.runs={folder}/runs", f"paths.cache={folder}/cache", *overrides))


@contextmanager
def trusted(task: type) -> Iterator[None]:
    """Let configurations name a class of the tests."""
    name, is_known = f"{task.__module__}.{task.__qualname__}", stored.is_known
    with mock.patch.object(stored, "is_known", lambda place, target: target == name or is_known(place, target)):
        yield
