"""From raw images on disk to the Hartley transforms that training compares with, chunk by chunk."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from tqdm import tqdm

from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import Inventory
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.selection import Selection, listed
from lightning_modules.particles.stack_reader import StackImages, StackReader

# Bounds the memory of one chunk: the Fourier transform of 2**24 pixels takes a few hundred MB.
CHUNK_PIXELS = 1 << 24
# Chunks that are read while another is transformed. Reading waits for the disk; transforming takes all processors.
READ_AHEAD = 3


@dataclass(frozen=True)
class Preprocessing:
    """What is to be preprocessed, and how.

    Attributes:
        files: the particle set.
        inventory: what its particle file stands for.
        selection: which of these images are taken.
        norm: mean and std that normalize the Hartley transforms; None: from the images.
        chunk: most images that are in work at once.
    """

    files: ParticleFiles
    inventory: Inventory
    selection: Selection
    norm: tuple[float, float] | None = None
    chunk: int = 1024

    @property
    def shape(self) -> tuple[int, int]:
        """(N, M) of the result."""
        return len(self.selection.rows), ImageFormation(self.inventory.box_px).n_pixels

    def open(
        self, norm: tuple[float, float] | None = None, norm_real: tuple[float, float] | None = None
    ) -> StackReader:
        """Open the stack; a norm that is not given is that of the images."""
        images = StackImages(self.inventory, self.selection.rows)
        window_r = self.files.window_r if self.files.window else None
        return StackReader(images, self.files.invert, window_r, norm or self.norm, norm_real)

    def chunks(self, reader: StackReader) -> Iterator[tuple[int, Tensor]]:
        """Yield, chunk by chunk, the position of its first particle and its (B, M) Hartley transforms.

        Raises:
            InputError: an image without contrast, or with values that are no numbers.
        """
        n_particles, mask = len(self.selection.rows), ImageFormation(self.inventory.box_px).mask
        step = max(1, min(self.chunk, CHUNK_PIXELS // reader.src.D**2))
        bar = tqdm(total=n_particles, desc="preprocessing images", unit="image", disable=None, delay=1, leave=False)
        unusable = UnusableImages(self.files.particles)
        with bar:
            for start, raw in _read_ahead(reader, n_particles, step):
                unusable.look_at(raw, self.selection.rows[start : start + step])
                if not unusable.any:  # else all are looked at, and none is needed any more
                    yield start, reader.hartley(raw)[:, mask]
                bar.update(len(raw))
        unusable.refuse()
        if not (np.isfinite(reader.norm[1]) and reader.norm[1] > 0):
            raise InputError(
                f"{self.files.particles}: the Hartley transforms have a standard deviation of {reader.norm[1]}, "
                "expected a positive number; the pixel values are too large or too small"
            )


def _read_ahead(reader: StackReader, n_particles: int, step: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the raw chunks (B, D, D) in order, each with where it starts, while the next ones are read."""
    starts = iter(range(0, n_particles, step))
    with ThreadPoolExecutor(READ_AHEAD) as pool:
        reading: deque[tuple[int, Future[Tensor]]] = deque()

        def read_next() -> None:
            if (start := next(starts, None)) is not None:
                index = np.arange(start, min(start + step, n_particles))
                reading.append((start, pool.submit(reader.src.images, index)))

        for _ in range(READ_AHEAD):
            read_next()
        while reading:
            start, raw = reading.popleft()
            read_next()
            yield start, raw.result()


class UnusableImages:
    """Finds the images that no model can be trained on, in all chunks, so that they are left out at once.

    Attributes:
        any: whether there is one.
    """

    def __init__(self, particles: str) -> None:
        """Begin.

        Args:
            particles: the file, for the message.
        """
        self._particles = particles
        self._found: dict[str, list[np.ndarray]] = {"NaN or infinite pixels": [], "one value in all pixels": []}
        self.any = False

    def look_at(self, raw: Tensor, rows: np.ndarray) -> None:
        """Look at some images.

        Args:
            raw: (B, D, D).
            rows: (B,) their numbers in the particle file.
        """
        low, high = raw.amin(dim=(1, 2)), raw.amax(dim=(1, 2))
        for found, wrong in zip(self._found, (~(low.isfinite() & high.isfinite()), low == high), strict=True):
            if wrong.any():
                self.any = True
                self._found[found].append(rows[wrong.numpy()])

    def refuse(self) -> None:
        """Raise an InputError that names all of them, if there are any."""
        if self.any:
            found = " and ".join(
                f"{listed('image', np.concatenate(rows))} with {what}" for what, rows in self._found.items() if rows
            )
            raise InputError(
                f"{self._particles}: found {found} (counted from 0), expected images with contrast; leave them out "
                "with data.ind"
            )
