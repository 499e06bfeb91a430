"""What the processor can do."""

import functools
from pathlib import Path


@functools.cache
def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags, as Linux names them; empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return frozenset()
    lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    return next((frozenset(line.split(":")[1].split()) for line in lines if line.startswith("flags")), frozenset())
