"""One look for every figure: colours, sizes, and the way to a file.

Figures are made with matplotlib's objects alone, never through pyplot, so that drawing changes no state of
the process and needs no display. Everything about a figure is done inside ``with look():``.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lightning_modules.files.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
DPI_RASTER = 300  # of points and volumes in a PDF
SIZE_IN = (6.4, 5.0)

# The paper's red, green and purple, apart in lightness too, so that they survive red-green blindness.
ORIGINAL = "#b3001b"
ALTERED = "#00a37a"
BETWEEN = "#8a5fb0"
PARTICLES = "#4a6a8f"
BACKGROUND = "#9a9a9a"
TOTAL = "#0072b2"
RECONSTRUCTION = "#d55e00"
KL = "#4d4d4d"
LEADER = "#3a3a3a"
FRAME = "#c8c8c8"

# Okabe and Ito's colours without their reds, which are the labels'; Paul Tol's muted ones for more classes.
_FEW_CLASSES = ("#0072b2", "#e69f00", "#009e73", "#56b4e9", "#cc79a7", "#4d4d4d")
_MORE_CLASSES = (
    "#332288",
    "#88ccee",
    "#44aa99",
    "#117733",
    "#999933",
    "#ddcc77",
    "#cc6677",
    "#882255",
    "#aa4499",
    "#bbbbbb",
)
# Dark enough for thin lines and small text.
_LINES = ("#332288", "#d07c00", "#00845f", "#b84a5e", "#0072b2", "#882255", "#7d7d22", "#4d4d4d")
N_LINE_COLOURS = len(_LINES)
_STYLE = {
    "axes.edgecolor": "#444444",
    "axes.labelcolor": "#222222",
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "font.size": 9.5,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "pdf.fonttype": 42,  # text stays text in a drawing program
    "xtick.color": "#444444",
    "ytick.color": "#444444",
}


@contextmanager
def look() -> Iterator[None]:
    """Draw in the look of the suite, whatever the user's matplotlibrc says."""
    from matplotlib import style

    with style.context(["default", _STYLE]):
        yield


def figure(size_in: tuple[float, float] = SIZE_IN, pad_in: float = 0.04, space: float = 0.02) -> "Figure":
    """Return an empty figure at 150 dpi that arranges its parts by itself.

    Args:
        size_in: width and height in inches.
        pad_in: room around each part, in inches.
        space: more room between them, as a fraction of the figure.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=pad_in, h_pad=pad_in, wspace=space, hspace=space)
    return Figure(figsize=size_in, dpi=DPI, layout=layout)


def save(fig: "Figure", path: Path) -> Path:
    """Write a figure as PNG, and beside it as PDF, each whole or not at all; their folder is made.

    In the PDF text and lines are vectors; what was drawn with ``rasterized=True`` is 300 dpi.

    Args:
        fig: finished.
        path: of the PNG.

    Returns:
        ``path``.
    """
    write_atomically(path, lambda unfinished: fig.savefig(unfinished, format="png", dpi=DPI))
    fig.set_layout_engine("none")  # its parts are where they belong; the PDF is not to arrange them once more
    _write_pdf(fig, path.with_suffix(".pdf"))
    return path


def _write_pdf(fig: "Figure", path: Path) -> None:
    dateless = {"CreationDate": None}  # the same figure is the same file
    with _quiet_fonts():
        write_atomically(
            path, lambda unfinished: fig.savefig(unfinished, format="pdf", dpi=DPI_RASTER, metadata=dateless)
        )


@contextmanager
def _quiet_fonts() -> Iterator[None]:
    """Keep fontTools from logging every table of every font that goes into a PDF."""
    logger = logging.getLogger("fontTools")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def class_colours(n: int) -> list[str]:
    """Return a colour for each of n classes; beyond ten they come from one sequence of lightness."""
    if n <= len(_FEW_CLASSES):
        return list(_FEW_CLASSES[:n])
    if n <= len(_MORE_CLASSES):
        return list(_MORE_CLASSES[:n])
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(rgba) for rgba in colormaps["viridis"](np.linspace(0, 0.95, n))]


def line_colours(n: int) -> list[str]:
    """Return a colour for each of n lines; they come again after ``N_LINE_COLOURS``, for another line style."""
    return [_LINES[i % N_LINE_COLOURS] for i in range(n)]


def scatter_style(n: int) -> dict[str, float]:
    """Return the marker area (points squared) and opacity with which n points read, by eye."""
    return {"s": 20 * min(1, (100 / n) ** 0.4), "alpha": min(0.8, 10 / n**0.35), "linewidths": 0}
