"""Being told to stop: by a scheduler that wants the machine back, a time limit, or ``kill``.

SIGTERM, SIGUSR1 and SIGUSR2 all mean the same here: save, and leave. While a model trains, the saving is up to the
training loop, which asks :func:`stop_requested`; at any other time there is nothing to save. Who handled the signal
before (a launcher, to have the job queued again) is called once everything is on disk. Ctrl-C stays Python's own.
"""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NoReturn

logger = logging.getLogger(__name__)

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Interrupted(SystemExit):
    """The run was told to stop, and the same command continues it. Not an Exception: a sweep stops, too.

    Attributes:
        reason: the signals' names.
    """

    def __init__(self, reason: str) -> None:
        """Set the reason; the exit code is always the same."""
        super().__init__(EXIT_CODE)
        self.reason = reason

    def __str__(self) -> str:
        return f"interrupted by {self.reason}; the same command continues from the last checkpoint"


@dataclass
class _State:
    """What handlers and training share. Signals come to a process, so there is one of it."""

    reasons: list[str] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    former: dict[int, Any] = field(default_factory=dict)
    is_postponed: bool = False
    is_leaving: bool = False


_state = _State()


@contextmanager
def answered() -> Iterator[None]:
    """Answer signals in this block: at once, or where training can stop. Outside the main thread nobody can."""
    global _state
    if _state.former or threading.current_thread() is not threading.main_thread():
        yield
        return
    _state = _State(former={number: signal.getsignal(number) for number in SIGNALS})
    take_signals()
    try:
        yield
    finally:
        for number, handler in _state.former.items():
            signal.signal(number, handler)
        _state = _State()


def take_signals() -> None:
    """Take the signals from who took them in the meantime: Lightning takes SIGTERM when it starts."""
    if _state.former and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, _on_signal)


def postpone() -> None:
    """From now on, only note that a signal came: training asks, saves and calls :func:`leave`."""
    _state.is_postponed = True


def answer() -> None:
    """From now on, answer at once; also what came in the meantime."""
    _state.is_postponed = False
    if stop_requested():
        leave()


def request_stop(reason: str = "request") -> None:
    """Ask the training in this process to save and leave; return at once."""
    _state.reasons.append(reason)


def stop_requested() -> bool:
    """Tell whether somebody asked."""
    return bool(_state.reasons)


def leave() -> NoReturn:
    """Leave: what is worth saving is on disk.

    Raises:
        Interrupted: unless a launcher's handler raises an error of its own.
    """
    _state.is_leaving = True
    for number in dict.fromkeys(_state.received):
        former = _state.former.get(number)
        if callable(former):
            logger.info("%s: saved; now it is the launcher's", signal.Signals(number).name)
            try:
                former(number, None)
            except SystemExit:  # the launcher would leave, too
                break
    raise Interrupted(" and ".join(dict.fromkeys(_state.reasons)) or "request")


def _on_signal(number: int, frame: FrameType | None) -> None:
    if _state.is_leaving:  # once is enough
        return
    _state.received.append(number)
    request_stop(signal.Signals(number).name)
    if not _state.is_postponed:
        leave()
