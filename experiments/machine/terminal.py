"""Text for any terminal: what its encoding lacks is spelled in ASCII, and is no error."""

import codecs
import io
import sys

HANDLER = "spelled_in_ascii"
SPELLED = {"Å": "A", "µ": "u", "μ": "u", "±": "+-", "×": "x", "°": " deg", "≥": ">=", "≤": "<=", "–": "-", "·": "-"}
# How Python represents bytes of a file name that are not in the file system's encoding (PEP 383).
FIRST_RAW, LAST_RAW = 0xDC80, 0xDCFF


def any_terminal() -> None:
    """Let this process print every text, whatever the encoding of its output."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=HANDLER)


def spelled(error: UnicodeError) -> tuple[str | bytes, int]:
    """Replace what an encoding lacks: symbols by ASCII, raw bytes of a file name by themselves, others by escapes.

    Args:
        error: raised while text was encoded.

    Returns:
        The replacement, and the position after it.

    Raises:
        UnicodeError: the error itself, where it is not about encoding.
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if FIRST_RAW <= ord(character) <= LAST_RAW:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    return SPELLED.get(character) or character.encode("ascii", "backslashreplace").decode(), error.start + 1


def printable(text: str) -> str:
    """Return one line of text without what a terminal would obey: escape sequences and the like are spelled out."""
    return "".join(c if c.isprintable() or FIRST_RAW <= ord(c) <= LAST_RAW else repr(c)[1:-1] for c in text)


def purpose(documentation: str | None) -> str:
    """Return the first paragraph of a docstring for --help; nothing where ``python -OO`` removed it."""
    return (documentation or "").partition("\n\n")[0].strip()


codecs.register_error(HANDLER, spelled)
