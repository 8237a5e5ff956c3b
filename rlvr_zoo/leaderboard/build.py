"""Entries to a board: every number that is shown, computed once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from rlvr_zoo.errors import ConfigError, nearest
from rlvr_zoo.leaderboard import curve
from rlvr_zoo.leaderboard.board import (
    HELD_OUT,
    Board,
    Costs,
    Interval,
    LeftOut,
    Pair,
    Row,
    RunLink,
    Score,
    Suite,
)
from rlvr_zoo.leaderboard.bootstrap import improvement_interval, iqm_interval
from rlvr_zoo.leaderboard.entrants import Entrant, entrants_of
from rlvr_zoo.leaderboard.power import detectable_at
from rlvr_zoo.leaderboard.records import Entry
from rlvr_zoo.leaderboard.statistics import (
    ALPHA,
    MIN_SEEDS,
    Outcomes,
    Spread,
    difference,
    difference_error,
    holm,
    mean_interval,
    pass_shares,
    shares,
    spread,
    tiers,
    typical,
)
from rlvr_zoo.leaderboard.sweeps import sweeps_of
from rlvr_zoo.track.comparison import Comparison


def build(
    entries: Sequence[Entry],
    left_out: Sequence[LeftOut] = (),
    *,
    primary: str | None = None,
    plans: Sequence[Comparison] = (),
    cards: Callable[[str], str] = lambda name: "",
) -> Board:
    """The board of runs of one protocol digest; equal entries give equal boards.

    `primary` names the suite that orders the rows, else it is the first that is no held-out set.
    `plans` are the comparisons that runs belong to: they say how settings were chosen, and which
    runs should be there.  `cards` gives an algorithm's card.
    Raises ConfigError for an unknown suite, and where only sweeps are there.
    """
    compared = [entry for entry in entries if not entry.in_sweep]
    if not compared:
        raise ConfigError("only runs of sweeps are there; add the comparison that they belong to")
    entrants = entrants_of(compared)
    names = suites_of(compared, primary)
    tables = {name: _Table(name, entrants) for name in names}
    here = {entry.comparison for entry in entries}
    plans = [plan for plan in plans if plan.id in here]
    tunings = {plan.id: plan.tuning for plan in plans}
    rows = [_row(each, tables, tunings, cards) for each in entrants]
    best = {row.name: row.scores[names[0]].accuracy.value for row in rows}
    rows.sort(key=lambda row: (bool(row.not_ranked), -best[row.name], row.name))
    first = compared[0].record
    return Board(
        protocol=first.protocol,
        digest=first.protocol_digest,
        protocol_settings=first.protocol_settings,
        primary=names[0],
        suites=tuple(table.suite for table in tables.values()),
        rows=tuple(rows),
        pairs=tuple(pair for table in tables.values() for pair in table.pairs),
        sweeps=tuple(sweeps_of(entries, names)),
        left_out=(*left_out, *_missing(entries, left_out, plans)),
        versions=_versions(entries),
        hardware=tuple(sorted({_hardware(entry) for entry in entries})),
        command="\n".join(dict.fromkeys(plan.command for plan in plans)),
        run_hours=sum(entry.record.costs.total_s for entry in entries) / 3600,
    )


# --------------------------------------------------------------------------- what was measured


def suites_of(entries: Sequence[Entry], primary: str | None = None) -> list[str]:
    """Suites that every run was measured on, the one that orders the rows first."""
    common = set.intersection(*(set(entry.final()) for entry in entries))
    names = sorted(common, key=lambda name: (name == HELD_OUT, name))
    if primary is None:
        return names
    if primary not in names:
        raise ConfigError(f"--primary {primary}: not measured; {nearest(primary, names)}")
    return [primary, *(name for name in names if name != primary)]


def _missing(
    entries: Sequence[Entry], left_out: Sequence[LeftOut], plans: Sequence[Comparison]
) -> list[LeftOut]:
    """Runs that are neither there nor left out: planned ones, and seeds that others have."""
    known = {run for entry in entries if (run := _run_of(entry.folder))}
    known |= {run for each in left_out if (run := _run_of(each.where))}
    planned = {run for plan in plans for run in plan.runs}
    found = [
        LeftOut(where=f"{folder}/seed-{seed}", reason="planned, and no run of it is here")
        for folder, seed in sorted(planned - known)
    ]
    compared = [entry for entry in entries if not entry.in_sweep and not _run_of(entry.folder)]
    every = {entry.record.seed for entry in compared}
    for entrant in entrants_of(compared):
        for seed in sorted(every - {entry.record.seed for entry in entrant.entries}):
            found.append(LeftOut(where=entrant.name, reason=f"no run of seed {seed}"))
    return found


def _run_of(where: str) -> tuple[str, int] | None:
    """(entrant's folder, seed) of a run in a comparison's folder."""
    parts = where.split("/")
    seed = parts[-1].removeprefix("seed-")
    return (parts[-2], int(seed)) if len(parts) > 1 and seed.isdecimal() else None


# --------------------------------------------------------------------------- one suite


class _Table:
    """Everything that is computed of one suite."""

    def __init__(self, name: str, entrants: Sequence[Entrant]) -> None:
        self.name = name
        self.outcomes = {each.name: each.outcomes(name) for each in entrants}
        tested = [each for each in entrants if each.tested]
        ranked = [each.name for each in tested if not each.control]
        self.ranked = frozenset(ranked)
        self._spreads = {each.name: _spread(self.outcomes[each.name]) for each in tested}
        self.usual = typical([self._spreads[each] for each in ranked])
        self.pairs = self._pairs([each.name for each in tested])
        better: dict[str, list[str]] = defaultdict(list)
        for pair in self.pairs:
            if pair.shown and {pair.a, pair.b} <= self.ranked:
                winner, loser = (pair.a, pair.b) if pair.difference.value > 0 else (pair.b, pair.a)
                better[loser].append(winner)
        self.tiers = tiers(ranked, better)
        self.suite = self._suite([each for each in tested if not each.control])

    def _pairs(self, names: Sequence[str]) -> list[Pair]:
        both = list(combinations(names, 2))
        num_samples = next(iter(self.outcomes.values())).shape[2]
        found = [
            difference(self._spreads[a], self._spreads[b], self.usual, num_samples) for a, b in both
        ]
        corrected = holm([each.p for each in found])
        passed = self._pass_differences(both, num_samples)
        return [
            Pair(
                suite=self.name,
                a=a,
                b=b,
                difference=each.interval,
                p=each.p,
                p_holm=p_holm,
                improvement=improvement_interval(self.outcomes[a], self.outcomes[b]),
                shown=p_holm < ALPHA,
                pass_difference=wide and wide[0],
                pass_p_holm=wide and wide[1],
            )
            for (a, b), each, p_holm, wide in zip(both, found, corrected, passed, strict=True)
        ]

    def _pass_differences(
        self, both: Sequence[tuple[str, str]], num_samples: int
    ) -> Sequence[tuple[Interval, float] | None]:
        """Of pass@K, K all samples: the difference of each pair, and its p-value after Holm."""
        if num_samples == 1:
            return [None] * len(both)
        names = sorted({name for pair in both for name in pair})
        spreads = {name: spread(pass_shares(self.outcomes[name], num_samples)) for name in names}
        usual = typical([spreads[name] for name in names if name in self.ranked])
        found = [difference(spreads[a], spreads[b], usual, 1) for a, b in both]
        corrected = holm([each.p for each in found])
        return [(each.interval, p) for each, p in zip(found, corrected, strict=True)]

    def _suite(self, ranked: Sequence[Entrant]) -> Suite:
        num_problems, num_samples = next(iter(self.outcomes.values())).shape[1:]
        num_seeds = min((len(each.entries) for each in ranked), default=0)
        alone = together = None
        if len(ranked) > 1:  # the median pair's, by the very test that pairs are put to
            errors = [
                difference_error(
                    self._spreads[a.name], self._spreads[b.name], self.usual, num_samples
                )
                for a, b in combinations(ranked, 2)
            ]
            alone, together = (
                float(np.median([detectable_at(e.variance, e.degrees, level) for e in errors]))
                for level in (ALPHA, ALPHA / len(self.pairs))
            )
        return Suite(
            name=self.name,
            num_problems=num_problems,
            num_samples=num_samples,
            num_seeds=num_seeds,
            detectable=alone,
            detectable_holm=together,
        )

    def score(self, entrant: Entrant) -> Score:
        outcomes_SPK = self.outcomes[entrant.name]
        num_samples = outcomes_SPK.shape[2]
        powers = sorted({1 << n for n in range(12) if 1 << n <= num_samples} | {num_samples})
        return Score(
            accuracy=mean_interval(shares(outcomes_SPK), num_samples, self.usual),
            iqm=iqm_interval(outcomes_SPK),
            tier=self.tiers.get(entrant.name),
            by_seed={
                entry.record.seed: float(value)
                for entry, value in zip(
                    entrant.entries, outcomes_SPK.mean(axis=(1, 2)), strict=True
                )
            },
            pass_at={k: self._pass_at(outcomes_SPK, k) for k in powers},
        )

    def _pass_at(self, outcomes_SPK: Outcomes, k: int) -> Interval:
        values_SP = pass_shares(outcomes_SPK, k)
        usual = typical(
            [spread(pass_shares(self.outcomes[name], k)) for name in sorted(self.ranked)]
        )
        return mean_interval(values_SP, outcomes_SPK.shape[2], usual)


def _spread(outcomes_SPK: Outcomes) -> Spread:
    return spread(shares(outcomes_SPK))


# --------------------------------------------------------------------------- one row


def _row(
    entrant: Entrant,
    tables: Mapping[str, _Table],
    tunings: Mapping[str, str],
    cards: Callable[[str], str],
) -> Row:
    entries, record = entrant.entries, entrant.entries[0].record
    return Row(
        name=entrant.name,
        algorithm=record.algorithm,
        control=entrant.control,
        settings=entries[0].settings,
        tuning=tunings.get(entries[0].comparison, ""),
        seeds=tuple(entry.record.seed for entry in entries),
        not_ranked=_not_ranked(entrant),
        scores={name: table.score(entrant) for name, table in tables.items()},
        curve=curve.accuracy(entries),
        signals=curve.signals(entries),
        costs=_costs(entries),
        runs=tuple(_link(entry) for entry in entries),
        config=record.config,
        card=cards(record.algorithm),
    )


def _not_ranked(entrant: Entrant) -> str:
    if entrant.control:
        return "a control"
    number = len(entrant.entries)
    return "" if entrant.tested else f"{number} of the {MIN_SEEDS} seeds that a rank needs"


def _costs(entries: Sequence[Entry]) -> Costs:
    every = [entry.record.costs for entry in entries]

    def mean(name: str) -> float:
        return float(np.mean([getattr(costs, name) for costs in every]))

    return Costs(
        generated_tokens=mean("generated_tokens"),
        trained_tokens=mean("trained_tokens"),
        total_s=mean("total_s"),
        rollout_s=mean("rollout_s"),
        verify_s=mean("verify_s"),
        update_s=mean("update_s"),
        evaluate_s=mean("evaluate_s"),
        peak_memory_bytes=mean("peak_memory_bytes"),
        parameters=every[0].parameters,
    )


def _link(entry: Entry) -> RunLink:
    code = entry.record.code
    return RunLink(
        seed=entry.record.seed,
        folder=entry.folder,
        commit=code.commit + ("-dirty" if code.dirty else ""),
        mlflow_uri=entry.mlflow_uri if entry.mlflow_uri.startswith("http") else "",
        mlflow_run=entry.mlflow_run,
    )


# --------------------------------------------------------------------------- the rest


def _versions(entries: Sequence[Entry]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for package, version in entry.record.versions.items():
            found[package].add(version)
    return {package: tuple(sorted(found[package])) for package in sorted(found)}


def _hardware(entry: Entry) -> str:
    hardware = entry.record.hardware
    return ", ".join(hardware.gpus) or f"{hardware.cpu}, {hardware.num_cores} cores"
