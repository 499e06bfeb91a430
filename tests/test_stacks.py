"""Pixels and pixel size of MRC stacks, as MRC2014 and IMOD define them."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.files import mrc_headers
from lightning_modules.files.image_stacks import inspect
from lightning_modules.particles.particles import load_particles
from lightning_modules.particles.stack_reader import StackImages
from tests.particle_sets import D, N, images, particle_set, stack

IMOD = {152: ("=i", 1146047817)}
SIGNED, UNSIGNED = {156: ("=i", 1)}, {156: ("=i", 0)}
RANGE_OF_UNSIGNED = {76: ("=f", 0.0), 80: ("=f", 255.0)}


def with_fields(path: Path, pixels: np.ndarray, fields: dict[int, tuple[str, float]]) -> str:
    """Write a stack, and then other values at some bytes of its header."""
    stack(path, pixels)
    content = bytearray(path.read_bytes())
    for offset, (kind, value) in fields.items():
        struct.pack_into(kind, content, offset, value)
    path.write_bytes(content)
    return str(path)


def bytes_of(pixels: np.ndarray, kind: str) -> np.ndarray:
    """The same images as signed or unsigned bytes, over all of their range."""
    scaled = (pixels - pixels.min()) / (pixels.max() - pixels.min()) * 255
    return np.round(scaled if kind == "uint8" else scaled - 128).astype(kind)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("int8", {}),
        ("int8", IMOD | SIGNED),
        ("uint8", IMOD | UNSIGNED),
        ("int8", UNSIGNED),  # flags without the stamp are nobody's
        ("uint8", RANGE_OF_UNSIGNED),
        ("int8", {76: ("=f", -128.0), 80: ("=f", 127.0)}),
    ],
    ids=["MRC2014", "IMOD, signed", "IMOD, unsigned", "no stamp", "range of unsigned ones", "range of signed ones"],
)
def test_bytes_are_signed_unless_imod_says_otherwise(
    tmp_path: Path, kind: str, fields: dict[int, tuple[str, float]]
) -> None:
    pixels = bytes_of(images(), kind)
    # cryoDRGN writes signed bytes as mode 17.
    path = with_fields(tmp_path / "x.mrcs", pixels, {12: ("=i", 0), **fields})
    read = StackImages(inspect(Path(path), None), np.arange(N)).images()
    np.testing.assert_array_equal(read, pixels.astype(np.float32))
    particles = load_particles(particle_set(tmp_path, particles=path))
    of_float32 = stack(tmp_path / "float32.mrcs", pixels.astype(np.float32))
    assert torch.equal(particles.images, load_particles(particle_set(tmp_path, particles=of_float32)).images)


def test_images_are_read_in_any_order_and_number_from_several_stacks(tmp_path: Path) -> None:
    stack(tmp_path / "a.mrcs", images()[:5])
    with_fields(tmp_path / "b.mrcs", images()[5:], {})
    content = (tmp_path / "b.mrcs").read_bytes()
    extended = bytearray(content[:1024] + b"extended" + content[1024:])
    struct.pack_into("=i", extended, 92, 8)
    (tmp_path / "b.mrcs").write_bytes(extended)
    (tmp_path / "list.txt").write_text("a.mrcs\nb.mrcs\n", encoding="utf-8")
    inventory = inspect(tmp_path / "list.txt", None)
    rows = np.array([11, 4, 5, 6, 0, 1, 9])
    source = StackImages(inventory, rows)
    np.testing.assert_array_equal(source.images(), images()[rows])
    np.testing.assert_array_equal(source.images([6, 0, 0, 3]), images()[rows[[6, 0, 0, 3]]])


def test_a_stack_that_becomes_shorter_is_told_in_one_line(tmp_path: Path) -> None:
    path = Path(stack(tmp_path / "x.mrcs"))
    source = StackImages(inspect(path, None), np.arange(N))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"x\.mrcs: became shorter while it was read"):
        source.images()


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({28: ("=i", D), 40: ("=f", 3 * D)}, 3.0),
        ({28: ("=i", 2 * D), 40: ("=f", 3 * D)}, 1.5),  # a cell of more samples than the images have
        ({40: ("=f", 0.0)}, None),
        ({28: ("=i", 0)}, None),
        ({40: ("=f", -48.0)}, None),
        ({40: ("=f", np.nan)}, None),
        ({40: ("=f", np.inf)}, None),
    ],
    ids=str,
)
def test_the_pixel_size_is_the_cell_over_its_samples(
    tmp_path: Path, fields: dict[int, tuple[str, float]], expected: float | None
) -> None:
    path = with_fields(tmp_path / "x.mrcs", images(), fields)
    assert inspect(Path(path), None).pixel_size_angstrom == expected
    assert load_particles(particle_set(tmp_path, particles=path, ctf=None)).pixel_size_angstrom == expected


def test_a_volume_is_read_by_the_same_rules(tmp_path: Path) -> None:
    cube = bytes_of(images(D), "int8")
    path = with_fields(tmp_path / "x.mrc", cube, {12: ("=i", 0)})
    np.testing.assert_array_equal(mrc_headers.read_volume(path), cube.astype(np.float32))
    Path(path).write_bytes(Path(path).read_bytes()[:-1])
    with pytest.raises(InputError, match=r"x\.mrc: truncated, the header says 16 images and the file holds 15"):
        mrc_headers.read_volume(path)
