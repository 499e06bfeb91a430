"""What was found, on one page that asks nothing of any server."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.audit.measures import ImageCondition
from experiments.audit.particles import Sample
from experiments.audit.reproduced import Reproduced
from experiments.audit.settings import Settings
from experiments.audit.verdict import CLEAR, HIGH, LOW, Verdict
from experiments.report.page import TEMPLATES as REPORT
from experiments.report.page import policy, template
from experiments.report.pictures import Picture, encode, named, read
from lightning_modules.files.atomic import write_atomically
from lightning_modules.files.cryodrgn_folder import Folder
from lightning_modules.particles.particle_files import ParticleFiles

TEMPLATES = Path(__file__).parent / "templates"
WIDTH_PX = 1100


@dataclass(frozen=True)
class Findings:
    """All that the page shows.

    Attributes:
        folder: of the audited run.
        settings: its configuration.
        files: its particles.
        taken: which of them were looked at.
        reproduced: whether z was.
        views: what the encoder makes of each kind of images.
        verdict: of it all.
        pairs: how alike the volumes of turned images are.
        figures: PNGs.
    """

    folder: Folder
    settings: Settings
    files: ParticleFiles
    taken: Sample
    reproduced: Reproduced
    views: list[ImageCondition]
    verdict: Verdict
    pairs: dict[str, float | None]
    figures: list[Path]

    @property
    def pictures(self) -> dict[str, Picture]:
        """The figures by name."""
        found = {path.stem: read(path) for path in self.figures}
        return {name: encode(image, named(Path(name)), WIDTH_PX) for name, image in found.items() if image is not None}


def write_page(path: Path, findings: Findings) -> Path:
    """Write the page; text from the audited run is escaped, and no script runs."""
    html = render(findings)
    return write_atomically(path, lambda unfinished: unfinished.write_text(html, encoding="utf-8"))


def render(findings: Findings) -> str:
    """Return the page as HTML."""
    return template(TEMPLATES / "audit.html.j2", number=number).render(
        found=findings,
        files=vars(findings.files),
        pictures=findings.pictures,
        policy=policy(),
        style=(REPORT / "page.css").read_text(encoding="utf-8"),
        thresholds={"low": LOW, "high": HIGH, "needed": CLEAR},
        prefix="audit/rotate_90_consistent/volume_correlation",
    )


def number(value: Any, digits: int = 3) -> str:
    """Return a number with some digits; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}g}"
