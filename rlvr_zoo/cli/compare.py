"""`rlvr-zoo compare` and `rlvr-zoo sweep`: many runs of one protocol."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import FileLock
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlvr_zoo import registry
from rlvr_zoo.cli.compare_screen import Panel
from rlvr_zoo.cli.run import Flags, interruptible
from rlvr_zoo.cli.tracking import send_comparison
from rlvr_zoo.compare.comparison import (
    Cell,
    cells_of,
    grid,
    identify,
    joined,
    parse_entrants,
    select,
)
from rlvr_zoo.compare.knobs import parse_knobs
from rlvr_zoo.compare.runner import Runner, Slots, standing
from rlvr_zoo.compare.tuning import applied
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.launch.signals import EX_TEMPFAIL
from rlvr_zoo.protocol import digest
from rlvr_zoo.resolve import merge, read_file, resolve
from rlvr_zoo.track.comparison import PLAN, Comparison, Entrant, Kind
from rlvr_zoo.track.storage import storage


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
    comparison = _comparison("compare", parse_entrants(algos), flags, seeds)
    if tuned is None:
        return comparison
    entrants, tuning = applied(tuned, comparison.entrants, comparison.protocol, comparison.base)
    name = identify("compare", comparison.base, comparison.protocol, tuned=digest(read_file(tuned)))
    return replace(comparison, id=name, entrants=tuple(entrants), tuning=tuning)


def sweep_command(algo: str, over: Sequence[str], flags: Flags, seeds: int, ways: Ways) -> int:
    """Exit code of `rlvr-zoo sweep`."""
    name, knobs = registry.algorithm(algo).name, parse_knobs(over)
    about = f"{name}-{'-'.join(key.rpartition('.')[2] for key in knobs)}"
    return run_all(_comparison("sweep", grid(name, knobs), flags, seeds, about=about), ways)


def _comparison(
    kind: Kind,
    entrants: Sequence[Entrant],
    flags: Flags,
    seeds: int,
    about: str = "",
) -> Comparison:
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: set 1 or more; 3 are the fewest that are ranked")
    base = base_of(flags)
    protocol = resolve(dict(base), {"algo": entrants[0].algo}).protocol
    return Comparison(
        kind=kind,
        id=identify(kind, base, protocol, about),
        protocol=protocol,
        command=shlex.join(["rlvr-zoo", *sys.argv[1:]]),
        entrants=tuple(entrants),
        seeds=tuple(range(seeds)),
        base=base,
    )


def base_of(flags: Flags) -> dict[str, Any]:
    """The settings that all runs share.  Raises ConfigError for one that differs between them."""
    base = merge(flags.file_tree(), flags.tree())
    for key in ("algo", "seed"):
        if key in base:
            raise ConfigError(f"{key}: is set for every run; leave it out")
    return base


def run_all(comparison: Comparison, ways: Ways) -> int:
    """Runs what is missing: 0 where all is done, 1 where a run failed, 75 where runs were stopped,
    or are run elsewhere, 75 or 130 where this was interrupted."""
    out = ways.output or Path("comparisons") / comparison.id
    with _alone(out):  # another call may add to it
        comparison = with_before(comparison, out)
        cells = list(select(cells_of(comparison, out), ways.only))
        comparison.write(out)
    failed: list[Cell] | int = interruptible(
        lambda: run_cells(out, cells, ways), lambda: "; the same command goes on"
    )
    if isinstance(failed, int):
        return failed
    if any(cell.config.track.mlflow for cell in cells):
        send_comparison(out)
    _summarise(comparison, out, failed)
    if failed:
        return 1
    return 0 if all(standing(cell) == "done" for cell in cells) else EX_TEMPFAIL


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".plan.lock"):
            yield


def with_before(comparison: Comparison, out: Path) -> Comparison:
    """The comparison, with what the folder has of it already.  Raises RunFolderError."""
    if not (out / PLAN).is_file():
        return comparison
    return joined(comparison, Comparison.read(out), out)


def run_cells(out: Path, cells: Sequence[Cell], ways: Ways) -> list[Cell]:
    """Runs those that are not done, and returns those that failed.

    After Ctrl-C or SIGTERM every run saves a checkpoint, and the interruption is raised again.
    """
    if not cells:
        return []
    found = {cell.name: standing(cell) for cell in cells}
    todo = [cell for cell in cells if found[cell.name] in ("missing", "begun")]
    with Panel(out, Counter(found.values()), cells) as panel:
        if todo:
            slots = _slots(todo[0], ways)
            panel.say(f"{len(todo)} to run, {min(len(slots.gpus), len(todo))} at once")
            Runner(slots, panel).run(todo)
    return panel.failed


def _summarise(comparison: Comparison, out: Path, failed: Sequence[Cell]) -> None:
    """What is there now, and what to do next."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    done = Counter(
        cell.entrant.name for cell in cells_of(comparison, out) if standing(cell) == "done"
    )
    for entrant in comparison.entrants:
        if (number := done[entrant.name]) < len(comparison.seeds):
            console.print(f"{escape(entrant.name)}: {number} of {len(comparison.seeds)} seeds done")
    for cell in failed:
        console.print(f"failed: {escape(cell.name)}, see {escape(str(cell.log))}")
    here = escape(shlex.quote(str(out)))
    if comparison.kind == "sweep":
        _show_sweep(console, out)
        console.print(f"next     rlvr-zoo leaderboard --from COMPARISON --from {here}")
    else:
        console.print(f"next     rlvr-zoo leaderboard --from {here}")


def _show_sweep(console: Console, out: Path) -> None:
    from rlvr_zoo.leaderboard.build import suites_of
    from rlvr_zoo.leaderboard.records import read_records
    from rlvr_zoo.leaderboard.sweeps import sweeps_of
    from rlvr_zoo.leaderboard.words import spread

    entries = read_records([out]).entries
    if not entries:
        return
    suites = suites_of(entries)
    for sweep in sweeps_of(entries, suites):
        table = Table(title=f"{sweep.name}, accuracy and 95 % interval")
        for column in (*sweep.knobs, "seeds", *suites):
            table.add_column(escape(column), justify="right")
        for row in sweep.rows:
            scores = [spread(row.scores[suite]) for suite in suites]
            table.add_row(*map(str, row.values.values()), str(len(row.seeds)), *scores)
        console.print(table)


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
