"""What a table of outcomes tells of algorithms, and what may be luck; docs/statistics.md.

An entrant's outcomes are an array S seeds x P problems x K samples of ones and zeros; problems are
the same, in the same order, for all entrants.  The question asked is about new seeds *and* new
problems of the same kind.  Seeds of different entrants count as independent.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2, t

from rlvr_zoo.evaluate.estimators import pass_at
from rlvr_zoo.evaluate.intervals import wilson_interval
from rlvr_zoo.leaderboard.board import Interval
from rlvr_zoo.leaderboard.power import Noise

Floats = NDArray[np.float64]
Outcomes = NDArray[np.int64]

MIN_SEEDS = 3
"""With fewer, an entrant is listed and not ranked."""
ALPHA = 0.05
"""Level of every test, and 1 less that of every interval."""


def shares(outcomes_SPK: Outcomes) -> Floats:
    """Share of correct samples, S x P: their mean is avg@k."""
    return np.asarray(outcomes_SPK.mean(axis=2), dtype=np.float64)


def pass_shares(outcomes_SPK: Outcomes, k: int) -> Floats:
    """Unbiased pass@k of each seed and problem, S x P.  Raises ValueError for k above K."""
    num_samples = outcomes_SPK.shape[2]
    table = np.array([pass_at(k, num_samples, right) for right in range(num_samples + 1)])
    return np.asarray(table[outcomes_SPK.sum(axis=2)], dtype=np.float64)


# --------------------------------------------------------------------------- variance


@dataclass(frozen=True)
class Spread:
    """Two-way analysis of variance of S x P numbers: by seed, by problem, and what is left."""

    mean: float
    by_seed: Floats
    """Means over problems, S: a run's score."""
    by_problem: Floats
    """Means over seeds, P."""
    run: float
    """Variance of the scores of runs; S - 1 degrees of freedom."""
    luck: float
    """The part of it that samples, and seeds on single problems, explain."""

    @property
    def num_seeds(self) -> int:
        return len(self.by_seed)

    @property
    def num_problems(self) -> int:
        return len(self.by_problem)


def spread(values_SP: Floats) -> Spread:
    """The analysis of one entrant; at least two seeds and two problems.

    Searle, Casella and McCulloch 1992, section 4.7: x_si = mean + seed_s + problem_i + rest_si.
    """
    by_seed, by_problem = values_SP.mean(axis=1), values_SP.mean(axis=0)
    mean = float(values_SP.mean())
    rest_SP = values_SP - by_seed[:, None] - by_problem[None, :] + mean
    num_seeds, num_problems = values_SP.shape
    degrees = (num_seeds - 1) * (num_problems - 1)
    return Spread(
        mean=mean,
        by_seed=by_seed,
        by_problem=by_problem,
        run=float(by_seed.var(ddof=1)),
        luck=float((rest_SP**2).sum()) / degrees / num_problems,
    )


@dataclass(frozen=True)
class Typical:
    """How much runs of an entrant of the table commonly differ, which few seeds tell badly."""

    run: float = 0.0
    """Variance of scores, as a share of mean (1 - mean)."""
    degrees: float = 1.0


ALONE = Typical()
"""Nothing is known but the entrant's own runs."""


def typical(spreads: Sequence[Spread]) -> Typical:
    """The median over entrants of the variance between runs, each freed of its median's bias.

    The median, so that one entrant that collapses does not hide what the others show; it is worth
    about half the degrees of freedom of the mean.  A share, so that an entrant near 0 or 1 counts
    like the others.  Fewer than three entrants tell nothing new.
    """
    inside = [each for each in spreads if 0 < each.mean < 1]
    if len(inside) < 3:
        return ALONE
    degrees = [each.num_seeds - 1 for each in inside]
    freed = [
        each.run / _scale(each) * n / chi2.median(n)
        for each, n in zip(inside, degrees, strict=True)
    ]
    return Typical(float(np.median(freed)), sum(degrees) / 2)


def _scale(one: Spread) -> float:
    return one.mean * (1 - one.mean)


