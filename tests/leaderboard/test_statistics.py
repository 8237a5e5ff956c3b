"""What is called a difference: on simulated tables of known truth, and against scipy."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rlvr_zoo.leaderboard.bootstrap import (
    improvement,
    improvement_interval,
    iqm,
    iqm_interval,
)
from rlvr_zoo.leaderboard.power import detectable_difference
from rlvr_zoo.leaderboard.statistics import (
    Outcomes,
    difference,
    holm,
    mcnemar,
    mean_interval,
    noise_seen,
    one_run_each,
    pass_shares,
    shares,
    spread,
    tiers,
    typical,
)

Table = list[NDArray[np.int64]]


def table(
    draw: np.random.Generator,
    size: tuple[int, int, int],
    *,
    entrants: int = 6,
    seed_sd: float = 0.15,
    own_sd: float = 0.0,
    shift: float = 0.0,
) -> Table:
    """Entrants that are equal, but for the first's `shift`: all in logits.

    Problems' difficulties are the same for all; `own_sd` is how differently each entrant finds
    them, of which nothing favours anybody.
    """
    num_seeds, num_problems, num_samples = size
    ease_P = stats.logistic.ppf(draw.beta(2, 2, num_problems))
    found = []
    for entrant in range(entrants):
        luck_S = seed_sd * draw.standard_normal(num_seeds)
        own_P = own_sd * draw.standard_normal(num_problems)
        logit_SP = ease_P + own_P + luck_S[:, None] + (shift if entrant == 0 else 0.0)
        p_SP = stats.logistic.cdf(logit_SP)
        found.append((draw.random((*p_SP.shape, num_samples)) < p_SP[..., None]).astype(np.int64))
    return found


def p_values(found: Table) -> list[float]:
    spreads = [spread(shares(each)) for each in found]
    usual, num_samples = typical(spreads), found[0].shape[2]
    return [difference(a, b, usual, num_samples).p for a, b in combinations(spreads, 2)]


@pytest.mark.parametrize(
    ("size", "seed_sd", "own_sd"),
    [
        ((5, 30, 1), 0.15, 0.0),
        ((5, 30, 32), 0.15, 0.5),
        ((3, 30, 4), 0.3, 0.3),
        ((5, 256, 4), 0.15, 0.0),
        ((3, 256, 1), 0.05, 0.0),
    ],
)
def test_of_a_thousand_tables_of_equals_one_in_twenty_shows_a_winner_at_most(
    size: tuple[int, int, int], seed_sd: float, own_sd: float
) -> None:
    draw = np.random.default_rng(20_261_124)
    won = sum(
        min(holm(p_values(table(draw, size, seed_sd=seed_sd, own_sd=own_sd)))) < 0.05
        for _ in range(1000)
    )
    assert won <= 50


@pytest.mark.parametrize("size", [(5, 30, 4), (3, 30, 4), (5, 256, 4), (3, 256, 1)])
def test_intervals_hold_the_truth_in_about_nineteen_of_twenty(size: tuple[int, int, int]) -> None:
    draw = np.random.default_rng(7)
    truth = 0.5  # by symmetry, of new seeds on new problems
    mean_held = difference_held = 0
    for _ in range(600):
        found = table(draw, size, entrants=4, seed_sd=0.2, own_sd=0.2)
        spreads = [spread(shares(each)) for each in found]
        usual = typical(spreads)
        mean = mean_interval(shares(found[0]), size[2], usual)
        apart = difference(spreads[0], spreads[1], usual, size[2]).interval
        assert mean.low is not None and mean.high is not None
        assert apart.low is not None and apart.high is not None
        mean_held += mean.low <= truth <= mean.high
        difference_held += apart.low <= 0 <= apart.high
    assert 0.93 <= mean_held / 600 <= 0.995
    assert 0.93 <= difference_held / 600 <= 0.995


@pytest.mark.parametrize("size", [(5, 256, 4), (5, 100, 8)])
def test_a_difference_of_the_detectable_size_is_found_four_times_in_five(
    size: tuple[int, int, int],
) -> None:
    draw = np.random.default_rng(11)
    num_seeds, num_problems, num_samples = size
    noise = noise_seen(
        [spread(shares(each)) for each in table(draw, size, entrants=40)], num_samples
    )
    wanted = detectable_difference(noise, num_problems, num_samples, num_seeds)
    slope = 0.2  # of the mean accuracy in logits, at Beta(2, 2)
    found = [
        p_values(table(draw, size, entrants=6, shift=wanted / slope))[0] < 0.05 for _ in range(400)
    ]
    assert 0.7 <= np.mean(found) <= 0.9


def test_eleven_against_nine_of_thirty_is_no_evidence() -> None:
    paper = one_run_each(11, 9, 30)
    assert paper.p == pytest.approx(0.7843, abs=1e-3)
    assert paper.p_paired_least == 0.5
    assert paper.difference.low is not None and paper.difference.high is not None
    assert paper.difference.low < -0.15 and paper.difference.high > 0.28
    assert one_run_each(18, 9, 30).p < 0.05 < one_run_each(17, 9, 30).p
    popo = [1] * 11 + [0] * 19
    grpo = [1] * 9 + [0] * 21
    assert mcnemar(popo, grpo) == 0.5
    assert mcnemar(popo, grpo[::-1]) == pytest.approx(stats.binomtest(11, 20).pvalue)


def test_what_does_not_vary_shows_nothing_and_crashes_nothing() -> None:
    same = np.ones((5, 30, 4), dtype=np.int64)
    assert p_values([same, same, same]) == [1.0, 1.0, 1.0]
    mean = mean_interval(shares(same), 4)
    assert mean.value == 1.0 and mean.low is not None and 0.8 < mean.low < 0.95
    one_off = same.copy()
    one_off[0, 0, 0] = 0
    assert p_values([same, one_off])[0] > 0.05
    assert p_values([same, np.zeros_like(same)])[0] < 1e-3
    assert iqm_interval(same).value == 1.0
    assert improvement_interval(same, same).value == 0.5


def test_identical_outcomes_do_not_differ() -> None:
    mine = table(np.random.default_rng(1), (5, 30, 4))[0]
    a = spread(shares(mine))
    found = difference(a, a, typical([a, a]), 4)
    assert (found.interval.value, found.p) == (0.0, 1.0)


def test_fewer_than_three_seeds_have_no_interval() -> None:
    two = table(np.random.default_rng(1), (2, 30, 4))[0]
    assert mean_interval(shares(two), 4).low is None
    assert iqm_interval(two).low is None
    assert improvement_interval(two, two).low is None


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_tiers_count_who_is_shown_to_be_better() -> None:
    assert tiers(["a", "b", "c"], {"b": ["a"], "c": ["a", "b", "a"]}) == {"a": 1, "b": 2, "c": 3}


def test_the_interquartile_mean_is_scipys() -> None:
    draw = np.random.default_rng(3)
    right = draw.integers(0, 9, size=101)
    counts = np.bincount(right, minlength=9).astype(float)
    want = stats.trim_mean(right / 8, 0.25)
    assert float(iqm(counts, np.arange(9) / 8)) == pytest.approx(want)


def test_the_probability_of_improvement_is_mann_and_whitneys() -> None:
    draw = np.random.default_rng(4)
    a, b = draw.integers(0, 6, size=7).astype(float), draw.integers(0, 6, size=5).astype(float)
    want = stats.mannwhitneyu(a, b).statistic / 35
    assert float(improvement(a, b)) == pytest.approx(want)


def test_pass_at_k_of_single_samples_is_the_mean_and_of_all_is_any() -> None:
    mine: Outcomes = table(np.random.default_rng(5), (3, 20, 4))[0]
    assert pass_shares(mine, 1) == pytest.approx(shares(mine))
    assert pass_shares(mine, 4) == pytest.approx(mine.max(axis=2))
    with pytest.raises(ValueError, match="5"):
        pass_shares(mine, 5)
