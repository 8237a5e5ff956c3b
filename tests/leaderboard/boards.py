"""A board made by hand: twelve entrants on three suites, with everything that a page must bear."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from rlvr_zoo.leaderboard.board import (
    Board,
    Costs,
    Interval,
    LeftOut,
    Pair,
    Point,
    Row,
    RunLink,
    Score,
    Suite,
    Sweep,
    SweepRow,
)

SEEDS = (0, 1, 2, 3, 4)
HOSTILE = '</script><img src=x onerror="document.title=1">|`*_[a](javascript:alert(1))\n=1+1'

LEVELS = {
    "popo": 0.842,
    "dr_grpo": 0.838,
    "grpo": 0.835,
    "dapo": 0.834,
    "gspo": 0.829,
    "rloo": 0.825,
    "popo-nosim": 0.821,
    "psr": 0.77,
    "nsr": 0.74,
    "random-reward": 0.41,
    "no-training": 0.368,
}
CONTROLS = ("random-reward", "no-training")
SUITES = {"micro-hard": 0.0, "micro": 0.12, "aime24": -0.33}
"""Suite -> how much easier it is than the first."""
PASS_AT = (1, 2, 4, 8)


def board(**changes: Any) -> Board:
    """The whole of it; `changes` replace fields of the board."""
    rows = [row(name, level) for name, level in LEVELS.items()]
    late = replace(row("sapo", 0.9), seeds=(0, 1), not_ranked="2 seeds, 3 are needed")
    late = replace(late, scores={suite: unranked(each) for suite, each in late.scores.items()})
    made = Board(
        protocol="micro-hard",
        digest="4f1d" * 16,
        protocol_settings={"train": {"steps": 100}, "rollout": {"temperature": 1.0}},
        primary="micro-hard",
        suites=tuple(
            Suite(
                name=name,
                num_problems=30 if name == "aime24" else 256,
                num_samples=8,
                num_seeds=5,
                detectable=0.021,
                detectable_holm=0.034,
            )
            for name in SUITES
        ),
        rows=(*rows, late),
        pairs=tuple(
            pair(suite, a, b) for suite in SUITES for a, b in combinations(list(LEVELS), 2)
        ),
        sweeps=(scan("popo-alpha", "similarity_coef", (0.05, 0.1, 0.3)), grid()),
        left_out=(
            LeftOut(where="grpo/seed-7", reason="record.json is damaged (line 3)"),
            LeftOut(where="ppo/seed-0", reason="stopped at step 40 of 100"),
        ),
        versions={"torch": ("2.13.0",), "rlvr-zoo": ("0.1.0",), "python": ("3.11.2", "3.12.1")},
        hardware=("AMD EPYC 7B13, 16 cores",),
        command="rlvr-zoo compare --algos popo,grpo --protocol micro-hard --seeds 5",
        run_hours=12.34,
    )
    return replace(made, **changes)


def hostile() -> Board:
    """One whose every text would like to be markup, a formula or a second table cell."""
    made = board()
    bad = replace(
        made.rows[0],
        name=f"={HOSTILE}",
        tuning=HOSTILE,
        settings={HOSTILE: HOSTILE},
        config={HOSTILE: [HOSTILE]},
        card=f"# {HOSTILE}\n\n{HOSTILE}\n\n![x](http://example.org/x.png)\n\n[k](javascript:x)",
        runs=tuple(replace(each, folder=HOSTILE, mlflow_uri=HOSTILE) for each in made.rows[0].runs),
    )
    suites = tuple(replace(each, name=each.name + "<b>") for each in made.suites)
    renamed = {
        "rows": tuple(
            replace(each, scores={f"{k}<b>": v for k, v in each.scores.items()})
            for each in (bad, *made.rows[1:])
        ),
        "pairs": tuple(
            replace(each, suite=f"{each.suite}<b>", a=bad.name if each.a == "popo" else each.a)
            for each in made.pairs
        ),
    }
    return replace(
        made,
        **renamed,
        suites=suites,
        primary=suites[0].name,
        protocol=HOSTILE,
        command=f"rlvr-zoo {HOSTILE}\n```\n<b>",
        left_out=(LeftOut(where=HOSTILE, reason=HOSTILE),),
        hardware=(HOSTILE,),
        versions={HOSTILE: (HOSTILE,)},
    )


def large(num_entrants: int = 29) -> Board:
    """As many entrants as algorithms, ablations and controls make."""
    names = [f"entrant-{number:02d}" for number in range(num_entrants - 2)]
    levels = {name: 0.85 - 0.008 * number for number, name in enumerate(names)}
    levels |= {name: LEVELS[name] for name in CONTROLS}
    rows = tuple(row(name, level) for name, level in levels.items())
    pairs = tuple(
        replace(
            pair("micro", "popo", "psr"), suite=suite, a=a, b=b, shown=levels[a] - levels[b] > 0.1
        )
        for suite in SUITES
        for a, b in combinations(levels, 2)
    )
    return board(rows=rows, pairs=pairs)


def row(name: str, level: float) -> Row:
    shown = {suite: score(name, accuracy(level, easier)) for suite, easier in SUITES.items()}
    return Row(
        name=name,
        algorithm=name.partition("-")[0] if name not in CONTROLS else name,
        control=name in CONTROLS,
        settings={"optimizer.lr": 1e-5, "rollout.group_size": 8, "algorithm.clip_high": 0.28},
        tuning="20 trials on the validation split" if name == "grpo" else "",
        seeds=SEEDS,
        not_ranked="",
        scores=shown,
        curve=curve(0.37, level),
        signals={
            "entropy": curve(1.2, 0.3 if level > 0.5 else 0.05),
            "length": curve(11.0, 7.0),
            "no_signal": curve(0.2, 0.9 if level > 0.8 else 0.4),
        },
        costs=costs(level, companions=name.startswith("popo")),
        runs=tuple(link(name, seed) for seed in SEEDS),
        config={"algo": name, "seed": 0, "optimizer": {"lr": 1e-5, "betas": [0.9, 0.95]}},
        card=f"# {name}\nSome & 2020.\n\n| knob | default |\n| --- | --- |\n| `lr` | 1e-5 |\n",
    )


def accuracy(level: float, easier: float) -> float:
    return min(max(level + easier, 0.01), 0.996)


def score(name: str, level: float) -> Score:
    return Score(
        accuracy=around(level, 0.02),
        iqm=around(min(level * 1.03, 1.0), 0.025),
        tier=3 if name in CONTROLS else 2 if name in ("psr", "nsr") else 1,
        by_seed={seed: level + 0.01 * (seed - 2) / 2 for seed in SEEDS},
        pass_at={k: around(1 - (1 - level) ** (1 + math.log2(k) / 2), 0.02) for k in PASS_AT},
    )


def unranked(each: Score) -> Score:
    """Of two seeds: without intervals and tier."""
    by_seed = {seed: each.by_seed[seed] for seed in SEEDS[:2]}
    bare = {k: Interval(value=number.value) for k, number in each.pass_at.items()}
    alone = Interval(value=each.accuracy.value)
    return replace(each, accuracy=alone, iqm=alone, tier=None, by_seed=by_seed, pass_at=bare)


def around(value: float, half: float) -> Interval:
    return Interval(value=value, low=max(value - half, 0.0), high=min(value + half, 1.0))


def curve(start: float, end: float) -> tuple[Point, ...]:
    made = []
    for step in range(0, 101, 10):
        value = end + (start - end) * math.exp(-step / 20)
        half = 0.03 * abs(value) if step else 0.0
        made.append(
            Point(
                step=step,
                tokens=3.1e4 * step,
                seconds=4.2 * step,
                value=value,
                low=value - half,
                high=value + half,
            )
        )
    return tuple(made)


def costs(level: float, companions: bool) -> Costs:
    parameters = {"policy": 1_234_567}
    parameters |= {"momentum": 1_234_567, "head": 52_000} if companions else {}
    seconds = 400 + 100 * level
    return Costs(
        generated_tokens=3.1e6,
        trained_tokens=3.1e6 * level,
        total_s=seconds,
        rollout_s=0.5 * seconds,
        verify_s=0.1 * seconds,
        update_s=0.3 * seconds,
        evaluate_s=0.1 * seconds,
        peak_memory_bytes=0.8e9 * (1 + companions),
        parameters=parameters,
    )


def link(name: str, seed: int) -> RunLink:
    uris = ("sqlite:///mlflow.db", "http://tracker.example:5000/", "")
    uri = uris[seed % 3]
    return RunLink(
        seed=seed,
        folder=f"{name}/seed-{seed}",
        commit="e0c4674" + ("-dirty" if seed == 4 else ""),
        mlflow_uri=uri,
        mlflow_run="0123456789abcdef" * 2 if uri else "",
    )


def pair(suite: str, a: str, b: str) -> Pair:
    levels = [accuracy(LEVELS[name], SUITES[suite]) for name in (a, b)]
    gap = levels[0] - levels[1]
    return Pair(
        suite=suite,
        a=a,
        b=b,
        difference=Interval(value=gap, low=gap - 0.02, high=gap + 0.02),
        p=0.001 if abs(gap) > 0.03 else 0.3,
        p_holm=0.02 if abs(gap) > 0.03 else 1.0,
        improvement=around(min(max(0.5 + 5 * gap, 0.0), 1.0), 0.15),
        shown=abs(gap) > 0.03,
    )


def scan(name: str, knob: str, values: Sequence[float]) -> Sweep:
    rows = [
        SweepRow(
            values={knob: value},
            seeds=SEEDS[:3],
            scores={
                suite: around(accuracy(0.83 + 0.02 * number, easier), 0.02)
                for suite, easier in SUITES.items()
            },
        )
        for number, value in enumerate(values)
    ]
    return Sweep(name=name, algorithm="popo", knobs=(knob,), rows=tuple(rows))


def grid() -> Sweep:
    rows = [
        SweepRow(
            values={"rollout.group_size": size, "weights": weights},
            seeds=SEEDS[:3],
            scores={
                suite: around(accuracy(0.8 + 0.004 * size, easier), 0.02)
                for suite, easier in SUITES.items()
            },
        )
        for weights in ("softmax", "uniform")
        for size in (4, 8, 16)
    ]
    return Sweep(
        name="popo-groups",
        algorithm="popo",
        knobs=("rollout.group_size", "weights"),
        rows=tuple(rows),
    )
