"""Work on threads that the process never waits for: an error, or Ctrl-C, ends the wait at once.

The threads of `concurrent.futures` are joined when a pool is left and again when the process ends,
so that one request that hangs would hold back everything else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

T = TypeVar("T")


class Outcome(Generic[T]):
    """The first result or error that anyone reports."""

    def __init__(self) -> None:
        self._reports: SimpleQueue[tuple[T, None] | tuple[None, BaseException]] = SimpleQueue()

    def run(self, work: Callable[[], T]) -> None:
        """Reports what the work returns or raises."""
        try:
            self._reports.put((work(), None))
        except BaseException as error:  # whoever waits raises it
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        self._reports.put((None, error))

    def get(self, timeout_s: float | None = None) -> T:
        """The next report: its result, or its error raised.  Raises TimeoutError where none came
        in time."""
        try:
            result, error = self._reports.get(timeout=timeout_s)
        except Empty:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # a tuple without an error has a result


def start(work: Callable[[], None], name: str) -> None:
    Thread(target=work, name=name, daemon=True).start()


def gather(
    work: Callable[[int], T], lanes: Sequence[Sequence[int]], width: int, stop: Callable[[], None]
) -> dict[int, T]:
    """`work(n)` by n, for every number n of every lane, `width` at once of each lane.

    The first error is raised as soon as it happens; before that, and at Ctrl-C, `stop` is called,
    which has to make calls that are under way fail, and further ones, too.
    """
    outcome: Outcome[tuple[int, T]] = Outcome()

    def go_through(queue: SimpleQueue[int]) -> None:
        while True:
            try:
                number = queue.get_nowait()
            except Empty:
                return
            outcome.run(lambda number=number: (number, work(number)))  # type: ignore[misc]

    try:
        for lane in lanes:
            queue: SimpleQueue[int] = SimpleQueue()
            for number in lane:
                queue.put(number)
            for _ in range(min(width, len(lane))):
                start(lambda queue=queue: go_through(queue), "rlvr-zoo-ask")  # type: ignore[misc]
        return dict(outcome.get() for lane in lanes for _ in lane)
    except BaseException:
        stop()
        raise
