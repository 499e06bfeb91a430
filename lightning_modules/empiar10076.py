"""The paper's data set: EMPIAR-10076, L17-depleted 50S ribosomal intermediates (Davis et al. 2016)."""

from dataclasses import dataclass
from pathlib import Path

from lightning_modules.errors import InputError
from lightning_modules.particle_files import ParticleFiles


@dataclass(frozen=True)
class Empiar10076Files(ParticleFiles):
    """131,899 particles, downsampled from 320 px at 1.31 A to 128 px, with the published poses and CTF."""

    def particle_files(self) -> ParticleFiles:
        """Return the files.

        Raises:
            InputError: one is missing; the message says what to download and where to put it.
        """
        missing = [path for path in (self.particles, self.poses, self.ctf) if not (path and Path(path).is_file())]
        if missing:
            folder = Path(self.particles).absolute().parent
            raise InputError(
                f"data=empiar10076: {missing[0]} is missing; download entry 10076 from EMPIAR, run "
                f"`cryodrgn downsample Parameters.star -D 128 -o particles.128.mrcs`, take poses.pkl and ctf.pkl from "
                f"the GitHub repository zhonge/cryodrgn_empiar (empiar10076/inputs), and put all three into {folder} "
                "(or set EMPIAR10076 to their folder)"
            )
        return self
