"""Losses and times: of one run against the epoch, and of many runs together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from experiments.figures import style as look

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
LogRows = Sequence[Mapping[str, Any]]

_LINES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)))


def loss_curve(log_rows: LogRows, path: Path, title: str = "") -> Path:
    """Draw total and reconstruction loss, and KL below them, against the epoch.

    Args:
        log_rows: the rows of ``log.csv``, numbers or text, with ``epoch``, ``loss/total``,
            ``loss/reconstruction`` and ``loss/kl``. What is missing or not finite in a row is left out.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    with look.look():
        fig = look.figure()
        upper, lower = fig.subplots(2, 1, sharex=True, height_ratios=(3, 2))
        for ax, key, label, colour in (
            (upper, "loss/total", "total", look.TOTAL),
            (upper, "loss/reconstruction", "reconstruction", look.RECONSTRUCTION),
            (lower, "loss/kl", "KL", look.KL),
        ):
            epoch, value = _curve(log_rows, key)
            marker = "o" if len(epoch) <= 20 else ""
            ax.plot(epoch, value, label=label, color=colour, marker=marker, markersize=3.5)
        upper.set(ylabel="loss", title=title)
        upper.legend()
        lower.set(ylabel="KL (nats)", xlabel="epoch")
        _whole_epochs(lower)
        fig.align_ylabels()
        return look.save(fig, path)


def loss_curves(runs: Sequence[tuple[str, LogRows]], path: Path, title: str = "") -> Path:
    """Draw the losses of many runs over each other, each with its name at its end.

    Runs of one name (seeds) have one colour and one line style.

    Args:
        runs: name and rows of ``log.csv`` of each.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    names = list(dict.fromkeys(name for name, _ in runs))
    colours = look.line_colours(len(names))
    style = {name: (colours[i], _LINES[i // look.N_LINE_COLOURS % len(_LINES)]) for i, name in enumerate(names)}
    with look.look():
        height_in = max(2.8, 0.19 * len(names))
        fig = look.figure((9.0, 2 * height_in + 0.8))
        panels = fig.subplots(2, 1, sharex=True)
        for ax, key, label in zip(panels, ("loss/total", "loss/kl"), ("total loss", "KL (nats)"), strict=True):
            for name, rows in runs:
                colour, line = style[name]
                epoch, value = _curve(rows, key)
                ax.plot(epoch, value, color=colour, linestyle=line, linewidth=1.3, label=name)
            ax.set(ylabel=label)
        panels[0].set(title=title)
        panels[1].set(xlabel="epoch")
        _whole_epochs(panels[1])
        for ax in panels:
            _name_ends(ax)
        fig.align_ylabels()
        return look.save(fig, path)


def epoch_times(runs: Sequence[tuple[str, LogRows]], path: Path, title: str = "") -> Path:
    """Draw the time per epoch of many runs (paper, Table 1): a dot per epoch, a bar and a number for the median.

    Runs of one name (seeds) share a row.

    Args:
        runs: name and rows of ``log.csv`` of each, with ``time/epoch_s``.
        path: of the PNG.
        title: over the picture.

    Returns:
        ``path``.
    """
    times_s: dict[str, Floats] = {}
    for name, rows in runs:
        found = _curve(rows, "time/epoch_s")[1]
        times_s[name] = np.concatenate([times_s.get(name, np.empty(0)), found])
    times_s = {name: found for name, found in times_s.items() if len(found)}
    rng = np.random.default_rng(0)
    with look.look():
        fig = look.figure((8.0, 1.2 + 0.3 * len(times_s)))
        ax = fig.subplots()
        top = max((found.max() for found in times_s.values()), default=1.0)
        for row, found in enumerate(times_s.values()):
            median = float(np.median(found))
            ax.barh(row, median, height=0.62, color=look.TOTAL, alpha=0.35, linewidth=0)
            height = row + rng.uniform(-0.2, 0.2, len(found))
            ax.scatter(found, height, s=8, color=look.TOTAL, alpha=0.7, linewidths=0, rasterized=True)
            ax.text(1.03 * top, row, _duration(median), va="center", ha="left")
        ax.set(yticks=range(len(times_s)), yticklabels=list(times_s), xlim=(0, 1.15 * top), title=title)
        ax.set(xlabel="seconds per epoch (bar and number: median; dots: epochs)")
        ax.invert_yaxis()
        ax.tick_params(axis="y", length=0)
        return look.save(fig, path)


def _duration(seconds: float) -> str:
    """As the paper's Table 1 from a minute on: 9:27 min."""
    if seconds < 59.95:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min"


def _name_ends(ax: "Axes") -> None:
    """Write each line's name right of the axes at the height of its end, moved apart where they would touch."""
    ends: dict[str, tuple[str, Floats]] = {}
    for line in ax.get_lines():
        points = np.asarray(line.get_xydata(), dtype=np.float64)
        if len(points):
            ends.setdefault(str(line.get_label()), (str(line.get_color()), points[-1]))
    if not ends:
        return
    figure = ax.figure.canvas.figure
    figure.draw_without_rendering()
    at = ax.transAxes.inverted().transform(ax.transData.transform([end for _, end in ends.values()]))
    spacing = 12.5 * figure.dpi / 72 / ax.get_window_extent().height
    for (name, (colour, _)), (x, y), height in zip(ends.items(), at, _spread(at[:, 1], spacing), strict=True):
        lead = ([x, 1.0, 1.03], [y, y, height])
        ax.plot(*lead, color=colour, linewidth=0.6, linestyle=":", transform=ax.transAxes, clip_on=False, label="_")
        ax.text(1.035, height, name, color=colour, transform=ax.transAxes, va="center", fontsize=8.5)


def _spread(wanted: Floats, spacing: float) -> Floats:
    """Move heights apart to a spacing, in their order, each as near as may be to where it was, all from 0 to 1.

    Isotonic regression: with the spacing taken off, what remains must not decrease.
    """
    from sklearn.isotonic import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = spacing * np.arange(len(wanted))
    spread = np.empty(len(wanted))
    spread[order] = isotonic_regression(wanted[order] - steps, y_min=0, y_max=max(0, 1 - steps[-1])) + steps
    return spread


def _whole_epochs(ax: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _curve(rows: LogRows, key: str) -> tuple[Floats, Floats]:
    """Epochs and values of a column, without what is missing or not finite."""
    pairs = np.array([(_number(row.get("epoch")), _number(row.get(key))) for row in rows]).reshape(-1, 2)
    epoch, value = pairs[np.isfinite(pairs).all(axis=1)].T
    return epoch, value


def _number(text: Any) -> float:
    """Return a cell of the log as a number; NaN where it is empty."""
    return float(text) if text not in (None, "") else float("nan")
