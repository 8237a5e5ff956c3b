"""What a person sees while many runs go on.  All of it on standard error."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from rlvr_zoo.cli.screen import percent
from rlvr_zoo.compare.comparison import Cell
from rlvr_zoo.compare.runner import Result
from rlvr_zoo.track.reader import RunReader


class Panel:
    """Shows a comparison: a bar for all, one for each run under way, a line for each that ends."""

    def __init__(self, out: Path, found: Counter[str], cells: Sequence[Cell]) -> None:
        self.failed: list[Cell] = []
        self._out, self._cells = out, cells
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._all = self._progress.add_task("runs", total=len(cells), completed=found["done"])
        self._tasks: dict[str, TaskID] = {}
        self._began_s, self._ended, self._left = time.monotonic(), 0, len(cells) - found["done"]
        counts = ", ".join(f"{number} {what}" for what, number in sorted(found.items()))
        self.say(f"{len(cells)} runs in {escape(str(out))}: {counts}")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line, above the bars."""
        self._console.print(text, soft_wrap=True)

    def skipped(self, cell: Cell) -> None:
        self._left -= 1
        self._progress.advance(self._all)
        self.say(f"{escape(cell.name)}: is run elsewhere")

    def started(self, cell: Cell, resumed: bool) -> None:
        total = cell.config.train.max_steps
        self._tasks[cell.name] = self._progress.add_task(escape(cell.name), total=total)
        if resumed:
            self.say(f"{escape(cell.name)}: goes on where it was stopped")

    def at_step(self, cell: Cell, step: int) -> None:
        self._progress.update(self._tasks[cell.name], completed=step)

    def ended(self, cell: Cell, result: Result, why: str) -> None:
        self._progress.remove_task(self._tasks.pop(cell.name))
        if result == "interrupted":
            self.say(f"{escape(cell.name)}: stopped")
            return
        self._ended += 1
        self._left -= 1
        self._progress.advance(self._all)
        hours = (time.monotonic() - self._began_s) / self._ended * self._left / 3600
        rest = f"[dim]{self._left} left, about {_duration(hours)}[/dim]" if self._left else ""
        if result == "done":
            self.say(f"{escape(cell.name)}: {escape(_score(cell))}  {rest}")
        else:
            self.failed.append(cell)
            self.say(f"[red]{escape(cell.name)} failed:[/red] {escape(why)}  {rest}")


def _score(cell: Cell) -> str:
    record = RunReader(cell.path).record()
    last = {each.name: each for each in record.evaluations}
    scores = ", ".join(f"{name} {percent(each.accuracy)}" for name, each in last.items())
    return f"{scores} in {record.costs.total_s:.0f} s"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
