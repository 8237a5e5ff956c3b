"""`rlvr-zoo compare` and `rlvr-zoo sweep`: many runs of one protocol."""

from __future__ import annotations

import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
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

from rlvr_zoo import registry
from rlvr_zoo.cli.run import Flags, interruptible
from rlvr_zoo.cli.screen import percent
from rlvr_zoo.compare.comparison import (
    Cell,
    Comparison,
    Entrant,
    Kind,
    grid,
    identify,
    parse_entrants,
    parse_knobs,
    select,
)
from rlvr_zoo.compare.runner import Result, Runner, Slots, standing
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.resolve import merge, resolve
from rlvr_zoo.track.reader import RunReader


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How the runs are made; nothing of it changes a number."""

    output: Path | None
    only: str
    jobs: int | None
    num_processes: int


def compare_command(algos: str, flags: Flags, seeds: int, tuned: Path | None, ways: Ways) -> int:
    """Exit code of `rlvr-zoo compare`."""
    return run_all(comparison_of(algos, flags, seeds, tuned), ways)


def comparison_of(algos: str, flags: Flags, seeds: int, tuned: Path | None) -> Comparison:
    """What is to be compared.  Raises ConfigError, NotFoundError."""
    entrants, tuning = parse_entrants(algos), ""
    if tuned is not None:
        from rlvr_zoo.compare.tuning import applied

        entrants, tuning = applied(tuned, entrants)
    return _comparison("compare", entrants, flags, seeds, tuning=tuning)


def sweep_command(algo: str, over: Sequence[str], flags: Flags, seeds: int, ways: Ways) -> int:
    """Exit code of `rlvr-zoo sweep`."""
    name, knobs = registry.algorithm(algo).name, parse_knobs(over)
    if not knobs:
        raise ConfigError("which knobs? add --over KNOB=VALUE,VALUE")
    about = f"{name}-{'-'.join(key.rpartition('.')[2] for key in knobs)}"
    return run_all(_comparison("sweep", grid(name, knobs), flags, seeds, about=about), ways)


def _comparison(
    kind: Kind,
    entrants: Sequence[Entrant],
    flags: Flags,
    seeds: int,
    about: str = "",
    tuning: str = "",
) -> Comparison:
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: set 1 or more; 3 are the fewest that are ranked")
    base = merge(flags.file_tree(), flags.tree())
    for key in ("algo", "seed"):
        if key in base:
            raise ConfigError(f"{key}: the comparison sets it for every run; leave it out")
    protocol = resolve(dict(base), {"algo": entrants[0].algo}).protocol
    return Comparison(
        kind=kind,
        id=identify(kind, base, protocol, about),
        protocol=protocol,
        command=shlex.join(["rlvr-zoo", *sys.argv[1:]]),
        entrants=tuple(entrants),
        seeds=tuple(range(seeds)),
        base=base,
        tuning=tuning,
    )


def run_all(comparison: Comparison, ways: Ways) -> int:
    """Runs what is missing: 0 where all is done, 1 where a run failed, 75 or 130 interrupted."""
    out = ways.output or Path("comparisons") / comparison.id
    comparison = comparison.joined(Comparison.load(out), out)
    cells = list(select(comparison.cells(out), ways.only))
    found = {cell.name: standing(cell) for cell in cells}
    todo = [cell for cell in cells if found[cell.name] in ("missing", "begun")]
    comparison.save(out)
    with Panel(out, Counter(found.values()), cells) as panel:
        if todo:
            slots = _slots(todo[0], ways)
            panel.say(f"{len(todo)} runs, {min(len(slots.gpus), len(todo))} at once")
            code = interruptible(
                lambda: Runner(slots, panel).run(todo), lambda: "; the same command goes on"
            )
            if code:
                return code
    panel.summary(comparison)
    return 1 if panel.failed else 0


def _slots(cell: Cell, ways: Ways) -> Slots:
    import torch

    slots = Slots.on(
        torch.cuda.device_count(), ways.num_processes, ways.jobs, cell.config.train.cpu_threads
    )
    if not slots.gpus:
        raise ConfigError(
            f"--num-processes {ways.num_processes}: this machine has {torch.cuda.device_count()}"
            " GPUs; ask for as many or fewer"
        )
    return slots


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

    def summary(self, comparison: Comparison) -> None:
        """What is there now, and what to do next."""
        done = Counter(
            cell.entrant.name for cell in comparison.cells(self._out) if standing(cell) == "done"
        )
        for entrant in comparison.entrants:
            if (number := done[entrant.name]) < len(comparison.seeds):
                self.say(f"{escape(entrant.name)}: {number} of {len(comparison.seeds)} seeds done")
        for cell in self.failed:
            self.say(f"failed: {escape(cell.name)}, see {escape(str(cell.log))}")
        self.say(f"next     rlvr-zoo leaderboard --from {escape(shlex.quote(str(self._out)))}")


def _score(cell: Cell) -> str:
    record = RunReader(cell.path).record()
    last = {each.name: each for each in record.evaluations}
    scores = ", ".join(f"{name} {percent(each.accuracy)}" for name, each in last.items())
    return f"{scores} in {record.costs.total_s:.0f} s"


def _duration(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 1 else f"{max(1, round(60 * hours))} min"
