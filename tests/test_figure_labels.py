"""Labels can be read: they hide no other label and no labelled point, and stay inside the frame."""

import matplotlib.text
import numpy as np
import pytest

from experiments.figures import style
from experiments.figures.labels import label_points


def labelled(points: np.ndarray, lines: np.ndarray | None = None):
    """Points in axes with the limits 0 and 1, with their labels: names, boxes and points in px, the frame."""
    names = [str(i + 1) for i in range(len(points))]
    with style.look():
        fig = style.figure()
        ax = fig.subplots()
        ax.set(xlim=(0, 1), ylim=(0, 1))
        fig.draw_without_rendering()
        in_px = None if lines is None else ax.transData.transform(lines.reshape(-1, 2)).reshape(-1, 2, 2)
        label_points(ax, points, names, [style.ORIGINAL] * len(points), in_px)
        fig.draw_without_rendering()
        assert [text.get_text() for text in ax.texts] == names
        # The text alone: an annotation's own extent takes in the line to its point.
        boxes = [matplotlib.text.Text.get_window_extent(text) for text in ax.texts]
        return boxes, ax.transData.transform(points), ax.get_window_extent(), in_px


@pytest.mark.parametrize("spread", [1.0, 0.15])
def test_labels_do_not_cover_each_other_or_labelled_points(spread: float):
    points = 0.5 + spread * (np.random.default_rng(5).random((10, 2)) - 0.5)
    boxes, at, frame, _ = labelled(points)
    for i, box in enumerate(boxes):
        assert not any(box.contains(x, y) for x, y in at)
        assert not any(box.overlaps(other) for other in boxes[i + 1 :])
        assert frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)


def test_points_in_the_corners_have_their_labels_inside():
    boxes, _, frame, _ = labelled(np.array([[0, 0], [0, 1], [1, 0], [1, 1]]))
    assert all(frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1) for box in boxes)


def test_labels_keep_off_lines():
    points = np.random.default_rng(6).random((10, 2))
    lines = np.stack([points, np.random.default_rng(7).random((10, 2))], axis=1)
    boxes, _, _, in_px = labelled(points, lines)
    along = np.concatenate([np.linspace(start, end, 400) for start, end in in_px])
    assert sum(any(box.contains(x, y) for x, y in along) for box in boxes) <= 1
    unaware = labelled(points)[0]
    assert sum(any(box.contains(x, y) for x, y in along) for box in unaware) > 1


def test_equal_points_still_have_ten_labels_apart():
    boxes, *_ = labelled(np.full((10, 2), 0.5))
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[i + 1 :])
