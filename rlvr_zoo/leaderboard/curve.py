"""Curves of an entrant during training: means over seeds, with t-intervals from three seeds on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from scipy.stats import t

from rlvr_zoo.leaderboard.board import HELD_OUT, Interval, Point
from rlvr_zoo.leaderboard.records import Entry, Step
from rlvr_zoo.leaderboard.statistics import MIN_SEEDS


def accuracy(entries: Sequence[Entry]) -> tuple[Point, ...]:
    """Held-out accuracy at the steps that all seeds were measured after, and at every seed's last,
    which a budget of tokens may put at different steps."""
    curves = [
        {each.step: each.accuracy for each in entry.record.evaluations if each.name == HELD_OUT}
        for entry in entries
    ]
    within = (0.0, 1.0)
    points = _points(entries, curves, within)
    last = [entry.record.steps_done for entry in entries]
    if len(set(last)) == 1 or any(
        step not in curve for step, curve in zip(last, curves, strict=True)
    ):
        return points
    values = [curve[step] for step, curve in zip(last, curves, strict=True)]
    at = [entry.steps[-1] for entry in entries if entry.steps]
    earlier = [point for point in points if point.step < min(last)]
    return (*earlier, _point(round(float(np.mean(last))), values, at, within))


def signals(entries: Sequence[Entry]) -> dict[str, tuple[Point, ...]]:
    """What shows a collapse, as means over the steps from one evaluation to the next."""
    marks = sorted({each.step for entry in entries for each in entry.record.evaluations})
    names = sorted({name for entry in entries for step in entry.steps for name in step.signals})
    found = {}
    for name in names:
        curves = [_binned(entry, name, marks) for entry in entries]
        if points := _points(entries, curves):
            found[name] = points
    return found


def _binned(entry: Entry, name: str, marks: Sequence[int]) -> dict[int, float]:
    """Mean of a signal over the steps in (mark before, mark], by mark."""
    found = {}
    for before, mark in pairwise(marks):
        values = [
            step.signals[name]
            for step in entry.steps
            if before < step.step <= mark and name in step.signals
        ]
        if values:
            found[mark] = float(np.mean(values))
    return found


def _points(
    entries: Sequence[Entry],
    curves: Sequence[Mapping[int, float]],
    within: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[Point, ...]:
    steps = sorted(set.intersection(*(set(curve) for curve in curves)))
    spent = [{step.step: step for step in entry.steps} for entry in entries]
    return tuple(
        _point(
            step,
            [curve[step] for curve in curves],
            [mine[step] for mine in spent if step in mine],
            within,
        )
        for step in steps
    )


def _point(
    step: int, values: Sequence[float], at: Sequence[Step], within: tuple[float, float]
) -> Point:
    """The mean of one value a seed, and of what the seeds had spent by then."""
    band = mean_over_seeds(values, within)
    return Point(
        step=step,
        tokens=float(np.mean([each.tokens for each in at])) if at else 0.0,
        seconds=float(np.mean([each.seconds for each in at])) if at else 0.0,
        value=band.value,
        low=band.low,
        high=band.high,
    )


def mean_over_seeds(
    values: Sequence[float], within: tuple[float, float] = (-np.inf, np.inf)
) -> Interval:
    """Mean of one number a seed and its 95 % t-interval, cut to where it can lie; no ends for fewer
    than three seeds."""
    mean = float(np.mean(values))
    if len(values) < MIN_SEEDS:
        return Interval(value=mean)
    half = t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    low, high = np.clip([mean - half, mean + half], *within)
    return Interval(value=mean, low=float(low), high=float(high))
