"""A leaderboard as data: what `build` makes of records, and every writer shows.

Accuracies and shares are 0 to 1, intervals 95 %.  Lists are in the order in which they are shown.
The same records give the same board, to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SCHEMA = 1
"""Version of results.json; raised whenever an older reader would misread it."""
HELD_OUT = "held-out"
"""The name of the evaluation on held-out problems of the training set."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number with its 95 % interval; the ends are None where there is too little to tell."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Point:
    """A curve at one step: the mean over seeds, and its t-interval from three seeds on."""

    step: int
    tokens: float
    """Completion tokens generated for training up to then, mean over seeds."""
    seconds: float
    """Seconds of rollout, verdicts and updates up to then, mean over seeds."""
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Score:
    """What an entrant scored on one suite, after its last step."""

    accuracy: Interval
    """avg@k: mean over seeds and problems; interval over seeds, problems and samples."""
    iqm: Interval
    """Interquartile mean over (seed, problem) of the share of correct samples."""
    tier: int | None
    """1 + how many ranked entrants are shown to be better; None: not ranked."""
    by_seed: Mapping[int, float]
    """Accuracy of each seed."""
    pass_at: Mapping[int, Interval] = field(default_factory=dict)
    """k -> pass@k."""


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Of one run, mean over seeds."""

    generated_tokens: float
    trained_tokens: float
    total_s: float
    rollout_s: float
    verify_s: float
    update_s: float
    evaluate_s: float
    peak_memory_bytes: float
    parameters: Mapping[str, int]
    """Parameters of each model held: `policy`, companions, `head`."""


@dataclass(frozen=True, kw_only=True)
class RunLink:
    """Where one run is to be found."""

    seed: int
    folder: str
    """Relative to the folder that was read."""
    commit: str
    """Git commit of rlvr-zoo, `-dirty` behind it where the source differed; empty: a release."""
    mlflow_uri: str = ""
    mlflow_run: str = ""


@dataclass(frozen=True, kw_only=True)
class Row:
    """An entrant: an algorithm with its settings, and all its seeds."""

    name: str
    """The algorithm's name, and where it entered with several settings those that differ."""
    algorithm: str
    control: bool
    """True for what is no contender: no training, random reward, ..."""
    settings: Mapping[str, Any]
    """What the protocol leaves to the algorithm, by dotted key: knobs, lr, group size."""
    tuning: str
    """How its settings were chosen, in words; empty: as its preset has them."""
    seeds: tuple[int, ...]
    not_ranked: str
    """Why it is listed only; empty: it is ranked."""
    scores: Mapping[str, Score]
    """By suite."""
    curve: tuple[Point, ...]
    """Held-out accuracy during training."""
    signals: Mapping[str, tuple[Point, ...]]
    """What shows a collapse, during training: `entropy`, `length`, `no_signal`."""
    costs: Costs
    runs: tuple[RunLink, ...]
    config: Mapping[str, Any]
    """The resolved configuration of the first seed."""
    card: str = ""
    """The algorithm's card, Markdown; empty where it has none."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two ranked entrants on one suite."""

    suite: str
    a: str
    b: str
    difference: Interval
    """Accuracy of a less that of b, paired by problem."""
    p: float
    """Two-sided p-value of no difference."""
    p_holm: float
    """The same after Holm's correction over all pairs of the suite."""
    improvement: Interval
    """Probability that a run of a scores higher than a run of b, ties halved."""
    shown: bool
    """True where the corrected p-value is below 0.05."""
    pass_difference: Interval | None = None
    """pass@K of a less that of b, K all samples, paired by problem; None for single samples."""
    pass_p_holm: float | None = None
    """Its p-value after Holm's correction over all pairs of the suite."""


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A set of problems on which every entrant was measured."""

    name: str
    num_problems: int
    num_samples: int
    """Samples of each problem."""
    num_seeds: int
    """The fewest seeds of a ranked entrant."""
    detectable: float | None
    """The smallest true difference between two entrants that is found with 80 % power, before the
    correction for many pairs; from the noise seen in these runs.  None: too few seeds."""
    detectable_holm: float | None
    """The same at the level that Holm's correction begins with."""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One setting of a sweep."""

    values: Mapping[str, Any]
    """Knob -> value."""
    seeds: tuple[int, ...]
    scores: Mapping[str, Interval]
    """Accuracy by suite."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One algorithm's knobs, scanned; never ranked."""

    name: str
    algorithm: str
    knobs: tuple[str, ...]
    rows: tuple[SweepRow, ...]


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A run that is not in any number, and why."""

    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Board:
    """All that is shown of the runs of one protocol digest."""

    protocol: str
    digest: str
    protocol_settings: Mapping[str, Any]
    """What was equal in all runs."""
    primary: str
    """The suite by which rows are ordered."""
    suites: tuple[Suite, ...]
    """The primary one first."""
    rows: tuple[Row, ...]
    """Best first by accuracy on the primary suite; what is not ranked comes last."""
    pairs: tuple[Pair, ...]
    sweeps: tuple[Sweep, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    versions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Package -> the versions that the runs had."""
    hardware: tuple[str, ...] = ()
    command: str = ""
    """What made the runs, as the comparison's folder has it."""
    run_hours: float = 0.0
    """Hours of all runs, one after the other."""