@dataclass(frozen=True)
class Error:
    """Squared standard error, and the degrees of freedom that it is known with."""

    variance: float
    degrees: float

    def half(self, level: float = ALPHA) -> float:
        """Half the width of the interval at 1 - level."""
        return float(t.ppf(1 - level / 2, self.degrees)) * math.sqrt(self.variance)

    def p(self, value: float) -> float:
        """Two-sided p-value of a value whose truth is 0."""
        if value == 0:
            return 1.0
        return float(2 * t.sf(abs(value) / math.sqrt(self.variance), self.degrees))


def _error(
    problems: float, num_problems: int, sides: Sequence[Spread], usual: Typical, resolution: float
) -> Error:
    """Variance of a mean, or of a difference of means, by Satterthwaite's approximation.

    `problems` is the variance of the mean over problems, in which luck is already; seeds add what
    their scores vary by beyond luck.  Nothing is known better than to `resolution`.
    """
    own = sum(side.run / side.num_seeds for side in sides)
    luck = sum(side.luck / side.num_seeds for side in sides)
    floor = usual.run * sum(_scale(side) / side.num_seeds for side in sides)
    seeds = max(own, floor, luck)
    own_degrees = _pooled_degrees(sides)
    least = (resolution**2, float(min(side.num_seeds for side in sides) - 1))
    parts = [
        (problems, float(num_problems - 1)),
        (seeds, own_degrees if own >= floor else max(own_degrees, usual.degrees)),
        least,
    ]
    variance = problems + seeds - luck + least[0]
    degrees = variance**2 / sum(part**2 / known for part, known in parts)
    return Error(variance, max(1.0, degrees))  # less where luck explains nearly all there is


def _pooled_degrees(sides: Sequence[Spread]) -> float:
    """Welch's degrees of freedom of the sum of the sides' variances."""
    parts = [(side.run / side.num_seeds, side.num_seeds - 1) for side in sides]
    total = sum(part for part, _ in parts)
    if total == 0:
        return float(min(degrees for _, degrees in parts))
    return total**2 / sum(part**2 / degrees for part, degrees in parts)


# --------------------------------------------------------------------------- means


def mean_error(one: Spread, num_samples: int, usual: Typical = ALONE) -> Error:
    """Of an entrant's mean over seeds and problems."""
    problems = float(one.by_problem.var(ddof=1)) / one.num_problems
    return _error(problems, one.num_problems, [one], usual, _resolution(num_samples, one))


def mean_interval(values_SP: Floats, num_samples: int, usual: Typical = ALONE) -> Interval:
    """A mean of shares and its interval; no ends for fewer than three seeds, or one problem.

    Wilson's, at the number of independent problems that would have the same variance, with
    Student's t (Dean and Pagano 2015, doi:10.1093/jssam/smv024): near 0 and 1 it stays within them,
    and leans inwards as the truth does.
    """
    mean = float(values_SP.mean())
    if len(values_SP) < MIN_SEEDS or values_SP.shape[1] < 2:
        return Interval(value=mean)
    if np.ptp(values_SP) == 0:  # nothing varies: there is no variance to go by
        low, high = wilson_interval(mean * values_SP.shape[1], values_SP.shape[1])
        return Interval(value=mean, low=low, high=high)
    error = mean_error(spread(values_SP), num_samples, usual)
    number = mean * (1 - mean) / error.variance
    wide = float(t.ppf(1 - ALPHA / 2, error.degrees)) ** 2 / number
    centre = (mean + wide / 2) / (1 + wide)
    half = math.sqrt(wide * mean * (1 - mean) + wide**2 / 4) / (1 + wide)
    return Interval(value=mean, low=max(0.0, centre - half), high=min(1.0, centre + half))


def _resolution(num_samples: int, *sides: Spread) -> float:
    """What one sample changes in a mean: the least that can be told apart."""
    return max(1 / (side.num_seeds * side.num_problems * num_samples) for side in sides)


# --------------------------------------------------------------------------- differences


@dataclass(frozen=True)
class Difference:
    """Mean of a less that of b over the same problems."""

    interval: Interval
    p: float
    """Two-sided; of no difference."""


