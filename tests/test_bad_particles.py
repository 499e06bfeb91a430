"""What cannot be used is refused in one line that names the file, what was found and what was expected."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.particles.particle_files import ParticleFiles
from lightning_modules.particles.particles import load_particles
from tests import particle_sets
from tests.particle_sets import D, N, dump, images, particle_set, rotations, shifts, stack
from tests.test_particles import cs, star, star_30

Maker = Callable[[Path], Any]


def changed(array: np.ndarray, where: Any, value: Any) -> np.ndarray:
    """Copy of an array with something else in one place."""
    array = array.copy()
    array[where] = value
    return array


def written(path: Path, content: bytes | str) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def cut(path: Path, n_bytes: int) -> str:
    """A sound stack, cut off."""
    stack(path)
    return written(path, path.read_bytes()[:n_bytes])


def with_header(path: Path, **fields: int) -> str:
    """A sound stack whose header says something else."""
    stack(path)
    content = bytearray(path.read_bytes())
    for name, value in fields.items():
        struct.pack_into("=i", content, {"nx": 0, "ny": 4, "nz": 8, "mode": 12}[name], value)
    return written(path, bytes(content))


def big_endian(path: Path) -> str:
    stack(path)
    content = path.read_bytes()
    swapped = np.frombuffer(content, "<u4").byteswap().tobytes()
    return written(path, swapped)


def saved(path: Path, array: Any, **arrays: Any) -> str:
    if arrays:
        np.savez(path, **arrays)
    else:
        np.save(path, array, allow_pickle=True)
    return str(path)


def star_without(path: Path, *columns: str, **changes: Any) -> str:
    stack(path.parent / "particles.mrcs")
    kept = {key: value for key, value in (star_30() | changes).items() if key not in columns}
    return star(path, kept)


def mixed_boxes(folder: Path) -> str:
    stack(folder / "a.mrcs")
    stack(folder / "b.mrcs", images(box_px=D + 2))
    return written(folder / "list.txt", "a.mrcs\nb.mrcs")


PARTICLES: dict[str, tuple[Maker, str]] = {
    "missing": (lambda d: d / "none.mrcs", r"data\.particles: no file .*none\.mrcs"),
    "folder": (lambda d: ((d / "x.mrcs").mkdir(), d / "x.mrcs")[1], r"x\.mrcs is a folder"),
    "extension": (lambda d: written(d / "x.tiff", "x"), r"ends in '\.tiff', expected one of \.mrcs"),
    "no extension": (lambda d: written(d / "x", "x"), r"ends in 'nothing'"),
    "empty": (lambda d: written(d / "x.mrcs", ""), r"x\.mrcs is empty"),
    "half a header": (lambda d: cut(d / "x.mrcs", 600), r"600 bytes, too short for an MRC header"),
    "header alone": (lambda d: cut(d / "x.mrcs", 1024), r"says 12 images and the file holds 0"),
    "truncated": (lambda d: cut(d / "x.mrcs", 6000), r"truncated, the header says 12 images .* holds 4"),
    "odd box": (lambda d: stack(d / "x.mrcs", images(box_px=15)), r"odd box of 15 px, .*-D 14"),
    "98 px": (lambda d: stack(d / "x.mrcs", images(box_px=98)), r"box of 98 px: .*-D 96"),
    "not square": (lambda d: stack(d / "x.mrcs", images()[:, :10]), r"images of 10 x 16 px, expected square"),
    "no images": (lambda d: with_header(d / "x.mrcs", nz=0), r"says 0 images"),
    "complex": (lambda d: with_header(d / "x.mrcs", mode=4), r"MRC mode 4, expected"),
    "unknown mode": (lambda d: with_header(d / "x.mrcs", mode=5), r"MRC mode 5, expected one of"),
    "text": (lambda d: written(d / "x.mrcs", "no stack " * 300), r"x\.mrcs: .*is it an image stack\?"),
    "byte order": (lambda d: big_endian(d / "x.mrcs"), r"written with the other byte order"),
    "NaN": (
        lambda d: stack(d / "x.mrcs", changed(images(), (7, 3, 3), np.nan)),
        r"x\.mrcs: found image 7 with NaN or infinite pixels \(counted from 0\)",
    ),
    "infinite": (lambda d: stack(d / "x.mrcs", changed(images(), (2, 0, 0), np.inf)), r"image 2 with NaN or infinite"),
    "constant": (
        lambda d: stack(d / "x.mrcs", changed(images(), [9, 5], 4)),
        r"images 5, 9 with one value",
    ),
    "all zero": (lambda d: stack(d / "x.mrcs", images() * 0), r"images 0-11 with one value"),
    "too large": (lambda d: stack(d / "x.mrcs", images() * 1e37), r"standard deviation of (inf|nan)"),
    "list, missing": (lambda d: written(d / "x.txt", "gone.mrcs\n"), r"line 1 is 'gone\.mrcs'"),
    "list, empty line": (
        lambda d: (stack(d / "a.mrcs"), written(d / "x.txt", "a.mrcs\n\n"))[1],
        r"line 2 is ''",
    ),
    "list, two boxes": (mixed_boxes, r"images of 18 px in .*b\.mrcs and of 16 px in .*a\.mrcs"),
    "star, stack missing": (
        lambda d: star(d / "x.star", {**star_30(), "_rlnImageName": ["1@Extract/gone.mrcs"] * N}),
        r"x\.star: its stack Extract/gone\.mrcs is not in .*data\.datadir",
    ),
    "star, beyond its stack": (
        lambda d: star_without(d / "x.star", _rlnImageName=["13@particles.mrcs"] * N),
        r"row 0 names image 13 of particles\.mrcs, which holds 12",
    ),
    "star, no images": (lambda d: star_without(d / "x.star", "_rlnImageName"), r"no column _rlnImageName"),
    "star, no number": (
        lambda d: star_without(d / "x.star", _rlnImageName=["particles.mrcs"] * N),
        r"'particles\.mrcs' in row 0, expected NUMBER@STACK",
    ),
    "star, text": (lambda d: written(d / "x.star", "hello"), r"no readable \.star table"),
    "star, ragged": (
        lambda d: written(d / "x.star", "data_\nloop_\n_rlnImageName\n_rlnVoltage\n1@a.mrcs 1\n2@a.mrcs\n"),
        r"no readable \.star table",
    ),
    "cs, text": (lambda d: written(d / "x.cs", "hello"), r"no readable \.cs table"),
    "cs, cut off": (
        lambda d: written(d / "x.cs", Path(cs(d / "y.cs")).read_bytes()[:-100]),
        r"x\.cs: no readable \.cs table",
    ),
    "cs, objects": (
        lambda d: Path(saved(d / "x.npy", np.array([{"a": 1}]))).rename(d / "x.cs"),
        r"Python objects, which are not read",
    ),
    "cs, plain array": (lambda d: Path(saved(d / "x.npy", np.zeros(3))).rename(d / "x.cs"), r"named columns"),
    "cs, no images": (lambda d: cs(d / "x.cs", **{"blob/idx": None}), r"no column blob/idx"),
    "cs, stack missing": (lambda d: cs(d / "x.cs"), r"its stack J1/particles\.mrcs is not in"),
}

POSES: dict[str, tuple[Maker, str]] = {
    "missing": (lambda d: d / "none.pkl", r"data\.poses: no file"),
    "extension": (
        lambda d: written(d / "x.csv", "x"),
        r"'\.csv', expected one of \.pkl, \.npz, \.star, \.cs",
    ),
    "empty": (lambda d: written(d / "x.pkl", ""), r"x\.pkl is empty"),
    "not a pickle": (lambda d: written(d / "x.pkl", "poses"), r"expected a pickle of numpy arrays"),
    "tensor": (lambda d: dump(d / "x.pkl", torch.zeros(2)), r"convert its tensors with \.numpy\(\)"),
    "too few": (
        lambda d: dump(d / "x.pkl", (rotations(9), shifts(9))),
        r"rotations for 9 particles, expected 12, as many",
    ),
    "too many": (lambda d: dump(d / "x.pkl", (rotations(20), shifts(20))), r"for 20 particles, expected 12"),
    "fewer shifts": (lambda d: dump(d / "x.pkl", (rotations(), shifts(9))), r"shifts for 9 particles"),
    "angles": (lambda d: dump(d / "x.pkl", (rotations()[:, 0], shifts())), r"shape \(12, 3\), expected"),
    "three columns": (
        lambda d: dump(d / "x.pkl", (rotations(), rotations()[:, 0])),
        r"shifts of shape \(12, 3\)",
    ),
    "a dict": (lambda d: dump(d / "x.pkl", {"rotations": rotations()}), r"found dict, expected an array"),
    "text in it": (
        lambda d: dump(d / "x.pkl", (np.array(["a"] * N), shifts())),
        r"rotations: found <U1 array",
    ),
    "pixels": (
        lambda d: dump(d / "x.pkl", (rotations(), changed(shifts(), 3, [2, -3]))),
        r"shift above 1, as if in pixels in row 3 \(1 of 12 rows\)",
    ),
    "negative pixels": (
        lambda d: dump(d / "x.pkl", (rotations(), changed(shifts(), 6, [-2, -3]))),
        r"as if in pixels in row 6",
    ),
    "stretched": (
        lambda d: dump(d / "x.pkl", (rotations() * np.linspace(1, 1.1, N)[:, None, None], shifts())),
        r"no rotation in rows 1-11 \(11 of 12 rows\)",
    ),
    "reflected": (
        lambda d: dump(d / "x.pkl", (changed(rotations(), 5, -np.eye(3)), shifts())),
        r"no rotation in row 5",
    ),
    "NaN": (
        lambda d: dump(d / "x.pkl", (changed(rotations(), (4, 0, 0), np.nan), shifts())),
        r"NaN or infinite rotation in row 4",
    ),
    "NaN shift": (
        lambda d: dump(d / "x.pkl", (rotations(), changed(shifts(), (2, 0), np.nan))),
        r"NaN or infinite shift in row 2",
    ),
    "npz, no rotations": (
        lambda d: saved(d / "x.npz", None, R=rotations()),
        r"arrays \['R'\], expected 'rot",
    ),
    "npz, damaged": (lambda d: written(d / "x.npz", "PK"), r"x\.npz: damaged"),
    "star, no angles": (
        lambda d: star_without(d / "x.star", "_rlnAnglePsi", "_rlnAngleRot"),
        r"no column _rlnAngleRot, _rlnAnglePsi",
    ),
    "star, text": (
        lambda d: star_without(d / "x.star", _rlnAngleRot=["north"] * N),
        r"_rlnAngleRot.* holds text",
    ),
    "star, shifts in A, no pixel size": (
        lambda d: star_without(d / "x.star", "_rlnOriginX", "_rlnOriginY", _rlnOriginXAngst=1.0, _rlnOriginYAngst=1.0),
        r"no pixel size .*data\.pixel_size_angstrom",
    ),
    "cs, no poses": (lambda d: cs(d / "x.cs", **{"alignments3D/pose": None}), r"no column alignments3D/pose"),
}

CTF: dict[str, tuple[Maker, str]] = {
    "missing": (lambda d: d / "none.pkl", r"data\.ctf: no file"),
    "eight columns": (
        lambda d: dump(d / "x.pkl", particle_sets.ctf()[:, 1:]),
        r"shape \(12, 8\), expected 9 columns",
    ),
    "too few": (lambda d: dump(d / "x.pkl", particle_sets.ctf(9)), r"CTF for 9 particles, expected 12"),
    "NaN": (
        lambda d: dump(d / "x.pkl", changed(particle_sets.ctf(), (8, 3), np.nan)),
        r"NaN or infinite CTF in row 8",
    ),
    "pixel size": (
        lambda d: dump(d / "x.pkl", changed(particle_sets.ctf(), (slice(None), 1), 0)),
        r"pixel size not above 0 in row 0",
    ),
    "box": (
        lambda d: dump(d / "x.pkl", changed(particle_sets.ctf(), (3, 0), -1)),
        r"box not above 0 in row 3",
    ),
    "voltage": (lambda d: dump(d / "x.pkl", changed(particle_sets.ctf(), (3, 5), 0)), r"voltage not above 0"),
    "contrast": (
        lambda d: dump(d / "x.pkl", changed(particle_sets.ctf(), (3, 7), 7)),
        r"amplitude contrast above 1 in row 3",
    ),
    "tuple": (lambda d: dump(d / "x.pkl", (particle_sets.ctf(),)), r"CTF: found tuple, expected an array"),
    "npz, other name": (lambda d: saved(d / "x.npz", None, ctf=np.zeros((N, 9))), r"expected 'ctf_params'"),
    "star, no pixel size": (lambda d: star_without(d / "x.star"), r"no pixel size .*pixel_size_angstrom"),
    "star, no defocus": (
        lambda d: star_without(d / "x.star", "_rlnDefocusU", "_rlnVoltage"),
        r"no column _rlnDefocusU, _rlnVoltage",
    ),
    "cs, no CTF": (lambda d: cs(d / "x.cs", **{"ctf/cs_mm": None}), r"no column ctf/cs_mm"),
    "cs, no pixel size": (lambda d: cs(d / "x.cs", **{"blob/psize_A": None}), r"no column blob/psize_A"),
}

INDEX: dict[str, tuple[Maker, str]] = {
    "missing": (lambda d: d / "none.pkl", r"data\.ind: no file"),
    "extension": (lambda d: written(d / "x.csv", "1"), r"'\.csv', expected one of \.pkl"),
    "beyond": (lambda d: dump(d / "x.pkl", np.array([0, 12])), r"index 12 is out of range, expected 0 to 11"),
    "negative": (lambda d: dump(d / "x.pkl", np.array([0, -1])), r"index -1 is out of range"),
    "twice": (lambda d: dump(d / "x.pkl", np.array([3, 4, 3])), r"particle 3 is listed more than once"),
    "none": (lambda d: dump(d / "x.pkl", np.array([], int)), r"shape \(0,\), expected \(n,\) with at least"),
    "fractions": (lambda d: written(d / "x.txt", "1.5\n2"), r"no integers"),
    "NaN": (lambda d: written(d / "x.txt", "nan\n2"), r"no integers"),
    "words": (lambda d: written(d / "x.txt", "one two"), r"no index can be read"),
    "blank": (lambda d: written(d / "x.txt", "\n\n"), r"at least one particle"),
    "mask": (lambda d: dump(d / "x.pkl", np.ones(N, bool)), r"mask .*np\.flatnonzero"),
    "table": (lambda d: saved(d / "x.npy", np.zeros((2, 2), int)), r"shape \(2, 2\)"),
    "objects": (lambda d: saved(d / "x.npy", np.array([{}])), r"no index can be read"),
    "strings": (lambda d: dump(d / "x.pkl", np.array(["1"])), r"no integers"),
    "npz, two arrays": (lambda d: saved(d / "x.npz", None, a=[1], b=[2]), r"no array named 'ind'"),
}

LABELS: dict[str, tuple[Maker, str]] = {
    "missing": (lambda d: d / "none.npz", r"data\.labels: no file"),
    "extension": (lambda d: dump(d / "x.pkl", np.zeros(N)), r"'\.pkl', expected one of \.npz"),
    "length": (
        lambda d: saved(d / "x.npz", None, state=np.zeros(9, int)),
        r"state for 9 particles, expected 12",
    ),
    "other names": (
        lambda d: saved(d / "x.npz", None, a=np.zeros(N)),
        r"\['a'\], expected 'state' or 'hinge_rad'",
    ),
    "fractional state": (lambda d: saved(d / "x.npz", None, state=np.zeros(N)), r"state .*float64, expected"),
    "a table": (
        lambda d: saved(d / "x.npz", None, hinge_rad=np.zeros((N, 2))),
        r"hinge_rad of shape \(12, 2\)",
    ),
    "objects": (lambda d: saved(d / "x.npz", None, state=np.array([{}] * N)), r"holds Python objects"),
}

TABLE = [
    pytest.param(key, make, message, id=f"{key}, {name}")
    for key, cases in {
        "particles": PARTICLES, "poses": POSES, "ctf": CTF, "ind": INDEX, "labels": LABELS
    }.items()
    for name, (make, message) in cases.items()
]  # fmt: skip


@pytest.mark.parametrize(("key", "make", "message"), TABLE)
def test_bad_file_is_refused_in_one_line(tmp_path: Path, key: str, make: Maker, message: str) -> None:
    files = particle_set(tmp_path, **{key: str(make(tmp_path))})
    with pytest.raises(InputError, match=message) as raised:
        load_particles(files)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_r": 1.5}, r"data\.window_r=1\.5"),
        ({"pixel_size_angstrom": 0.0}, r"data\.pixel_size_angstrom=0\.0"),
        ({"n_particles": 0}, r"data\.n_particles=0: expected 1 to 12"),
        ({"n_particles": 13}, r"data\.n_particles=13: expected 1 to 12"),
        ({"datadir": "/nowhere"}, r"data\.datadir: no folder /nowhere"),
        ({"poses": None}, r"data\.poses is not set: poses are required"),
    ],
    ids=str,
)
def test_bad_value_is_refused_in_one_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_particles(particle_set(tmp_path, **changes))


def test_unknown_residency_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.residency=gpu: expected one of memory, disk"):
        load_particles(particle_set(tmp_path), residency="gpu")


def test_star_without_poses_needs_a_poses_file(tmp_path: Path) -> None:
    path = star_without(tmp_path / "x.star", "_rlnAngleRot")
    with pytest.raises(InputError, match=r"data\.poses is not set, and .*x\.star has no _rlnAngleRot"):
        load_particles(ParticleFiles(path))


def test_rows_left_out_by_the_index_may_be_bad(tmp_path: Path) -> None:
    files = particle_set(
        tmp_path,
        particles=stack(tmp_path / "x.mrcs", changed(images(), 3, np.nan)),
        poses=dump(tmp_path / "p.pkl", (changed(rotations(), 3, np.nan), shifts())),
        ind=dump(tmp_path / "i.pkl", np.array([0, 1, 5])),
    )
    assert load_particles(files).images.isfinite().all()


@pytest.mark.parametrize("residency", ["memory", "disk"])
def test_all_unusable_images_are_named_at_once(tmp_path: Path, residency: str) -> None:
    pixels = changed(changed(images(), [1, 2, 3, 8], 0), [5, 11], np.nan)
    files = particle_set(tmp_path, particles=stack(tmp_path / "x.mrcs", pixels))
    message = r"found images 5, 11 with NaN or infinite pixels and images 1-3, 8 with one value in all pixels \(counted"
    with pytest.raises(InputError, match=message):
        load_particles(files, residency, tmp_path / "cache", chunk=2)
    index = np.array([0, 4, 6, 7, 9, 10])
    files = particle_set(tmp_path, particles=files.particles, ind=dump(tmp_path / "i.pkl", index))
    assert len(load_particles(files)) == len(index)


def test_bad_image_is_named_as_in_the_file_not_as_in_the_selection(tmp_path: Path) -> None:
    pixels = stack(tmp_path / "x.mrcs", changed(images(), 7, 0))
    files = particle_set(tmp_path, particles=pixels, ind=dump(tmp_path / "i.pkl", np.array([2, 7])))
    with pytest.raises(InputError, match="image 7 "):
        load_particles(files)


def test_code_in_poses_does_not_run(tmp_path: Path) -> None:
    from tests.test_safe_pickle import Attack

    trace = tmp_path / "trace"
    files = particle_set(tmp_path, poses=dump(tmp_path / "p.pkl", Attack(Path.touch, trace)))
    with pytest.raises(InputError, match=r"p\.pkl: holds pathlib"):
        load_particles(files)
    assert not trace.exists()


@pytest.mark.parametrize("where", [0, 11])
def test_nothing_half_written_stays_on_disk(tmp_path: Path, where: int) -> None:
    pixels = stack(tmp_path / "x.mrcs", changed(images(), where, np.nan))
    files, cache = particle_set(tmp_path, particles=pixels), tmp_path / "cache"
    for _ in range(2):
        with pytest.raises(InputError, match=f"image {where} "):
            load_particles(files, "disk", cache, chunk=4)
        assert {path.suffix for path in (cache / "preprocessed").iterdir()} <= {".lease", ".sum"}
    stack(tmp_path / "x.mrcs")
    assert len(load_particles(files, "disk", cache, chunk=4)) == N


def test_full_disk_is_told_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 5, 5))
    with pytest.raises(InputError, match=r"GB free, expected .*data\.residency=memory"):
        load_particles(particle_set(tmp_path), "disk", tmp_path / "cache")


def test_cheap_checks_come_before_images_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lightning_modules.particles import particles

    monkeypatch.setattr(particles.Preprocessing, "open", lambda *_: pytest.fail("images were opened"))
    with pytest.raises(InputError):
        load_particles(particle_set(tmp_path, ctf=dump(tmp_path / "c.pkl", particle_sets.ctf(3))))
