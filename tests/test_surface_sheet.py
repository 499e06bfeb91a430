"""One sheet shows all volumes alike."""

import numpy as np
from matplotlib.image import imread

from experiments.figures.volume_sheet import main, sheet
from experiments.volumes.files import write_mrc
from tests.test_surfaces import blob


def test_volumes_are_drawn_at_one_threshold_and_scale(tmp_path):
    small, large = blob(radius_px=4), blob(radius_px=8)
    path = sheet({"a": small, "b": large, "c": large / 4, "$d_1": small}, tmp_path / "sheet.png", threshold=0.5)
    picture = imread(path)[..., :3].min(axis=2) < 0.95
    widths = [part.any(axis=0).sum() for part in np.array_split(picture[: picture.shape[0] // 2], 3, axis=1)]
    assert widths[1] > 1.5 * widths[0], "the large one is larger"
    assert widths[2] < widths[1] / 2, "what does not reach the threshold is not drawn"


def test_the_command_draws_the_volumes_of_a_run(tmp_path, capsys):
    for i in (1, 2):
        write_mrc(tmp_path / "volumes" / f"first_{i}.mrc", blob(i, 0, 0), 1.0)
    assert main([str(tmp_path)]) == 0
    assert imread(capsys.readouterr().out.strip()).std() > 0.01
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no .mrc volumes here" in capsys.readouterr().err
