"""Checksums of a run's data: of every byte where files are small, of a fixed sample of large stacks."""

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

WHOLE_UP_TO = 1 << 28  # bytes: a second
N_SAMPLED = 256  # images, of all stacks together


class DataFile(NamedTuple):
    """A file that a run reads.

    Attributes:
        path: of the file.
        n_sampled: images that a checksum takes of a large stack; None: of what is no stack, all is taken.
    """

    path: Path
    n_sampled: int | None

    def checksum(self) -> dict[str, Any]:
        """Return size, what was taken, and the SHA-256 of that."""
        return _whole(self.path) if self.n_sampled is None else of_stack(self.path, self.n_sampled)


def checksums_of(config: DictConfig, files: Mapping[str, DataFile] | None = None) -> dict[str, dict[str, Any]]:
    """Return the checksums of a configuration's data.

    Args:
        config: checked; simulated data are made if they do not exist.
        files: those of its data, where they are known; see :func:`files_of`.

    Returns:
        For each file, under the name of its key (stacks that a table names: under their number), its size, what was
        taken of it, and the SHA-256 of that. Digits have no files of their own, and their images are taken.
    """
    files = files_of(config) if files is None else files
    if files is not None:
        return {name: file.checksum() for name, file in files.items()}
    import numpy as np

    from experiments.runs.building import described_data

    content = np.ascontiguousarray(described_data(config).load().images).tobytes()
    return {"images": {"bytes": len(content), "of": "all images", "sha256": hashlib.sha256(content).hexdigest()}}


def files_of(config: DictConfig) -> dict[str, DataFile] | None:
    """Return the files of a configuration's data by name; None: the data are no files of their own.

    Args:
        config: checked; simulated data are made if they do not exist.
    """
    from experiments.runs.building import described_data
    from lightning_modules.files.image_stacks import inspect
    from lightning_modules.particles.sources import ParticleSource

    source = described_data(config)
    if not isinstance(source, ParticleSource):
        return None
    files = source.particle_files()
    stacks = inspect(Path(files.particles), files.datadir).stacks
    tables = {key: getattr(files, key) for key in ("particles", "poses", "ctf", "labels", "ind")}
    found = {key: DataFile(Path(path), None) for key, path in tables.items() if path is not None and path not in stacks}
    per_stack = max(1, N_SAMPLED // len(stacks))
    for number, path in enumerate(stacks):
        name = "particles" if path == files.particles else f"stack {number}"
        found[name] = DataFile(Path(path), per_stack)
    return found


def of_stack(path: Path, n_sampled: int, whole_up_to: int = WHOLE_UP_TO) -> dict[str, Any]:
    """Return the checksum of a stack: of all of it, or where it is large of its size, header and some images.

    Args:
        path: an .mrcs.
        n_sampled: images that are taken of a large one, the same every time.
        whole_up_to: bytes.
    """
    import numpy as np

    from lightning_modules.files.mrc_headers import HEADER_BYTES, read_header

    size = path.stat().st_size
    if size <= whole_up_to:
        return _whole(path)
    n_images = read_header(path).n_images
    rows = np.sort(np.random.default_rng(0).permutation(n_images)[:n_sampled])
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
        digest.update(header)
        start = HEADER_BYTES + struct.unpack_from("=i", header, 92)[0]  # after the extended header
        image_bytes = (size - start) // n_images
        for row in rows:
            file.seek(start + int(row) * image_bytes)
            digest.update(file.read(image_bytes))
    return {"bytes": size, "of": f"size, header and {len(rows)} of {n_images} images", "sha256": digest.hexdigest()}


def _whole(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return {"bytes": path.stat().st_size, "of": "all of it", "sha256": digest.hexdigest()}
