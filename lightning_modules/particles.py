"""Particles ready for training: images preprocessed once, with poses, CTF and labels."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from lightning_modules.errors import InputError
from lightning_modules.image_formation import ImageFormation
from lightning_modules.image_stacks import Inventory, StackReader, inspect
from lightning_modules.particle_files import ParticleFiles, Selection, read_labels, read_selection
from lightning_modules.poses_and_ctf import read_ctf, read_poses

logger = logging.getLogger(__name__)

RESIDENCIES = ("memory", "disk")
# Bounds the memory of one chunk: the Fourier transform of 2**24 pixels takes a few hundred MB.
CHUNK_PIXELS = 1 << 24


@dataclass(eq=False)
class Particles:
    """N particles: what the loss compares with, and all that is known about each.

    Attributes:
        images: (N, M) float32, windowed, Hartley-transformed, symmetrized, normalized, masked; not centred.
            May be memory-mapped.
        rotations: (N, 3, 3) float32, as cryoDRGN applies them: ``coords @ rotation``.
        shifts_px: (N, 2) float32, in px of the lattice (side D + 1), as ``cryodrgn.pose.PoseTracker`` scales
            them.
        ctf_params: (N, 8) float32: pixel size (A), defocus U and V (A), astigmatism angle (deg), voltage
            (kV), spherical aberration (mm), amplitude contrast, phase shift (deg). None: no CTF.
        box_px: side D of the images.
        pixel_size_angstrom: of the images as they are (after downsampling).
        norm: mean and std that normalized the Hartley transforms.
        norm_real: mean and std of the raw images.
        labels: ``state``, (N,) int64, and ``hinge_rad``, (N,) float64, where they are known.
        files: where all this came from.
        on_disk: the images stay in a file.
        index: (N,) their positions in the data as configured; all of them, unless some are held out.
    """

    images: Tensor
    rotations: Tensor
    shifts_px: Tensor
    ctf_params: Tensor | None
    box_px: int
    pixel_size_angstrom: float
    norm: tuple[float, float]
    norm_real: tuple[float, float]
    labels: dict[str, np.ndarray] | None
    files: ParticleFiles
    index: NDArray[np.int64]
    on_disk: bool = False
    _reader: StackReader | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """Return N."""
        return len(self.rotations)

    def formation(self) -> ImageFormation:
        """Return the centring and CTF of images of this size."""
        return ImageFormation(self.box_px)

    def to(self, device: torch.device | str) -> "Particles":
        """Return particles whose tensors are on a device; the raw images stay on disk."""
        moved = {name: getattr(self, name).to(device) for name in ("images", "rotations", "shifts_px")}
        ctf_params = None if self.ctf_params is None else self.ctf_params.to(device)
        return dataclasses.replace(self, ctf_params=ctf_params, **moved)

    def raw(self, index: np.ndarray) -> Tensor:
        """Read images as they are on disk: in real space, before inversion and window.

        Args:
            index: (B,) particles, from 0 to N - 1.

        Returns:
            (B, D, D) float32 on the CPU.
        """
        return self._open().src.images(np.asarray(index, dtype=np.int64))

    def preprocess(self, raw: Tensor) -> Tensor:
        """Preprocess real-space images as :attr:`images` were, by ``cryodrgn.dataset.ImageDataset``.

        Args:
            raw: (B, D, D) float32, on any device; left as it is.

        Returns:
            (B, M) on the device of ``raw``.
        """
        mask = ImageFormation(self.box_px).mask.to(raw.device)
        return self._open().hartley(raw.clone())[:, mask]

    def _open(self) -> StackReader:
        if self._reader is None:
            images = inspect(Path(self.files.particles), self.files.datadir)
            selection = read_selection(self.files, images.n_images)
            self._reader = _open_stack(self.files, selection, self.norm, self.norm_real)
        return self._reader


def load_particles(
    files: ParticleFiles,
    residency: str = "memory",
    cache_dir: str | Path = "cache",
    chunk: int = 1024,
    norm: tuple[float, float] | None = None,
) -> Particles:
    """Read a particle set, and preprocess its images once.

    What is cheap is checked first: files, headers, poses and CTF; images are read last.

    Args:
        files: the particle set.
        residency: "memory" holds the preprocessed images in memory; "disk" keeps them in a file under
            ``cache_dir``, mapped into memory, and finds them there the next time.
        cache_dir: folder for residency "disk".
        chunk: most images that are in work at once.
        norm: mean and std that normalize the Hartley transforms, those of the particles that a model was trained
            on; None: from these images.

    Returns:
        The particles, on the CPU.

    Raises:
        InputError: anything about the files that cannot be used. Nothing half-written stays behind.
    """
    if residency not in RESIDENCIES:
        raise InputError(f"data.residency={residency}: expected one of {', '.join(RESIDENCIES)}")
    files = files.checked()
    images = inspect(Path(files.particles), files.datadir)
    mask = ImageFormation(images.box_px).mask
    selection = read_selection(files, images.n_images)
    rotations, shifts_px = read_poses(files, images, selection)
    ctf_params = read_ctf(files, images, selection)
    labels = read_labels(files, selection)
    if residency == "disk":
        pixels, reader = _on_disk(files, images, selection, mask, Path(cache_dir), chunk, norm)
    else:
        _refuse_too_many(files, len(selection.rows), int(mask.sum()))
        reader = _open_stack(files, selection, norm)
        pixels = torch.empty(len(selection.rows), int(mask.sum()))
        for start, hartley in _preprocessed(files, selection, reader, mask, chunk):
            pixels[start : start + len(hartley)] = hartley
    return Particles(
        images=pixels,
        rotations=torch.from_numpy(rotations),
        shifts_px=torch.from_numpy(shifts_px),
        ctf_params=None if ctf_params is None else torch.from_numpy(ctf_params),
        box_px=images.box_px,
        pixel_size_angstrom=_pixel_size_angstrom(files, images, ctf_params),
        norm=(reader.norm[0], reader.norm[1]),
        norm_real=(reader.norm_real[0], reader.norm_real[1]),
        labels=labels,
        files=files,
        index=selection.positions,
        on_disk=residency == "disk",
        _reader=reader,
    )


def _refuse_too_many(files: ParticleFiles, n_particles: int, n_pixels: int) -> None:
    needed_bytes, there_bytes = 4 * n_particles * n_pixels, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed_bytes > there_bytes:
        raise InputError(
            f"{files.particles}: {needed_bytes / 1e9:.1f} GB of images, and {there_bytes / 1e9:.1f} GB of memory; set "
            "data.residency=disk, or take fewer with data.n_particles"
        )


def _pixel_size_angstrom(files: ParticleFiles, images: Inventory, ctf_params: np.ndarray | None) -> float:
    if ctf_params is not None:
        return float(ctf_params[0, 0])
    return files.pixel_size_angstrom or images.pixel_size_angstrom or 1.0


def _open_stack(
    files: ParticleFiles,
    selection: Selection,
    norm: tuple[float, float] | None = None,
    norm_real: tuple[float, float] | None = None,
) -> StackReader:
    return StackReader(
        mrcfile=files.particles,
        datadir=files.datadir,
        ind=None if selection.is_whole else selection.rows,
        invert_data=files.invert,
        window=files.window,
        window_r=files.window_r,
        norm=norm,
        norm_real=norm_real,
    )


def _preprocessed(
    files: ParticleFiles, selection: Selection, reader: StackReader, mask: Tensor, chunk: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield, chunk by chunk, the position of its first particle and its (B, M) Hartley transforms."""
    n_particles = len(selection.rows)
    step = max(1, min(chunk, CHUNK_PIXELS // reader.src.D**2))
    with tqdm(total=n_particles, desc="preprocessing images", unit="image", disable=None, delay=1, leave=False) as bar:
        for start in range(0, n_particles, step):
            raw = reader.src.images(np.arange(start, min(start + step, n_particles)))
            _check_images(raw, files, selection.rows[start : start + step])
            yield start, reader.hartley(raw)[:, mask]
            bar.update(len(raw))
    if not (np.isfinite(reader.norm[1]) and reader.norm[1] > 0):
        raise InputError(
            f"{files.particles}: the Hartley transforms have a standard deviation of {reader.norm[1]}, "
            "expected a positive number; the pixel values are too large or too small"
        )


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


def _on_disk(
    files: ParticleFiles,
    images: Inventory,
    selection: Selection,
    mask: Tensor,
    cache_dir: Path,
    chunk: int,
    norm: tuple[float, float] | None,
) -> tuple[Tensor, StackReader]:
    """Preprocess into a file, or find it finished; two runs that need it at once make it once."""
    folder = cache_dir / "preprocessed"
    folder.mkdir(parents=True, exist_ok=True)
    key = _cache_key(files, images, selection, norm)
    stored, norms = folder / f"{key}.npy", folder / f"{key}.json"
    with FileLock(folder / f"{key}.lock"):
        if stored.exists():
            logger.info("preprocessed images found in %s", stored)
            reader = _open_stack(files, selection, **json.loads(norms.read_text()))
        else:
            reader = _open_stack(files, selection, norm)
            _write_images(stored, files, selection, reader, mask, chunk)
    # Mode "c" never writes to the file, and spares torch its warning about read-only memory.
    return torch.from_numpy(np.load(stored, mmap_mode="c")), reader


def _write_images(
    stored: Path, files: ParticleFiles, selection: Selection, reader: StackReader, mask: Tensor, chunk: int
) -> None:
    shape = (len(selection.rows), int(mask.sum()))
    needed_bytes, free_bytes = 4 * shape[0] * shape[1], shutil.disk_usage(stored.parent).free
    if needed_bytes > free_bytes:
        raise InputError(
            f"{stored.parent}: {free_bytes / 1e9:.1f} GB free, expected {needed_bytes / 1e9:.1f} GB for the "
            "preprocessed images; make room or set data.residency=memory"
        )
    unfinished = stored.with_suffix(".tmp")
    try:
        with unfinished.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for _, hartley in _preprocessed(files, selection, reader, mask, chunk):
                file.write(hartley.contiguous().numpy().astype("<f4", copy=False).data)
        # The images come last: where they are, the norms are too.
        norms = {"norm": reader.norm, "norm_real": reader.norm_real}
        stored.with_suffix(".json").write_text(json.dumps(norms))
        os.replace(unfinished, stored)
    finally:
        unfinished.unlink(missing_ok=True)


def _cache_key(files: ParticleFiles, images: Inventory, selection: Selection, norm: tuple[float, float] | None) -> str:
    """Hash of all that decides the preprocessed images: stacks, rows, options, a given norm, cryoDRGN's version."""
    import cryodrgn

    paths = [Path(path) for path in (files.particles, *images.stacks)]
    stats = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    decisive: dict[str, Any] = {
        "stacks": stats,
        "rows": hashlib.sha256(selection.rows.tobytes()).hexdigest(),
        "options": (files.invert, files.window, files.window_r),
        "cryodrgn": cryodrgn.__version__,
        **({} if norm is None else {"norm": norm}),
    }
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()[:16]
