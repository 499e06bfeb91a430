"""Hostile and broken content: kind of file, how it is made, and what its refusal says."""

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import particle_sets
from tests.hostile import KINDS, call, epochs_checkpoint, npy
from tests.particle_sets import N, dump, rotations, shifts, stack


def latents(**changes: Any) -> Callable[[Path], Any]:
    sound = {"mu": np.ones((N, 2), np.float32), "logvar": np.ones((N, 2), np.float32), "index": np.arange(N)}
    return lambda path: np.savez(path, **(sound | changes))


def header(**fields: int) -> Callable[[Path], Any]:
    """A stack whose header says something else."""
    offsets = {"nx": 0, "ny": 4, "nz": 8, "mode": 12, "next": 92}

    def make(path: Path) -> None:
        stack(path)
        content = bytearray(path.read_bytes())
        for name, value in fields.items():
            struct.pack_into("=i", content, offsets[name], value)
        path.write_bytes(content)

    return make


def text(changed: Callable[[str], str]) -> Callable[[Path], Any]:
    """A sound text file with something changed."""

    def make(path: Path) -> None:
        KINDS[path.name].make(path)
        before = path.read_text(encoding="utf-8")
        assert changed(before) != before
        path.write_text(changed(before), encoding="utf-8")

    return make


def cs_with(**columns: Any) -> Callable[[Path], Any]:
    """A .cs with other columns; their names have two underscores for the slash."""

    def make(path: Path) -> None:
        KINDS[path.name].make(path)
        table = np.load(path)
        arrays = {name: table[name] for name in table.dtype.names}
        arrays |= {name.replace("__", "/"): value for name, value in columns.items()}
        kinds = [(name, value.dtype, value.shape[1:]) for name, value in arrays.items()]
        changed = np.empty(N, dtype=kinds)
        for name, value in arrays.items():
            changed[name] = value
        with path.open("wb") as file:
            np.save(file, changed)

    return make


def content(what: bytes | str) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(what.encode() if isinstance(what, str) else what)


