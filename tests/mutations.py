"""Sound files, damaged at random: bytes flipped, cut, repeated; numbers in headers replaced."""

import random
import struct

# What breaks parsers: ends of ranges, and what a text may say instead of a number.
NUMBERS = (0, 1, -1, 2, 127, 255, 1 << 15, 1 << 16, (1 << 31) - 1, -(1 << 31), 1 << 30)
WORDS = (
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"",
    b"\xff\xfe",
    b"[",
    b"{",
    b"'",
    b"\x00",
    b"&a *a",
)


def mutated(content: bytes, seed: int) -> bytes:
    """Return a file with one to four damages, a function of the seed."""
    rng = random.Random(seed)
    for _ in range(rng.randint(1, 4)):
        content = rng.choice(DAMAGES)(content, rng)
    return content


def _flip(content: bytes, rng: random.Random) -> bytes:
    if not content:
        return content
    at = _place(content, rng)
    return content[:at] + bytes([content[at] ^ (1 << rng.randrange(8))]) + content[at + 1 :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _remove(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at + rng.randint(1, 64) :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + content[at : at + rng.randint(1, 64)] * rng.randint(2, 20) + content[at:]


def _number(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng) & ~3
    return content[:at] + struct.pack("<i", rng.choice(NUMBERS)) + content[at + 4 :]


def _word(content: bytes, rng: random.Random) -> bytes:
    at = _place(content, rng)
    return content[:at] + rng.choice(WORDS) + content[at + rng.randint(0, 8) :]


def _splice(content: bytes, rng: random.Random) -> bytes:
    at, other = _place(content, rng), _place(content, rng)
    n = rng.randint(1, 64)
    return content[:at] + content[other : other + n] + content[at + n :]


def _place(content: bytes, rng: random.Random) -> int:
    """Choose a byte; half of the time among the first and last few hundred, where headers are."""
    near = min(len(content), 400)
    if not near:
        return 0
    return rng.choice((rng.randrange(len(content)), rng.randrange(near), len(content) - 1 - rng.randrange(near)))


DAMAGES = (_flip, _cut, _remove, _repeat, _number, _number, _word, _word, _splice)