def difference_error(a: Spread, b: Spread, usual: Typical, num_samples: int) -> Error:
    """Of the mean of a less that of b, paired by problem."""
    paired_P = a.by_problem - b.by_problem
    problems = float(paired_P.var(ddof=1)) / len(paired_P)
    return _error(problems, len(paired_P), [a, b], usual, _resolution(num_samples, a, b))


def difference(a: Spread, b: Spread, usual: Typical, num_samples: int) -> Difference:
    """With its 95 % interval and the p-value of none, by Student's t."""
    value = a.mean - b.mean
    error = difference_error(a, b, usual, num_samples)
    half = error.half()
    ends = Interval(value=value, low=max(-1.0, value - half), high=min(1.0, value + half))
    return Difference(ends, error.p(value))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given.  Holm 1979: of m sorted ones the
    i-th (from 0) becomes the largest of (m - j) p_j, j <= i."""
    order = sorted(range(len(p)), key=lambda index: p[index])
    corrected, most = [0.0] * len(p), 0.0
    for rank, index in enumerate(order):
        most = max(most, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = most
    return corrected


def tiers(names: Sequence[str], better: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """1 + how many are shown to be better; `better` maps a name to those."""
    return {name: 1 + len(set(better.get(name, ()))) for name in names}


def noise_seen(spreads: Sequence[Spread], num_samples: int) -> Noise:
    """What the table's entrants vary by, for `power.detectable_difference`.

    Medians: over entrants of the seed's part and the samples', over pairs of how differently two
    entrants find the same problems.  At least two entrants of three seeds.
    """
    luck = float(np.median([each.luck for each in spreads]))
    middle = float(np.median([_scale(each) for each in spreads]))
    usual = typical(spreads).run * middle or float(np.mean([each.run for each in spreads]))
    apart = [
        max(0.0, float((a.by_problem - b.by_problem).var(ddof=1)) - a.num_problems * _luck(a, b))
        for index, a in enumerate(spreads)
        for b in spreads[:index]
    ]
    return Noise(
        seed_sd=math.sqrt(max(0.0, usual - luck)),
        pass_variance=luck * spreads[0].num_problems * num_samples,
        problem_sd=math.sqrt(float(np.median(apart))),
    )


def _luck(*sides: Spread) -> float:
    return sum(side.luck / side.num_seeds for side in sides)


# --------------------------------------------------------------------------- single runs


@dataclass(frozen=True)
class OneRunEach:
    """Two runs with one sample of each problem, as papers report them."""

    difference: Interval
    """Share of a less that of b; Newcombe's hybrid score interval, as if unpaired."""
    p: float
    """Fisher's exact test, as if unpaired."""
    p_paired_least: float
    """The least that McNemar's exact test could give, whichever problems each solved."""


def one_run_each(correct_a: int, correct_b: int, num_problems: int) -> OneRunEach:
    """Counts of problems solved by one run of each of two algorithms.

    Says how sure the two *runs* are to differ; what another seed would have given is not in it.
    Newcombe 1998, method 10, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I.
    """
    from scipy.stats import fisher_exact

    table = np.array([[each, num_problems - each] for each in (correct_a, correct_b)])
    a, b = correct_a / num_problems, correct_b / num_problems
    (low_a, high_a), (low_b, high_b) = (
        wilson_interval(each, num_problems) for each in (correct_a, correct_b)
    )
    ends = Interval(
        value=a - b,
        low=a - b - math.hypot(a - low_a, high_b - b),
        high=a - b + math.hypot(high_a - a, b - low_b),
    )
    least = min(1.0, 2.0 ** (1 - abs(correct_a - correct_b)))
    return OneRunEach(ends, float(fisher_exact(table).pvalue), least)


def mcnemar(right_a: Sequence[int], right_b: Sequence[int]) -> float:
    """Exact two-sided p-value of no difference for one run each on the same problems."""
    from scipy.stats import binomtest

    only_a = sum(a > b for a, b in zip(right_a, right_b, strict=True))
    only_b = sum(a < b for a, b in zip(right_a, right_b, strict=True))
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
