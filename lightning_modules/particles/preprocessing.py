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
from lightning_modules.files.stack_reader import StackImages, StackReader
from lightning_modules.image_formation import ImageFormation
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.selection import Selection

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
        with bar:
            for start, raw in _read_ahead(reader, n_particles, step):
                _check_images(raw, self.files, self.selection.rows[start : start + step])
                yield start, reader.hartley(raw)[:, mask]
                bar.update(len(raw))
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


def _check_images(raw: Tensor, files: ParticleFiles, rows: np.ndarray) -> None:
    low, high = raw.amin(dim=(1, 2)), raw.amax(dim=(1, 2))
    for wrong, found in (
        (~(low.isfinite() & high.isfinite()), "has NaN or infinite pixels"),
        (low == high, "is constant"),
    ):
        if wrong.any():
            row = rows[int(wrong.int().argmax())]
            raise InputError(
                f"{files.particles}: image {row} (counted from 0) {found}, expected an image with contrast; "
                "leave it out with data.ind"
            )
