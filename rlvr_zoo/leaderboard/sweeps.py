"""Sweeps among entries: one algorithm's settings, scanned; scored, and never ranked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rlvr_zoo.leaderboard.board import Sweep, SweepRow
from rlvr_zoo.leaderboard.entrants import Entrant, last, varied
from rlvr_zoo.leaderboard.records import Entry, seeds_of
from rlvr_zoo.leaderboard.statistics import mean_interval, shares


def sweeps_of(entries: Sequence[Entry], suites: Sequence[str]) -> list[Sweep]:
    """Every sweep among the entries: a row for each setting, in the order of values."""
    by_id: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.in_sweep:
            by_id[entry.comparison].append(entry)
    found = []
    for _, mine in sorted(by_id.items()):
        knobs = varied(mine)
        algorithm = mine[0].record.algorithm
        rows = [_sweep_row(seeds, knobs, suites) for seeds in seeds_of(mine).values()]
        rows.sort(key=lambda row: tuple(_sortable(row.values[last(knob)]) for knob in knobs))
        shown = tuple(last(knob) for knob in knobs)
        found.append(
            Sweep(
                name=f"{algorithm}: {', '.join(shown)}",
                algorithm=algorithm,
                knobs=shown,
                rows=tuple(rows),
            )
        )
    return sorted(found, key=lambda sweep: sweep.name)


def _sweep_row(entries: Sequence[Entry], knobs: Sequence[str], suites: Sequence[str]) -> SweepRow:
    mine = Entrant("", list(entries))
    measured = [name for name in suites if all(name in entry.final() for entry in entries)]
    scores = {}
    for name in measured:
        outcomes_SPK = mine.outcomes(name)
        scores[name] = mean_interval(shares(outcomes_SPK), outcomes_SPK.shape[2])
    return SweepRow(
        values={last(knob): entries[0].settings.get(knob) for knob in knobs},
        seeds=tuple(entry.record.seed for entry in entries),
        scores=scores,
    )


def _sortable(value: Any) -> tuple[int, float, str]:
    number = isinstance(value, int | float)
    return (0, float(value), "") if number else (1, 0.0, str(value))
