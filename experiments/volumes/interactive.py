"""Volumes that turn, in HTML that works offline: ``python -m experiments turntable RUN``."""

import argparse
import html
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from experiments.configuration.error_messages import command
from experiments.volumes.isosurface import STEEL, mesh, threshold_of
from experiments.volumes.ray_caster import view_of_box
from lightning_modules.files.atomic import write_atomically

Mesh = tuple[ArrayLike, ArrayLike]

MAX_FACES = 6_000
"""Of a volume in a page: about 70 kB of text."""

STEPS = 32_767  # the vertices' coordinates are 16-bit integers, from -STEPS to STEPS
LIGHT = (-0.5, -0.7, 1.6)  # right, down, near
LIGHT_DISTANCE = 1e4  # of a scene whose size is about 1
CLIP_DEPTH = 500  # plotly's planes of clipping are 0.01 and 1000 away; half of the view's height is 1


def plotly_js() -> str:
    """Return plotly.js, which a page needs once, before :func:`turntable_js`: 4.9 MB without any network."""
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


def turntable_js() -> str:
    """Return the script that makes every :func:`fragment` of a page turn; once, at the end of its body."""
    return Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def fragment(meshes: Mapping[str, Mesh], div_id: str, colour: Sequence[float] = STEEL) -> str:
    """Return volumes as HTML: one 3D scene, and a slider that goes through them while the camera stays.

    It is markup and data alone, so that a page's security policy need admit two scripts only. All volumes have one
    scale, and the view that the pictures have (``surfaces.render``) to begin with.

    Args:
        meshes: name, and vertices (V, 3) with triangles (F, 3) as ``surfaces.mesh`` returns them, of each volume.
        div_id: of the element, unique in the page.
        colour: red, green, blue from 0 to 1.

    Returns:
        The fragment; of no volumes, a line that says so.
    """
    element = f'<div class="turntable" id="{html.escape(div_id)}">'
    if not meshes:
        return f"{element}<p>There are no volumes.</p></div>"
    reach = max((np.abs(vertices).max() for vertices, _ in meshes.values() if np.size(vertices)), default=1.0)
    content = {
        "meshes": [{"name": name, "surface": _packed(*each, float(reach))} for name, each in meshes.items()],
        "camera": _camera(),
        "colour": f"rgb({', '.join(str(round(255 * part)) for part in colour)})",
        "light": _light(),
        "range": [-STEPS, STEPS],
    }
    data = json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")
    first = html.escape(next(iter(meshes)))
    return (
        f'{element}<div style="width:100%;height:min(60vh,420px)"></div>'
        '<p><button type="button" aria-label="previous volume">&#8592;</button>'
        f'<input type="range" min="0" max="{len(meshes) - 1}" value="0" step="1" aria-label="volume">'
        '<button type="button" aria-label="next volume">&#8594;</button> '
        f'<output>{first}</output></p><script type="application/json">{data}</script></div>'
    )


def page(meshes: Mapping[str, Mesh], title: str) -> str:
    """Return a whole page that shows volumes, and asks nothing of any server.

    Args:
        meshes: as for :func:`fragment`.
        title: of the page.
    """
    heading = html.escape(title)
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><link rel="icon" href="data:,">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{heading}</title><style>{_STYLE}</style><script>{plotly_js()}</script></head>"
        f"<body><h1>{heading}</h1>{fragment(meshes, 'volumes')}<script>{turntable_js()}</script></body></html>\n"
    )


_STYLE = (
    "body{font:16px system-ui,sans-serif;color:#1d2733;max-width:50rem;margin:1rem auto;padding:0 1rem}"
    "h1{font-size:1.2rem;overflow-wrap:anywhere}"
    ".turntable p{display:flex;gap:.5rem;align-items:center;flex-wrap:wrap}.turntable input{flex:1;min-width:8rem}"
)


def _packed(vertices: ArrayLike, faces: ArrayLike, reach: float) -> dict[str, dict[str, str]]:
    """Return a mesh as plotly's base64 arrays: coordinates as 16-bit integers from -reach to reach."""
    places = np.rint(np.asarray(vertices, np.float64).reshape(-1, 3) / reach * STEPS).astype("<i2")
    corners = np.asarray(faces).reshape(-1, 3)
    corners = corners.astype("<u2" if len(places) <= 1 << 16 else "<u4")
    return {
        **{axis: _base64(places[:, i]) for i, axis in enumerate("xyz")},
        **{corner: _base64(corners[:, i]) for i, corner in enumerate("ijk")},
    }


def _base64(numbers: NDArray[Any]) -> dict[str, str]:
    import base64

    return {"dtype": numbers.dtype.str[1:], "bdata": base64.b64encode(numbers.tobytes()).decode()}


def _camera() -> dict[str, Any]:
    """Return the pictures' view for plotly: from where, and which way is up."""
    _, down, near = view_of_box()
    return {
        "eye": dict(zip("xyz", (1.5 * near).tolist(), strict=True)),
        "up": dict(zip("xyz", (-down).tolist(), strict=True)),
        "projection": {"type": "orthographic"},
    }


def _light() -> dict[str, float]:
    """Return a light for plotly, which moves it with the camera: more from the front than the pictures', being alone.

    Its place is in clip coordinates, right, up and away from the viewer, and in an orthographic view their depth is
    ``CLIP_DEPTH`` times as long as their height.
    """
    right, down, near = LIGHT_DISTANCE * np.array(LIGHT)
    return {"x": float(right), "y": float(-down), "z": float(-near / CLIP_DEPTH)}


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of a run's volumes; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments turntable", description="Write a page in which volumes turn."
    )
    parser.add_argument("folder", type=Path, help="of a run, or one that holds .mrc volumes")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: turntable.html in the folder")
    parser.add_argument(
        "--threshold", type=float, help="density of the surfaces; default: between solvent and particle"
    )
    options = parser.parse_args(arguments)
    path = _write_page(options.folder, options.out, options.threshold)
    print(path)
    return 0


def _write_page(folder: Path, out: Path | None, threshold: float | None) -> Path:
    from experiments.volumes.files import stored

    volumes = stored(folder)
    level = threshold_of(volumes.values()) if threshold is None else threshold
    meshes = {name: mesh(volume, level, MAX_FACES) for name, volume in volumes.items()}
    text = page(meshes, f"{folder.resolve().name}: surfaces at {level:.3g}")
    return write_atomically(out or folder / "turntable.html", lambda path: path.write_text(text, encoding="utf-8"))


if __name__ == "__main__":
    sys.exit(main())
