"""Images of handwritten digits, ready for training: scikit-learn's, which need no download, and MNIST."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.files import idx_files
from lightning_modules.particles.split import Split


class PlainImages(nn.Module):
    """The image formation of pictures: none. They are not projections, and have neither shift nor CTF.

    Attributes:
        n_pixels: M, pixels of an image.
    """

    def __init__(self, n_pixels: int) -> None:
        """Set the size."""
        super().__init__()
        self.n_pixels = n_pixels

    def centre(self, y: Tensor, shift_px: Tensor | None) -> Tensor:
        """Return the images (B, M) as they are; nothing says where their centres are."""
        return y

    def phase_flip(self, x: Tensor, ctf: None) -> Tensor:
        """Return the images (B, M) as they are; no microscope took them."""
        return x


@dataclass(eq=False)
class Digits:
    """N images of handwritten digits, with what ``encoder_inputs`` asks of particles.

    Attributes:
        images: (N, M) float32 from 0 to 1, row by row.
        labels: ``state``, (N,) int64, the digit.
        index: (N,) their positions in the data as configured; all of them, unless some are held out.
    """

    images: Tensor
    labels: dict[str, np.ndarray]
    index: NDArray[np.int64]
    on_disk: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Measure what noise twins take from a data set."""
        self.norm_real = (float(self.images.mean()), float(self.images.std(unbiased=False)))

    def __len__(self) -> int:
        """Return N."""
        return len(self.images)

    @property
    def box_px(self) -> int:
        """Side D of the images in px."""
        return round(self.images.shape[1] ** 0.5)

    def formation(self) -> PlainImages:
        """Return the way from an image to what the encoder and the loss see: none."""
        return PlainImages(self.images.shape[1])

    def to(self, device: torch.device | str) -> "Digits":
        """Return digits whose images are on a device."""
        return dataclasses.replace(self, images=self.images.to(device))

    def raw(self, index: np.ndarray) -> Tensor:
        """Return images as pictures: index (B,) -> (B, D, D) float32."""
        return self.images[torch.as_tensor(index)].view(-1, self.box_px, self.box_px)

    def preprocess(self, raw: Tensor) -> Tensor:
        """Turn pictures (B, D, D) into what the encoder sees, (B, M): row by row, and nothing else."""
        return raw.flatten(1)


@dataclass(frozen=True)
class SklearnDigits:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 px: a part of the package.

    Attributes:
        n_particles: only the first so many; None: all.
    """

    n_particles: int | None = None

    def load(
        self,
        residency: str = "memory",
        cache_dir: str | Path = "cache",
        split: Split | None = None,
        like: Digits | None = None,
    ) -> Digits:
        """Read them, all or one side of a split. Nothing else matters: they are small, at hand, and not normalized."""
        from sklearn.datasets import load_digits

        pixels, digit = load_digits(return_X_y=True)
        return _digits(pixels / 16, digit, self.n_particles, split)


@dataclass(frozen=True)
class Mnist:
    """MNIST: 28 x 28 px, 60,000 images for training and 10,000 for tests.

    Attributes:
        root: folder of the four IDX files, or of torchvision's MNIST/raw; what is missing is downloaded there.
        split: "test" or "train".
        n_particles: only the first so many; None: all.
    """

    root: str
    split: str = "test"
    n_particles: int | None = None

    def load(
        self,
        residency: str = "memory",
        cache_dir: str | Path = "cache",
        split: Split | None = None,
        like: Digits | None = None,
    ) -> Digits:
        """Read the files, and download them first where they are not there.

        Args:
            residency: does not matter: 60,000 images are 188 MB.
            cache_dir: does not matter.
            split: of the images; take one side of it. Not the files' own, which is the attribute.
            like: does not matter: images are not normalized.

        Raises:
            InputError: a file is damaged, or it is missing and cannot be downloaded.
        """
        root = Path(self.root).expanduser()
        images, digit = (idx_files.read(root, self.split, kind) for kind in ("images", "labels"))
        return _digits(images.reshape(len(images), -1) / np.float32(255), digit, self.n_particles, split)


def _digits(pixels: np.ndarray, digit: np.ndarray, n_particles: int | None, split: Split | None) -> Digits:
    """Take the first images (N, M), from 0 to 1, and their digits (N,)."""
    if n_particles is not None and n_particles > len(pixels):
        raise InputError(f"data.n_particles={n_particles}: there are {len(pixels)} images; expected at most that")
    images = torch.from_numpy(pixels[:n_particles].astype(np.float32))
    index = np.arange(len(images)) if split is None else split.positions(len(images))
    return Digits(images[index], {"state": digit[index].astype(np.int64)}, index)
