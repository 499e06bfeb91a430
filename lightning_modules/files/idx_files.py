"""MNIST's own files: where they are, whether they are whole, and how to get them.

The format (IDX): a big-endian header with a magic number, the number of items and their size in px, then one
byte per pixel or label.
"""

import gzip
import hashlib
import logging
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lightning_modules.errors import InputError

logger = logging.getLogger(__name__)


class Published(NamedTuple):
    """What is known of one of the four files.

    Attributes:
        name: of the file, unpacked.
        shape: (N, 28, 28) or (N,).
        magic: first four bytes, as a number.
        md5: of the unpacked file.
        md5_packed: of the .gz file that is offered for download.
    """

    name: str
    shape: tuple[int, ...]
    magic: int
    md5: str
    md5_packed: str


IMAGES, LABELS = 0x00000803, 0x00000801  # unsigned bytes in three dimensions, in one
FILES = {
    ("train", "images"): Published(
        "train-images-idx3-ubyte", (60000, 28, 28), IMAGES,
        "6bbc9ace898e44ae57da46a324031adb", "f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    ("train", "labels"): Published(
        "train-labels-idx1-ubyte", (60000,), LABELS,
        "a25bea736e30d166cdddb491f175f624", "d53e105ee54ea40749a09fcbcd1e9432",
    ),
    ("test", "images"): Published(
        "t10k-images-idx3-ubyte", (10000, 28, 28), IMAGES,
        "2646ac647ad5339dbf082846283269ea", "9fb629c4189551a2d022fa330f9573f3",
    ),
    ("test", "labels"): Published(
        "t10k-labels-idx1-ubyte", (10000,), LABELS,
        "27ae3e4e09519cfbb04c329615203637", "ec29112dd5afa0611ce80d1b7f02629c",
    ),
}  # fmt: skip
MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
FOLDERS = (".", "MNIST/raw", "raw")  # plain, and as torchvision keeps them


def read(root: Path, split: str, kind: str) -> np.ndarray:
    """Read one of the files from a folder; download it there first where it is missing.

    Args:
        root: the folder, or torchvision's, with MNIST/raw in it.
        split: "train" or "test".
        kind: "images" or "labels".

    Returns:
        (N, 28, 28) or (N,) uint8.

    Raises:
        InputError: the file is damaged or not MNIST's, or it is missing and cannot be downloaded.
    """
    published = FILES[split, kind]
    return _checked(find(root, published) or download(root, published), published)


def find(root: Path, published: Published) -> Path | None:
    """Return where a file is, packed or not, or None."""
    names = (published.name, published.name.replace("-idx", ".idx"))  # as it is, and as some unpackers write it
    candidates = (root / folder / f"{name}{suffix}" for folder in FOLDERS for name in names for suffix in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def download(root: Path, published: Published) -> Path:
    """Download a file into a folder; nothing half-written stays there.

    Raises:
        InputError: no mirror can be reached, what it sent is not the published file, or it cannot be written.
    """
    import pooch
    from requests.exceptions import RequestException

    pooch.get_logger().setLevel(logging.WARNING)
    name = f"{published.name}.gz"
    reasons = []
    for mirror in MIRRORS:
        logger.info("downloading %s%s to %s", mirror, name, root)
        loader = pooch.HTTPDownloader(timeout=20)
        try:
            return Path(pooch.retrieve(mirror + name, f"md5:{published.md5_packed}", name, root, downloader=loader))
        except RequestException as error:
            reasons.append(type(error).__name__)
        except ValueError:
            reasons.append("it sent another file")
        except OSError as error:
            raise InputError(
                f"data.root={root}: {name} cannot be written there ({error.strerror or error}); choose another folder"
            ) from None
    raise InputError(
        f"data.root={root}: {name} is not there and cannot be downloaded ({', '.join(reasons)}); put MNIST's files "
        "there, name their folder with data.root=DIR, or use data=digits, which needs no network"
    )


def _checked(path: Path, published: Published) -> np.ndarray:
    """Read a file and compare header, size and checksum with what was published."""
    content = _content(path, published)
    n_header = 4 * (1 + len(published.shape))
    header = tuple(int(number) for number in np.frombuffer(content[:n_header], ">u4"))
    expected = (published.magic, *published.shape)
    names = ("magic number", "number of items", "rows", "columns")[: len(expected)]
    for name, found, wanted in zip(names, header, expected, strict=True):
        if found != wanted:
            raise _damaged(path, f"{name} {found}, expected {wanted}")
    n_bytes = n_header + int(np.prod(published.shape))
    if len(content) != n_bytes:
        found_bytes = "more" if len(content) > n_bytes else f"{len(content):,}"
        raise _damaged(path, f"{found_bytes} bytes, expected {n_bytes:,}")
    if (md5 := hashlib.md5(content, usedforsecurity=False).hexdigest()) != published.md5:
        raise _damaged(path, f"MD5 checksum {md5}, expected {published.md5}")
    return np.frombuffer(content, np.uint8, offset=n_header).reshape(published.shape)


def _content(path: Path, published: Published) -> bytes:
    """Return a file's bytes, unpacked, one more at most than it should have."""
    n_most = 4 * (1 + len(published.shape)) + int(np.prod(published.shape)) + 1
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content: bytes = file.read(n_most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, f"a file that cannot be unpacked ({error})") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if len(content) < 4 * (1 + len(published.shape)):
        raise _damaged(path, f"{len(content)} bytes, expected {n_most - 1:,}")
    return content


def _damaged(path: Path, found: str) -> InputError:
    return InputError(
        f"{path}: {found}: damaged, or not MNIST's own; delete it to have it downloaded again, or name another folder "
        "with data.root=DIR"
    )
