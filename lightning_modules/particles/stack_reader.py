"""The images of a particle file, preprocessed as cryoDRGN does it."""

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from cryodrgn.dataset import ImageDataset
from cryodrgn.masking import spherical_window_mask
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.errors import InputError
from lightning_modules.files.image_stacks import Inventory

logger = logging.getLogger(__name__)

# Stacks that are read at once: on a network's disk each waits for its own answer.
THREADS = 16


class StackImages:
    """The images that are taken of a particle file, in float32 whatever the mode of their stacks.

    cryoDRGN's own sources take signed bytes for unsigned ones, and look for stacks in the working folder first.

    Attributes:
        n: number of images.
        D: their side in px.
    """

    def __init__(self, inventory: Inventory, rows: NDArray[np.int64]) -> None:
        """Take some images.

        Args:
            inventory: of the particle file.
            rows: (n,) rows of it.
        """
        self.n, self.D = len(rows), inventory.box_px
        self._stacks, self._headers = inventory.stacks, inventory.headers
        self._stack_of, self._number_of = inventory.stack_of_row[rows], inventory.numbers[rows]
        kinds = sorted({str(header.dtype) for header in self._headers} - {"float32"})
        if kinds:
            logger.info("images of type %s, read as float32", ", ".join(kinds))

    def images(self, indices: Iterable[int] | None = None) -> Tensor:
        """Read images.

        Args:
            indices: (B,), from 0 to n - 1; None: all.

        Returns:
            (B, D, D) float32.

        Raises:
            InputError: a stack has become shorter.
        """
        taken = np.arange(self.n) if indices is None else np.asarray(indices)
        stack_of, pixels = self._stack_of[taken], np.empty((len(taken), self.D, self.D), np.float32)

        def read(stack: int) -> None:
            places = np.flatnonzero(stack_of == stack)
            self._read(stack, self._number_of[taken[places]], places, pixels)

        stacks = np.unique(stack_of).tolist()
        with ThreadPoolExecutor(min(THREADS, len(stacks))) as pool:
            list(pool.map(read, stacks))
        return torch.from_numpy(pixels)

    def _read(self, stack: int, numbers: np.ndarray, places: np.ndarray, pixels: NDArray[np.float32]) -> None:
        """Read images of one stack into their places, each run of consecutive ones at once."""
        header, size = self._headers[stack], self.D**2
        with open(self._stacks[stack], "rb") as file:  # noqa: PTH123
            for run in np.split(np.arange(len(numbers)), np.flatnonzero(np.diff(numbers) != 1) + 1):
                file.seek(header.start + int(numbers[run[0]]) * size * header.dtype.itemsize)
                found = np.fromfile(file, header.dtype, size * len(run))
                if len(found) < size * len(run):
                    raise InputError(f"{self._stacks[stack]}: became shorter while it was read; copy it again")
                pixels[places[run]] = found.reshape(-1, self.D, self.D)


class StackReader(ImageDataset):
    """cryoDRGN's ``ImageDataset``, for the images of any particle file.

    Its constructor is not called: it opens the file itself, and it has a window of zeros and ones for integers.
    """

    def __init__(
        self,
        images: StackImages,
        invert: bool,
        window_r: float | None,
        norm: tuple[float, float] | None = None,
        norm_real: tuple[float, float] | None = None,
    ) -> None:
        """Open a stack.

        Args:
            images: raw ones.
            invert: multiply them by -1.
            window_r: radius at which the window starts to fall, as a fraction of half the box; None: no window.
            norm: mean and std of the Hartley transforms; None estimates them from about 1,000 images.
            norm_real: mean and std of the raw images; None: likewise.
        """
        self.src, self.N, self.D = images, images.n, images.D + 1  # side after symmetrization
        self.invert_data, self.keepreal, self.device, self.lazy = invert, False, "cpu", True
        self.window: Tensor | None = None
        if window_r is not None:
            self.window = spherical_window_mask(D=images.D, in_rad=window_r, out_rad=0.99)
        self.norm = [float(value) for value in norm or self.estimate_normalization()]
        self.norm_real = [float(value) for value in norm_real or self.estimate_normalization_real()]

    def hartley(self, raw: Tensor) -> Tensor:
        """Invert, window, transform, symmetrize and normalize, as ``ImageDataset`` does.

        Args:
            raw: (B, D, D) images as on disk; overwritten.

        Returns:
            (B, L*L) Hartley transforms.
        """
        if self.window is not None:
            self.window = self.window.to(raw.device)
        return self._process(raw)[1].reshape(len(raw), -1)
