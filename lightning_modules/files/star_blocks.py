"""The tables of a .star file, as RELION, cryoSPARC's converters and the starfile package write them.

A block is a loop with one row a line, or plain: each name beside its value, which is a table of one row. Words may be
quoted. See Hall, "The STAR file", J. Chem. Inf. Comput. Sci. 31 (1991) 326; blocks of text between semicolons and
several loops in one block, which no program for particles writes, are refused.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

from lightning_modules.errors import InputError
from lightning_modules.files.regular_files import MAX_TABLE_BYTES, read_bytes

# A quote that ends in front of white space, or a word. No part of the line is looked at twice.
WORD = re.compile(r""""([^"]*)"(?!\S)|'([^']*)'(?!\S)|(\S+)""")


@dataclass
class Block:
    """A table.

    Attributes:
        columns: names, each with its underscore.
        rows: values of each row, in the order of the columns.
    """

    columns: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    is_loop: bool = False


def read_blocks(path: Path) -> dict[str, Block]:
    """Return the tables of a .star that have a row, each under its name, "data_particles" for instance.

    Raises:
        InputError: the file is no .star, it has two tables of one name, or a row has not as many values as columns.
    """
    try:
        lines = read_bytes(path, "a .star table", MAX_TABLE_BYTES).decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: byte {error.start} is no UTF-8 text; no readable .star table, export it again"
        ) from None
    blocks: dict[str, Block] = {}
    block: Block | None = None
    for number, line in enumerate(lines, start=1):
        words = _words(line)
        if len(words) == 1 and words[0].startswith("data_"):
            if words[0] in blocks:
                raise _unreadable(path, f"line {number} begins a second table {words[0]}")
            block = blocks[words[0]] = Block()
        elif words and block is not None and (wrong := _add(block, words)):
            raise _unreadable(path, f"line {number} {wrong}")
    found = {name: block for name, block in blocks.items() if block.rows}
    if not found:
        raise _unreadable(path, "no table with a row in it")
    return found


def _words(line: str) -> list[str]:
    if "#" not in line and '"' not in line and "'" not in line:
        return line.split()
    words = []
    for match in WORD.finditer(line):
        if (word := match[3]) is not None and word.startswith("#"):
            break  # a comment: RELION numbers its columns so
        words.append(next(group for group in match.groups() if group is not None))
    return words


def _add(block: Block, words: list[str]) -> str | None:
    """Add a line to a table; return what is wrong with it."""
    first = words[0]
    if first == "loop_" and len(words) == 1:
        wrong = "begins a second loop in one table" if block.is_loop or block.columns else None
        block.is_loop = True
        return wrong
    if not first.startswith("_") or (block.rows and block.is_loop):
        if not block.is_loop:
            return "has values without a name"
        if len(words) != len(block.columns):
            return f"has {len(words)} values, expected {len(block.columns)}, as many as columns"
        block.rows.append(words)
        return None
    if first in block.columns:
        return f"names column {first} again"
    if block.is_loop or len(words) == 1:
        block.is_loop = True  # cryoDRGN reads loops that do not say so
        block.columns.append(first)
        return "names a column beside plain values" if block.rows else None
    if len(words) != 2:
        return f"has {len(words) - 1} values for {first}, expected one"
    block.columns.append(first)
    block.rows[:] = [[*(block.rows[0] if block.rows else []), words[1]]]
    return None


def _unreadable(path: Path, found: str) -> InputError:
    return InputError(f"{path}: no readable .star table ({found}); export it again")
