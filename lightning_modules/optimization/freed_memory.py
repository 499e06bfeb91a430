"""How the process asks the operating system for memory."""

import ctypes
import sys

# mallopt's parameters, from malloc.h
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Keep what is freed for the next step, on a CPU under Linux.

    Every step frees the arrays that the next one asks for. glibc hands large ones back to the system, and the
    system gives them again page by page: a tenth of a step. Elsewhere nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
            mallopt(parameter, 1 << 30)
