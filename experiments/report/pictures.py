"""Pictures as data: URIs, small enough that a page with many runs stays light."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import regular_file

WIDTHS_PX = (1100, 900, 720, 560, 420)
BUDGET_BYTES = 8_000_000
MAX_PIXELS = 40_000_000  # of a file: 160 MB while it is shrunk
THUMBNAIL_PX = 420


@dataclass(frozen=True)
class Picture:
    """A picture for the page.

    Attributes:
        uri: its data.
        width_px: as drawn.
        height_px: as drawn.
        text: what it shows, for those who do not see it.
    """

    uri: str
    width_px: int
    height_px: int
    text: str


def encode(image: Image.Image, text: str, width_px: int) -> Picture:
    """Shrink a picture to a width, if it is wider, and encode it as WebP."""
    if image.width > width_px:
        image = image.resize((width_px, max(1, round(image.height * width_px / image.width))), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "webp", quality=82, method=4)
    return Picture(data_uri(buffer.getvalue(), "image/webp"), image.width, image.height, text)


def encode_all(paths: Iterable[Path]) -> dict[Path, Picture]:
    """Encode picture files at the largest width at which all of them together stay within the budget.

    Args:
        paths: of figures; one that cannot be read is left out.

    Returns:
        The pictures by path.
    """
    paths = list(paths)
    encoded: dict[Path, Picture] = {}
    for width_px in WIDTHS_PX:  # read again each time: together they may not fit into memory
        encoded = {path: encode(image, named(path), width_px) for path in paths if (image := read(path)) is not None}
        if sum(len(picture.uri) for picture in encoded.values()) <= BUDGET_BYTES:
            break
    return encoded


def read(path: Path) -> Image.Image | None:
    """Return a picture, on white; None where it cannot be read, or is far larger than any that a run draws."""
    try:
        with Image.open(regular_file(path, "a picture")) as image:
            if image.width * image.height > MAX_PIXELS:  # a small file can unpack to gigabytes
                return None
            picture = image.convert("RGBA")
    except (InputError, OSError, ValueError, Image.DecompressionBombError):
        return None
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def named(path: Path) -> str:
    """Return a figure's name in words."""
    return path.stem.replace("_", " ")


def data_uri(data: bytes, kind: str) -> str:
    """Return data as a URI."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
