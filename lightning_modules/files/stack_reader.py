"""The images of a particle file, read as cryoDRGN reads them."""

import logging
from typing import Any

import numpy as np
import torch
from cryodrgn.dataset import ImageDataset
from cryodrgn.source import ImageSource
from torch import Tensor

logger = logging.getLogger(__name__)


class _Float32Source:
    """A cryoDRGN image source that gives float32 whatever the stack's mode, as it does for stacks in a .star.

    Read directly, integer stacks make ``ImageDataset`` fail (torch.mean of integers), and would get a window
    of zeros and ones; half-precision ones are windowed in half precision.
    """

    dtype = np.float32

    def __init__(self, source: ImageSource) -> None:
        self._source = source
        self.D: int = source.D
        self.n: int = source.n

    def images(self, indices: Any = None) -> Tensor:
        images = self._source.images(indices, as_numpy=True)
        return torch.from_numpy(images.astype(np.float32, copy=False))


class StackReader(ImageDataset):
    """cryoDRGN's ``ImageDataset``, lazy, for every real-valued MRC mode."""

    window: Tensor | None

    def __init__(self, norm_real: tuple[float, float] | None = None, **options: Any) -> None:
        """Open a stack; arguments as ``ImageDataset``.

        Args:
            norm_real: mean and std of the raw images; None estimates them from about 1,000 images.
            **options: those of ``ImageDataset``. Its ``norm`` is estimated likewise where it is None.
        """
        self._norm_real = norm_real
        super().__init__(lazy=True, **options)

    @property
    def src(self) -> _Float32Source:
        """The images as on disk, in float32."""
        return self._source

    @src.setter
    def src(self, source: ImageSource) -> None:
        if np.dtype(source.dtype) != np.float32:
            logger.info("images of type %s, read as float32", np.dtype(source.dtype))
        self._source = _Float32Source(source)

    def estimate_normalization_real(self, n: int = 1000) -> tuple[float, float]:
        """Mean and std of the raw images, from those that ``ImageDataset`` takes."""
        return self._norm_real or super().estimate_normalization_real(n)

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
