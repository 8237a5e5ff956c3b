"""`rlvr-zoo compare --plan`: what a comparison takes and can show, before it starts."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlvr_zoo.cli.compare import with_before
from rlvr_zoo.compare.comparison import Cell, cells_of
from rlvr_zoo.compare.runner import standing
from rlvr_zoo.leaderboard.power import MEASURED, TYPICAL, detectable_difference
from rlvr_zoo.models.quiet import quiet_transformers
from rlvr_zoo.plan import devices
from rlvr_zoo.plan.cost import HOUR, cost
from rlvr_zoo.plan.shape import load_shape
from rlvr_zoo.plan.suites import SuiteSize, sizes
from rlvr_zoo.track.comparison import Comparison
from rlvr_zoo.track.reader import RunReader


def plan_command(comparison: Comparison, output: Path | None, gpus: str) -> int:
    """Prints the plan; starts and writes nothing."""
    out = output or Path("comparisons") / comparison.id
    comparison = with_before(comparison, out)
    cells = cells_of(comparison, out)
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"{len(comparison.entrants)} entrants x {len(comparison.seeds)} seeds ="
        f" {len(cells)} runs under {comparison.protocol}, in {escape(str(out))}"
    )
    _show_hours(console, cells, gpus)
    _show_detectable(console, comparison, cells)
    return 0


def _show_hours(console: Console, cells: list[Cell], gpus: str) -> None:
    """Hours of each entrant: from the GPUs named, else from what runs of it took."""
    hours = _planned(cells, gpus) if gpus else _seen(cells)
    table = Table()
    table.add_column("entrant")
    for column in ("runs", "done", "hours a run", "hours left"):
        table.add_column(column, justify="right")
    by_name: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        by_name[cell.entrant.name].append(cell)
    total = 0.0
    for name, mine in by_name.items():
        done = sum(standing(cell) == "done" for cell in mine)
        each = hours.get(name, math.nan)
        left = each * (len(mine) - done)
        total += left
        table.add_row(escape(name), str(len(mine)), str(done), _number(each), _number(left))
    console.print(table)
    if math.isnan(total):
        console.print(
            "hours: not known before a run has ended here; run one seed (--only seed=0) and ask"
            " again, or name the GPUs of a run with --gpus h100x8"
        )
    else:
        where = f"on {gpus} each" if gpus else "at the pace of the runs that are done"
        console.print(f"{total:.2f} hours left, one run after the other, {where}")


def _planned(cells: list[Cell], gpus: str) -> dict[str, float]:
    quiet_transformers()
    chosen = devices.parse(gpus)
    found = {}
    for cell in {cell.entrant.name: cell for cell in cells}.values():
        config = cell.config
        planned = cost(config, load_shape(config.model), chosen, sizes(config.suites))
        found[cell.entrant.name] = planned.hours
    return found


def _seen(cells: list[Cell]) -> dict[str, float]:
    """Mean hours of an entrant's runs that are done; of all runs' for one that has none."""
    seen: dict[str, list[float]] = defaultdict(list)
    for cell in cells:
        if standing(cell) == "done":
            hours = RunReader(cell.path).record().costs.total_s / HOUR
            seen[cell.entrant.name].append(hours)
    every = [each for mine in seen.values() for each in mine]
    if not every:
        return {}
    return {
        name: sum(mine) / len(mine)
        for name in {cell.entrant.name for cell in cells}
        for mine in [seen.get(name) or every]
    }


def _show_detectable(console: Console, comparison: Comparison, cells: list[Cell]) -> None:
    """The smallest true difference that is found with 80 % power: of one pair, and of the first
    that Holm's correction looks at."""
    number = len(comparison.entrants)  # controls are in the board's correction, too
    pairs = max(1, number * (number - 1) // 2)
    config = cells[0].config
    held_out = SuiteSize("held-out", config.problems.num_held_out, config.evaluate.num_samples, 0)
    table = Table(title=f"smallest difference found with 80 % power, {pairs} pairs; noise assumed")
    table.add_column("suite")
    for column in ("problems", "samples", "one pair", "all pairs (Holm)"):
        table.add_column(column, justify="right")
    for suite in [held_out, *sizes(config.suites)]:
        row = [suite.name, str(suite.num_problems or "?"), str(suite.num_samples)]
        for alpha in (0.05, 0.05 / pairs):
            row.append(_points(suite, len(comparison.seeds), alpha))
        table.add_row(*row)
    console.print(table)


def _points(suite: SuiteSize, seeds: int, alpha: float) -> str:
    if suite.num_problems is None or seeds < 2:
        return "?"
    noise = MEASURED.get(suite.name, TYPICAL)
    found = detectable_difference(noise, suite.num_problems, suite.num_samples, seeds, alpha=alpha)
    return f"{100 * found:.1f} points"


def _number(hours: float) -> str:
    return "?" if math.isnan(hours) else f"{hours:.3f}" if hours < 1 else f"{hours:.1f}"
