"""Tables of .star files, however RELION, the starfile package or a converter writes them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.files.star_blocks import read_blocks
from lightning_modules.files.star_tables import StarTable
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from tests.particle_sets import N, stack
from tests.test_particles import angles, cs, star, star_30

OPTICS = {
    "_rlnOpticsGroup": [1],
    "_rlnImagePixelSize": [3.0],
    "_rlnImageSize": [16],
    "_rlnVoltage": [300.0],
    "_rlnSphericalAberration": [2.7],
    "_rlnAmplitudeContrast": [0.07],
}
LOOP = "data_particles\nloop_\n_rlnImageName #1\n_rlnVoltage #2\n"


def text_of(path: Path, **optics: list[float]) -> str:
    """A .star of RELION 3.1, whose optics come first."""
    columns = {key: values for key, values in star_30().items() if key not in OPTICS}
    return Path(star(path, {**columns, "_rlnOpticsGroup": 1}, {**OPTICS, **optics})).read_text(encoding="utf-8")


def table(path: Path, text: str) -> StarTable:
    path.write_text(text, encoding="utf-8")
    return StarTable(path)


def test_the_published_quoted_star_is_the_unquoted_one(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "failing" / "star"
    quoted = str(folder / "quoted.star")
    plain = tmp_path / "plain.star"
    plain.write_text((folder / "quoted.star").read_text(encoding="utf-8").replace('"optics group 1"', "group1"))
    files = (ParticleFiles(path, ctf=path, datadir=str(folder)) for path in (quoted, str(plain)))
    found, expected = map(load_particles, files)
    assert found.ctf_params is not None and expected.ctf_params is not None and len(found) == 24
    for name in ("images", "rotations", "shifts_px", "ctf_params"):
        assert torch.equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.ctf_params[0, :2], [3.0, 12513.894531], rtol=1e-7)


def test_words_may_be_quoted_and_hold_spaces_and_hashes(tmp_path: Path) -> None:
    path = tmp_path / "x.star"
    rows = """1@a.mrcs "a b" 1 # comment\n'2@a b#.mrcs' it's ""\n"3@c d.mrcs" '#' 'say "so" now'\n"""
    path.write_text("# created\n\ndata_particles\n\nloop_\n_rlnImageName #1\n_a #2\n_b #3\n" + rows, encoding="utf-8")
    assert read_blocks(path)["data_particles"].rows == [
        ["1@a.mrcs", "a b", "1"],
        ["2@a b#.mrcs", "it's", ""],
        ["3@c d.mrcs", "#", 'say "so" now'],
    ]


def test_optics_in_a_plain_block_are_those_of_a_loop(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    loop = text_of(tmp_path / "loop.star")
    plain = "data_optics\n\n" + "".join(f"{key}  {value[0]}\n" for key, value in OPTICS.items())
    (tmp_path / "plain.star").write_text(plain + loop[loop.index("data_particles") :], encoding="utf-8")
    files = (ParticleFiles(str(tmp_path / name), ctf=str(tmp_path / name)) for name in ("plain.star", "loop.star"))
    found, expected = map(load_particles, files)
    assert found.ctf_params is not None and expected.ctf_params is not None
    assert torch.equal(found.ctf_params, expected.ctf_params) and found.pixel_size_angstrom == 3
    assert torch.equal(found.shifts_px, expected.shifts_px)


@pytest.mark.parametrize("name", ["micrographs", "movies_of_all", "particles_old"])
def test_a_larger_table_of_something_else_is_not_the_particles(tmp_path: Path, name: str) -> None:
    text = text_of(tmp_path / "x.star")
    more = f"\ndata_{name}\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\n" + "mic.mrc 5\n" * 3 * N
    for content in (text + more, more + text):
        assert table(tmp_path / "y.star", content).n_rows == N


def test_poses_without_images_are_found_beside_a_larger_table(tmp_path: Path) -> None:
    poses = Path(star(tmp_path / "p.star", angles())).read_text(encoding="utf-8")
    more = "\ndata_general\nloop_\n_rlnCoordinateX #1\n" + "5\n" * 3 * N
    assert table(tmp_path / "y.star", poses + more).has("_rlnAnglePsi")


def test_each_particle_has_the_optics_of_its_group(tmp_path: Path) -> None:
    columns = {"_rlnImageName": ["1@a.mrcs", "2@a.mrcs", "3@a.mrcs"], "_rlnOpticsGroup": ["2", "1.0", "02"]}
    path = star(tmp_path / "x.star", columns, {"_rlnOpticsGroup": [1, 2], "_rlnImagePixelSize": [1.5, 3.0]})
    np.testing.assert_array_equal(StarTable(Path(path)).pixel_size_angstrom(), [3, 1.5, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data_optics\n_rlnVoltage 300 200\n" + LOOP + "1@a 3\n", "line 2 has 2 values for _rlnVoltage, expected one"),
        ("data_optics\n_rlnVoltage 300\n200\n" + LOOP + "1@a 3\n", "line 3 has values without a name"),
        (LOOP + "1@a 300\n2@a\n", r"line 6 has 1 values, expected 2, as many as columns"),
        (LOOP + "'1@a b 300\n", "line 5 has 3 values, expected 2"),
        (LOOP + "1@a 300\nloop_\n_b\n1\n", "line 6 begins a second loop in one table"),
        (LOOP + "1@a 300\n" + LOOP, "line 6 begins a second table data_particles"),
        (LOOP.replace("_rlnVoltage", "_rlnImageName"), "line 4 names column _rlnImageName again"),
        ("data_optics\n_rlnVoltage 300\n", "none but data_optics"),
        ("data_optics\nloop_\n_rlnVoltage\n300\n200\n" + LOOP + "1@a 3\n", "2 optics groups and a table without"),
        ("", "no table with a row in it"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        table(tmp_path / "x.star", text)
    assert "\n" not in str(raised.value) and str(raised.value).startswith(f"{tmp_path / 'x.star'}: ")


def test_many_open_quotes_are_read_without_waiting(tmp_path: Path) -> None:
    text = LOOP + '"a ' * 300_000 + "\n"
    with pytest.raises(InputError, match="line 5 has 300000 values"):
        table(tmp_path / "x.star", text)


def test_a_cs_of_very_many_columns_is_read(tmp_path: Path) -> None:
    stack(tmp_path / "particles.mrcs")
    many = {f"alignments_of_component_{k:03}/value": np.zeros(N, np.float32) for k in range(400)}
    found, expected = (
        load_particles(ParticleFiles(cs(tmp_path / name, **columns), ctf=str(tmp_path / name)))
        for name, columns in (("many.cs", many), ("few.cs", {}))
    )
    assert torch.equal(found.images, expected.images) and torch.equal(found.rotations, expected.rotations)
