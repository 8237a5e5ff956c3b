"""Ctrl-C and SIGTERM: what they become, and the exit code that says so."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

EX_TEMPFAIL = 75
"""The exit code after SIGTERM: the same command will do, later; schedulers requeue on it."""
EXIT_CODES = {"SIGINT": 130, "SIGTERM": EX_TEMPFAIL}
"""What an interrupted command exits with, by the signal that interrupted it."""

ECHO_S = 0.5
"""A signal this soon after another is the same one, come twice: from the terminal to all
processes, and from the launcher to each."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C is KeyboardInterrupt."""


def signal_of(error: KeyboardInterrupt) -> str:
    """The name of the signal that an interruption came of."""
    return "SIGTERM" if isinstance(error, Terminated) else "SIGINT"


def interruption(number: int) -> KeyboardInterrupt:
    """The interruption that a signal stands for."""
    return Terminated() if number == signal.SIGTERM else KeyboardInterrupt()


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated inside, where else it would end the process without a word."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():  # signals are not ours there
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stop_requests(warn: Callable[[str], None]) -> Iterator[Callable[[], int]]:
    """Ctrl-C and SIGTERM become a question that a loop asks: which signal wants it to stop, 0 for
    none.  A second Ctrl-C stops at once; SIGTERM does not, since schedulers repeat it while the
    checkpoint is being written."""
    asked: list[int] = []
    last_s = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal last_s
        echo, last_s = time.monotonic() - last_s < ECHO_S, time.monotonic()
        if asked and number == signal.SIGINT and not echo:
            raise KeyboardInterrupt
        asked.append(number)
        if len(asked) == 1:
            warn("stopping after this step, or these samples; Ctrl-C to stop at once, unsaved")

    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: max(asked, default=0)  # SIGTERM is the larger number
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
