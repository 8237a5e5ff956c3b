"""Intervals of what has no variance formula: drawn from the outcomes themselves.

The hierarchical bootstrap: seeds and problems are drawn with replacement, and a cell (seed,
problem) brings its samples, so that their luck is in it once (docs/metrics.md); problems are
crossed with seeds, and the same for all entrants (Owen 2007, doi:10.1214/07-AOAS122, the pigeonhole
bootstrap).  The draws are seeded: equal outcomes give equal intervals.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

from rlvr_zoo.leaderboard.board import Interval
from rlvr_zoo.leaderboard.statistics import (
    ALPHA,
    MIN_SEEDS,
    Floats,
    Outcomes,
    mean_error,
    shares,
    spread,
)

NUM_RESAMPLES = 4_000
_NEAR = 1e-9
_Z = float(norm.ppf(1 - ALPHA / 2))


@lru_cache(maxsize=8)
def _draws(number: int) -> Floats:
    """How often each of `number` is drawn in `number` draws, a resample a row."""
    draw = np.random.default_rng(number)
    counts = draw.multinomial(number, np.full(number, 1 / number), size=NUM_RESAMPLES)
    return counts.astype(np.float64)


# --------------------------------------------------------------------------- interquartile mean


def iqm(counts: Floats, values: Floats) -> Floats:
    """Mean of the middle half of numbers that are given as (sorted values, how often each).

    `counts` may have leading axes; as `scipy.stats.trim_mean` at 0.25: of n, int(n / 4) go at
    each end.  Agarwal et al. 2021, arXiv:2108.13264.
    """
    total = counts.sum(axis=-1, keepdims=True)
    cut = np.floor(total / 4)
    end = counts.cumsum(axis=-1)
    kept = np.minimum(end, total - cut) - np.maximum(end - counts, cut)
    weights = np.maximum(kept, 0.0)
    return np.asarray((weights * values).sum(axis=-1) / (total - 2 * cut)[..., 0])


def iqm_interval(outcomes_SPK: Outcomes) -> Interval:
    """Interquartile mean over (seed, problem) of the share of correct samples.

    The percentiles of the hierarchical bootstrap, stretched by as much as they would miss the
    interval of the mean: five seeds drawn from five vary too little, and the luck of samples comes
    in once with each of the drawn axes.  No ends for fewer than three seeds, or one problem.
    """
    num_seeds, num_problems, num_samples = outcomes_SPK.shape
    right_SP = outcomes_SPK.sum(axis=2)
    values = np.arange(num_samples + 1) / num_samples
    is_SPV = (right_SP[..., None] == np.arange(num_samples + 1)).astype(np.float64)
    value = float(iqm(is_SPV.sum(axis=(0, 1)), values))
    if num_seeds < MIN_SEEDS or num_problems < 2:
        return Interval(value=value)
    by_problem = np.einsum("bp,spv->bsv", _draws(num_problems), is_SPV, optimize=True)
    counts_BV = np.einsum("bs,bsv->bv", _draws(num_seeds), by_problem)
    drawn_B = iqm(counts_BV, values)
    mean_B = counts_BV @ values / (num_seeds * num_problems)
    if np.ptp(mean_B) == 0:
        return Interval(value=value, low=value, high=value)
    error = mean_error(spread(shares(outcomes_SPK)), num_samples)
    stretch = error.half() / (_Z * float(mean_B.std()))
    ends = value + stretch * (np.quantile(drawn_B, [ALPHA / 2, 1 - ALPHA / 2]) - value)
    low, high = np.clip(ends, 0.0, 1.0)
    return Interval(value=value, low=min(float(low), value), high=max(float(high), value))


# --------------------------------------------------------------------------- improvement


def improvement(scores_a: Floats, scores_b: Floats) -> Floats:
    """Share of pairs (run of a, run of b) in which a scores higher, ties halved.

    Scores have runs last, and equal leading axes.  Mann and Whitney's U over its largest value;
    Agarwal et al. 2021, arXiv:2108.13264.
    """
    ahead = np.sign(scores_a[..., :, None] - scores_b[..., None, :])
    return np.asarray((1 + ahead.mean(axis=(-2, -1))) / 2)


def improvement_interval(a_SPK: Outcomes, b_SPK: Outcomes) -> Interval:
    """Probability that a run of a scores higher than a run of b on P problems of the kind.

    Newcombe's score interval for few runs (2006, doi:10.1002/sim.2324, method 5), in which the
    variance is that of U at the probability in question; to it comes what U varies by when the
    problems are drawn anew.  No ends for fewer than three seeds on a side.
    """
    right_a, right_b = (each.sum(axis=2).astype(np.float64) for each in (a_SPK, b_SPK))
    value = float(improvement(right_a.sum(axis=1), right_b.sum(axis=1)))
    num_a, num_b, num_problems = len(a_SPK), len(b_SPK), a_SPK.shape[1]
    if min(num_a, num_b) < MIN_SEEDS:
        return Interval(value=value)
    weights = _draws(num_problems)
    drawn = improvement(weights @ right_a.T, weights @ right_b.T)
    problems = float(drawn.var())

    def beyond(truth: float) -> float:
        return abs(value - truth) - _Z * math.sqrt(_variance(truth, num_a, num_b) + problems)

    # at 0 and 1 the estimate is a root itself
    low = brentq(beyond, 0.0, value - _NEAR) if beyond(0.0) > 0 else 0.0
    high = brentq(beyond, value + _NEAR, 1.0) if beyond(1.0) > 0 else 1.0
    return Interval(value=value, low=float(low), high=float(high))


def _variance(truth: float, num_a: int, num_b: int) -> float:
    """Of U over its largest value, for scores whose tails fall off exponentially; Hanley and McNeil
    1982, with both numbers of runs replaced by their mean."""
    mean = (num_a + num_b) / 2 - 1
    tails = (1 - truth) / (2 - truth) + truth / (1 + truth)
    return truth * (1 - truth) * (1 + mean * tails) / (num_a * num_b)
