"""The ways in which the suite can train here: every fast one can be switched off."""

FLOAT32, BFLOAT16 = "float32", "bfloat16"
PRECISIONS = (FLOAT32, BFLOAT16)
CPP, CAPTURED = ", C++", ", captured"


def ways(gpu: bool) -> dict[str, tuple[str, ...]]:
    """Return the settings of each way that can be had here, by name; a name begins with its precision.

    Named by the precision alone are torch's operations, one after another.
    """
    from lightning_modules.networks.native_library import library

    plain = ("trainer.native=false", "trainer.capture=false")
    found: dict[str, tuple[str, ...]] = {precision: (f"precision={precision}", *plain) for precision in PRECISIONS}
    if gpu:
        return found | {BFLOAT16 + CAPTURED: ("precision=bfloat16", "trainer.capture=true")}
    if library() is None:
        return found
    return found | {precision + CPP: (f"precision={precision}", "trainer.native=true") for precision in PRECISIONS}


def precision_of(way: str) -> str:
    """Return the precision of a way's products."""
    return way.partition(",")[0]
