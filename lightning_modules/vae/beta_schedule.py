"""The weight of the KL term over training, as cryoDRGN has it."""

from collections.abc import Callable

from lightning_modules.errors import InputError


def beta_schedule(beta: float | str | None, beta_control: float | None, zdim: int) -> Callable[[int], float]:
    """Build a schedule (``cryodrgn.beta_schedule.get_beta_schedule``).

    Args:
        beta: a constant; None for cryoDRGN's default 1 / zdim; or one of its linear schedules "a" to "d",
            which set the target of the KL and need ``beta_control``.
        beta_control: strength of KL control, or None.
        zdim: size of z.

    Returns:
        A function of the number of particles seen so far.

    Raises:
        InputError: an unknown schedule, or one without ``beta_control``.
    """
    from cryodrgn.beta_schedule import get_beta_schedule

    try:
        value: float | str = 1.0 / zdim if beta is None else float(beta)
    except ValueError:
        value = str(beta)
        if value not in ("a", "b", "c", "d"):
            raise InputError(f"beta={beta}: expected a number, null, or one of a, b, c, d") from None
        if beta_control is None:
            raise InputError(f"beta={beta}: this schedule sets the target of the KL; set beta_control too") from None
    schedule: Callable[[int], float] = get_beta_schedule(value)
    return schedule