def archive(**members: bytes) -> bytes:
    """An .npz of members that need not be arrays."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, member in members.items():
            file.writestr(f"{name}.npy", member)
    return buffer.getvalue()


def list_of_a_folder(path: Path) -> None:
    (path.parent / "d.mrcs").mkdir()
    path.write_text("d.mrcs", encoding="utf-8")


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file, file.open("mu.npy", "w", force_zip64=True) as mu:
        mu.write(npy("(90000000, 1)", "'<f4'"))
        for _ in range(360):
            mu.write(bytes(1_000_000))
    return buffer.getvalue()


def checkpoint(**weights: torch.Tensor) -> Callable[[Path], Any]:
    return lambda path: torch.save({"state_dict": weights}, path)


def put(index: int) -> bytes:
    """A pickle that stores something in the memo, far out."""
    return b"\x80\x02K\x01r" + struct.pack("<I", index) + b"."


DEEP = b"(" * 5000 + b"t" * 5000 + b"."
nested: Any = [0, 1]
for _ in range(40):
    nested = [nested] * 10
EXPLODING_LIST = pickle.dumps(nested)
nowhere = np.full(N, b"J1/part\xffcles.mrcs")
YAML_BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))

CASES: dict[str, tuple[str, Callable[[Path], Any], str]] = {
    # Counts and sizes that are not there: nothing of that size is allocated.
    "stack of 2^31 images": ("x.mrcs", header(nz=2**31 - 1), r"header says 2147483647 images and the file holds 12"),
    "images of 2^30 px": ("x.mrcs", header(nx=2**30, ny=2**30), r"truncated, .* holds 0"),
    "negative number of images": ("x.mrcs", header(nz=-5), r"says -5 images"),
    "negative side": ("x.mrcs", header(nx=-16, ny=-16), r"-16 x -16 px"),
    "negative extended header": ("x.mrc", header(next=-1), r"expected at least one image"),
    "extended header beyond the file": ("x.mrc", header(next=2**31 - 1), r"the file holds 0"),
    "npz of 2^60 rotations": ("p.npz", content(archive(rotations=npy("(1152921504606846976, 3, 3)"))), r"are there"),
    "npz of 10^9 rotations": ("p.npz", content(archive(rotations=npy("(1000000000, 3, 3)"))), r"72,000,000,000 bytes"),
    "npz of negative length": ("c.npz", content(archive(ctf_params=npy("(-1, 9)"))), r"c\.npz: damaged"),
    "npz of values of no bytes": ("l.npz", content(archive(state=npy("(10000000000,)", "'|S0'"))), r"are there"),
    "npz, sides that overflow": ("c.npz", content(archive(ctf_params=npy("(4294967296, 4294967296, 9)"))), "there"),
    "npz that unpacks to 1000 times its size": ("latents.npz", content(zip_bomb()), r"that unpack to 360,000,128"),
    "npz, header is no header": ("p.npz", content(archive(rotations=b"\x93NUMPY\x01\x00\x04\x00{}{}")), r"damaged"),
    "npz, header is code": ("p.npz", content(archive(rotations=npy("__import__('os').getcwd()"))), r"damaged"),
    "npz, member is no array": ("p.npz", content(archive(rotations=b"text")), r"damaged"),
    "npy of 10^12 indices": ("i.npy", content(npy("(1000000000000,)", "'<i8'")), r"8,000,000,000,000 bytes, and 0 are"),
    "npy, negative": ("i.npy", content(npy("(-3,)", "'<i8'", bytes(24))), r"no index can be read"),
    "npy of a format to come": ("i.npy", content(b"\x93NUMPY\x09\x00" + bytes(64)), r"no index can be read"),
    "cs of 10^10 rows": ("x.cs", content(npy("(10000000000,)", "[('blob/idx', '<u4')]")), r"no readable \.cs table"),
    "star with one endless word": (
        "x.star", content("data_\nloop_\n_rlnImageName\n" + "a\n" * 2000 + "b" * 200_000 + "\n"), "word of 200,000 ",
    ),
    "checkpoint that unpacks": ("last.ckpt", content(archive(data=bytes(10_000_000))), r"that unpack to 10,000,000"),
    # Pickles that take memory, or run something.
    "pickle, memo of 2^32 objects": ("p.pkl", content(put(2**32 - 1)), r"object 4294967295 stored after 1"),
    "pickle, bytes not there": ("p.pkl", content(b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"."), "no whole"),
    "pickle, bytearray not there": ("p.pkl", content(b"\x80\x05\x96" + struct.pack("<Q", 2**36) + b"."), "whole"),
    "pickle, frame not there": ("p.pkl", content(b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"N."), r"p\.pkl"),
    "pickle, bytearray of 10^11 zeros": ("p.pkl", content(call("builtins bytearray", 10**11)), r"no whole pickle"),
    "pickle, list of a range": ("i.pkl", content(call("builtins list", range(10**9))), r"list of range"),
    "pickle, set of a range": ("i.pkl", content(call("__builtin__ set", range(10**9))), r"set of range"),
    "pickle, range as an index": ("i.pkl", lambda path: dump(path, range(10**12)), r"no index can be read"),
    "pickle, array of any size": ("p.pkl", content(call("numpy ndarray", (10**10,))), r"no whole pickle"),
    "pickle, lists that unfold": ("i.pkl", content(EXPLODING_LIST), r"no index can be read"),
    "pickle, too deep": ("p.pkl", content(DEEP), r"p\.pkl"),
    "pickle, array of objects": ("p.pkl", lambda path: dump(path, np.array([{}, None])), r"an array of object"),
    "pickle, records": ("c.pkl", lambda path: dump(path, np.zeros(3, "f8,i4")), r"not of numbers"),
    "pickle, eval": ("c.pkl", content(call("builtins eval", "1+1")), r"c\.pkl: holds builtins\.eval"),
    "pickle, getattr": ("c.pkl", content(call("builtins getattr", "a", "upper")), r"holds builtins\.getattr"),
    "pickle, numpy's own pickle.load": ("i.pkl", content(call("numpy load", "x.npy")), r"holds numpy\.load"),
    "pickle, another codec": ("i.pkl", content(call("_codecs encode", "a", "zip")), r"bytes encoded as zip"),
    "pickle, extension registry": ("i.pkl", content(b"\x80\x02\x82\x01."), r"i\.pkl"),
    "pickle, persistent object": ("i.pkl", content(b"Pabc\n."), r"i\.pkl"),
    "pickle, buffers from elsewhere": ("i.pkl", content(b"\x80\x05\x97."), r"i\.pkl"),
    # Numbers that are none, or of the wrong kind.
    "latents, NaN": ("latents.npz", latents(mu=np.full((N, 2), np.nan, np.float32)), r"NaN or infinite values"),
    "latents, infinite": ("latents.npz", latents(logvar=np.full((N, 2), np.inf, np.float32)), r"NaN or infinite"),
    "latents, shapes differ": ("latents.npz", latents(mu=np.ones((N, 3), np.float32)), r"expected both \(N, zdim\)"),
    "latents, one dimension": ("latents.npz", latents(mu=np.ones(N, np.float32), logvar=np.ones(N)), r"\(N, zdim\)"),
    "latents, float64": ("latents.npz", latents(mu=np.ones((N, 2))), r"mu \(12, 2\) float64"),
    "latents, other byte order": ("latents.npz", latents(mu=np.ones((N, 2), ">f4")), r">f4"),
    "latents, text": ("latents.npz", latents(mu=np.full((N, 2), "a")), r"<U1"),
    "latents, objects": ("latents.npz", latents(mu=np.full((N, 2), None)), r"Python objects"),
    "latents, no mu": ("latents.npz", lambda path: np.savez(path, z=np.ones(3)), r"latents cannot be read \('mu'\)"),
    "checkpoint, NaN": ("last.ckpt", checkpoint(a=torch.full((2,), torch.nan)), r"NaN or infinite numbers in a"),
    "checkpoint, no weights": ("last.ckpt", lambda path: torch.save({"a": 1}, path), r"weights cannot be read"),
    "checkpoint, a list": ("last.ckpt", lambda path: torch.save([1], path), r"weights cannot be read"),
    "checkpoint, no tensors": ("last.ckpt", lambda path: torch.save({"state_dict": {"a": 1}}, path), r"than tensors"),
    "checkpoint, a loss of NaN": (
        "epochs.ckpt", lambda path: epochs_checkpoint(path, **{"loss/kl": float("nan")}), r"nan is no finite number"
    ),
    "checkpoint, a loss as text": (
        "epochs.ckpt", lambda path: epochs_checkpoint(path, **{"loss/kl": "x"}), r"x is no finite number"
    ),
    "checkpoint, an epoch of no time": (
        "epochs.ckpt", lambda path: epochs_checkpoint(path, **{"time/epoch_s": 0.0}), r"1 rows, or not all have epoch"
    ),
    "checkpoint, no epochs": ("epochs.ckpt", checkpoint(a=torch.zeros(2)), r"losses cannot be read"),
    "checkpoint, a pickle": ("last.ckpt", lambda path: dump(path, {"state_dict": {}}), r"weights cannot be read"),
    "labels, NaN": ("l.npz", lambda path: np.savez(path, hinge_rad=np.full(N, np.nan)), r"hinge_rad has NaN"),
    "labels, text": ("l.npz", lambda path: np.savez(path, hinge_rad=np.full(N, "a")), r"hinge_rad .*<U1"),
    "labels, complex": ("l.npz", lambda path: np.savez(path, hinge_rad=np.ones(N, complex)), r"complex128"),
    "labels, records": ("l.npz", lambda path: np.savez(path, state=np.zeros(N, "i4,i4")), r"expected \(N,\)"),
    "labels, a scalar": ("l.npz", lambda path: np.savez(path, state=3), r"state of shape \(\)"),
    "poses, complex": ("p.npz", lambda path: np.savez(path, rotations=rotations() + 0j), r"found complex128 array"),
    "poses, infinite": ("p.pkl", lambda path: dump(path, (rotations() * np.inf, shifts())), r"NaN or infinite rot"),
    "poses, a triple": ("p.pkl", lambda path: dump(path, (rotations(), shifts(), 1)), r"found tuple"),
    "poses, an object": ("p.npz", lambda path: np.savez(path, rotations=np.array([{}])), r"holds Python objects"),
    "CTF, too large for float32": (
        "c.pkl", lambda path: dump(path, particle_sets.ctf() * np.array([1, 1, 1e300, 1, 1, 1, 1, 1, 1])), r"too large",
    ),
    "CTF, text": ("c.npz", lambda path: np.savez(path, ctf_params=np.full((N, 9), "1")), r"found <U1 array"),
    "CTF, one row": ("c.npz", lambda path: np.savez(path, ctf_params=np.ones(9)), r"expected 9 columns"),
    "CTF, minus a box": ("c.npz", lambda path: np.savez(path, ctf_params=-particle_sets.ctf()), r"box not above 0"),
    "index, infinite": ("i.npy", lambda path: np.save(path, np.array([np.inf])), r"out of range"),
    "index, beyond int64": ("i.pkl", lambda path: dump(path, [2**70]), r"no integers"),
    "index, one number": ("i.npy", lambda path: np.save(path, 3), r"shape \(\)"),
    # Tables.
    "star, box NaN": ("p.star", text(lambda t: t.replace("3.0 16", "3.0 nan")), r"_rlnImageSize is nan in row 0"),
    "star, box 0": ("p.star", text(lambda t: t.replace("3.0 16", "3.0 0")), r"_rlnImageSize is 0 in row 0"),
    "star, box of 10^9": ("p.star", text(lambda t: t.replace("3.0 16", "3.0 1000000000")), r"a box of 1e\+09 px"),
    "star, pixel size 0": ("c.star", text(lambda t: t.replace("0.1 3.0", "0.1 0")), r"_rlnImagePixelSize is 0"),
    "star, pixel size infinite": ("c.star", text(lambda t: t.replace("0.1 3.0", "0.1 inf")), r"PixelSize is inf"),
    "star, angle infinite": ("p.star", text(lambda t: t.replace(" 1 3 6 9 ", " 1 inf 6 9 ")), r"NaN or infinite rot"),
    "star, no such optics group": ("c.star", text(lambda t: t.replace("mrcs 1 5 ", "mrcs 7 5 ")), r"c\.star"),
    "star, group described twice": (
        "c.star", text(lambda t: t.replace("3.0 16\n", "3.0 16\n1 200 2.7 0.1 3.0 16\n")), r"group is described twice",
    ),
    "star, column twice": ("c.star", text(lambda t: t.replace("_rlnDefocusV", "_rlnDefocusU")), r"no readable"),
    "star, image number beyond int64": (
        "x31.star", text(lambda t: t.replace("12@p", "99999999999999999999@p")), r"row 11, expected NUMBER@STACK",
    ),
    "star, a digit that is no number": ("x31.star", text(lambda t: t.replace("12@p", "²@p")), r"expected NUMBER@STACK"),
    "star, stack with an endless name": (
        "x31.star", text(lambda t: t.replace("@particles", "@" + "p" * 300)), r"its stack p+.* is not in",
    ),
    "star, two tables of one name": ("x31.star", text(lambda t: t + t), r"no readable \.star table"),
    "star, not in UTF-8": ("x.star", content(b"data_\nloop_\n_rlnImageName\n1@\xff.mrcs\n"), r"byte 28 is no UTF-8"),
    "list, not in UTF-8": ("x.txt", content(b"parti\xffcles.mrcs\n"), r"byte 5 is no UTF-8 text"),
    "list, endless name": ("x.txt", content("n" * 5000 + ".mrcs\n"), r"line 1 is 'n{199}, expected"),
    "list, of itself": ("x.txt", content("x.txt\n"), r"line 1 is 'x\.txt', expected the path of an \.mrcs"),
    "list, a folder": ("x.txt", list_of_a_folder, r"line 1 is 'd\.mrcs'"),
    "cs, path is a number": ("x.cs", cs_with(blob__path=np.ones(N)), r"are no names and numbers"),
    "cs, path is not in ASCII": ("x.cs", cs_with(blob__path=nowhere), r"not in ASCII"),
    "cs, index is a fraction": ("x.cs", cs_with(blob__idx=np.full(N, 0.5)), r"are no names and numbers"),
    "cs, index beyond int64": ("x.cs", cs_with(blob__idx=np.full(N, 2**64 - 1, np.uint64)), r"which holds 12"),
    "cs, pose of two numbers": ("p.cs", cs_with(alignments3D__pose=np.ones((N, 2), np.float32)), r"expected 3 number"),
    "cs, pose NaN": ("p.cs", cs_with(alignments3D__pose=np.full((N, 3), np.nan, np.float32)), r"NaN or infinite rot"),
    "cs, shift is text": ("p.cs", cs_with(alignments3D__shift=np.full((N, 2), "a")), r"expected 2 number"),
    "cs, box of 0 px": ("p.cs", cs_with(blob__shape=np.zeros((N, 2), np.uint32)), r"a box of 0 px"),
    "cs, box is one number": ("c.cs", cs_with(blob__shape=np.full(N, 16)), r"blob/shape is int64 of shape \(12,\)"),
    "cs, defocus is text": ("c.cs", cs_with(ctf__df1_A=np.full(N, "far")), r"ctf/df1_A is <U3"),
    "cs, pixel size NaN": ("c.cs", cs_with(blob__psize_A=np.full(N, np.nan)), r"NaN or infinite CTF"),
    # A run's own files.
    "config, unfolding": ("config.yaml", content(YAML_BOMB), r"it has aliases"),
    "config, a list": ("config.yaml", content("[1, 2]"), r"found a ListConfig"),
    "config, of cryoDRGN": ("config.yaml", content("dataset_args: {}\nmodel_args: {zdim: 8}"), r"no name, seed, data"),
    "config, a tab": ("config.yaml", content("name:\n\tx: 1"), r"config\.yaml: cannot be read"),
    "config, Python objects": ("config.yaml", content("name: !!python/object/apply:os.getcwd []"), r"cannot be read"),
    "config, too deep": ("config.yaml", content("[" * 3000), r"more than 500 lists"),
    "config, 2 MB": ("config.yaml", content("a: " + "b" * (1 << 21)), r"2,097,155 bytes, expected .* at most 65,536"),
    "config, builds something else": (
        "config.yaml", text(lambda t: t.replace("experiments.tasks.train.Train", "os.getcwd")),
        r"would build os\.getcwd",
    ),
    "config, reaches through a module of ours": (
        "config.yaml",
        text(lambda t: t.replace("tasks.train.Train", "runs.execution.shutil.rmtree")),
        r"build exper.*rmtree",
    ),
    "config, reads the environment": (
        "config.yaml", text(lambda t: t.replace("name: baseline", "name: ${oc.env:HOME}")), r"would be computed",
    ),
    "config, reads the environment by a resolver's hidden name": (
        "config.yaml",
        text(lambda t: t.replace("name: baseline", "name: ${${beta_control.a}.${beta_control.b}:HOME}")),
        r"would be computed",
    ),
    "config, an interpolation as a key": (
        "config.yaml", text(lambda t: t.replace("name: baseline", "name: baseline\n${seed}: 1")), r"would be computed",
    ),
    "config, an interpolation of another key": (
        "config.yaml", text(lambda t: t.replace("name: baseline", "name: ${seed}")), r"would be computed",
    ),
    "config, arguments of its own": (
        "config.yaml",
        text(lambda t: t.replace("  _target_: experiments.tasks.train.Train",
                                 "  _target_: experiments.tasks.train.Train\n  _args_: [1]")),
        r"has the key _args_",
    ),
    "metrics, a list": ("metrics.json", content("[1]"), r"expected names and numbers"),
    "metrics, nested": ("metrics.json", content('{"a": {"b": 1}}'), r"expected names and numbers"),
    "metrics, too deep": ("metrics.json", content("[" * 100_000), r"not valid JSON"),
    "metrics, two of them": ("metrics.json", content("{}{}"), r"not valid JSON"),
}  # fmt: skip
