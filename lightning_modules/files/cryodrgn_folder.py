"""The files of a run of ``cryodrgn train_vae``; nothing heavy is imported, nothing in them is believed."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import is_regular, regular_file

CONFIGS = ("config.yaml", "config.pkl")  # of versions 2 to 4, and of those before


@dataclass(frozen=True)
class Folder:
    """A run of cryoDRGN at one epoch.

    Attributes:
        path: its output folder.
        config: config.yaml or config.pkl.
        weights: weights.N.pkl, or weights.pkl.
        z: z.N.pkl, or z.pkl.
        poses: pose.N.pkl or pose.pkl, where the poses were refined in training.
    """

    path: Path
    config: Path
    weights: Path
    z: Path
    poses: Path | None

    @classmethod
    def find(cls, path: str | Path, epoch: int | None = None) -> "Folder":
        """Find the files.

        Args:
            path: output folder of ``cryodrgn train_vae``.
            epoch: N of weights.N.pkl; None: the last, which is weights.pkl unless a numbered one is newer.

        Raises:
            InputError: no such folder or epoch, or not such a run; the message says what is there.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise InputError(f"audit.run={folder}: no such folder, expected the one given to `cryodrgn train_vae -o`")
        config = next((folder / name for name in CONFIGS if is_regular(folder / name)), None)
        if config is None:
            raise InputError(
                f"audit.run={folder}: neither config.yaml nor config.pkl in it, expected the folder given to "
                "`cryodrgn train_vae -o`"
            )
        number = _number_of(folder, epoch)
        poses = folder / f"pose{number}.pkl"
        return cls(
            folder,
            config,
            regular_file(folder / f"weights{number}.pkl", "the weights of that epoch"),
            regular_file(folder / f"z{number}.pkl", "the latents of that epoch"),
            poses if is_regular(poses) else None,
        )

    def fingerprint(self) -> str:
        """Return a hash of what is audited: configuration, weights and latents."""
        digest = hashlib.sha256()
        for path in (self.config, self.weights, self.z):
            with regular_file(path, "a file of the run").open("rb") as file:
                while chunk := file.read(1 << 22):
                    digest.update(chunk)
        return digest.hexdigest()[:16]


def _number_of(folder: Path, epoch: int | None) -> str:
    """Return what stands between name and .pkl: ".N", or nothing where it is the final one."""
    found = {
        int(match[1]): path for path in folder.iterdir() if (match := re.fullmatch(r"weights\.(\d+)\.pkl", path.name))
    }
    final = folder / "weights.pkl"
    if epoch is not None:
        if epoch not in found:
            there = ", ".join(map(str, sorted(found))) or "none"
            raise InputError(f"audit.epoch={epoch}: no weights.{epoch}.pkl in {folder}, expected one of: {there}")
        return f".{epoch}"
    if not found and not is_regular(final):
        raise InputError(f"audit.run={folder}: no weights.N.pkl in it; did an epoch of training end?")
    if found and (not is_regular(final) or found[max(found)].stat().st_mtime > final.stat().st_mtime + 1):
        return f".{max(found)}"
    return ""
