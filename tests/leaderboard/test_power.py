"""The smallest detectable difference, against published statements and by simulation."""

import math

import numpy as np
import pytest
from scipy.stats import t

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.power import MEASURED, Noise, detectable_difference, noise_of


def test_three_seeds_and_one_sample_see_14_points_of_aime() -> None:
    found = detectable_difference(MEASURED["aime25"], 30, num_samples=1, num_seeds=3)
    assert 100 * found == pytest.approx(14, abs=0.5)


@pytest.mark.parametrize("seed_sd", [0.006, 0.010, 0.015])
def test_five_seeds_and_avg_at_32_see_2_to_3_5_points(seed_sd: float) -> None:
    noise = noise_of(0.045, seed_sd, 30)
    found = 100 * detectable_difference(noise, 30, num_samples=32, num_seeds=5)
    assert 1.95 <= found <= 3.55


def test_noise_gives_back_what_was_measured() -> None:
    for name, points in {"aime24": 4.5, "amc23": 3.8, "math500": 0.75}.items():
        problems = {"aime24": 30, "amc23": 40, "math500": 500}[name]
        assert 100 * MEASURED[name].sd(problems, 1) == pytest.approx(points)


def test_beyond_32_samples_seeds_are_what_is_missing() -> None:
    def points(samples: int, seeds: int) -> float:
        return detectable_difference(MEASURED["aime24"], 30, samples, seeds)

    assert points(128, 5) > 0.8 * points(32, 5)
    assert points(32, 10) < 0.7 * points(32, 5)


def test_many_seeds_need_what_a_normal_test_needs() -> None:
    # (1.960 + 0.842) * sqrt(2 / S) * sd, as textbooks have it
    found = detectable_difference(Noise(0.01, 0.0), 30, 1, num_seeds=2000)
    assert found == pytest.approx(2.8016 * math.sqrt(2 / 2000) * 0.01, rel=2e-3)


def test_one_seed_sees_nothing() -> None:
    assert math.isnan(detectable_difference(MEASURED["aime24"], 30, 32, num_seeds=1))


@pytest.mark.parametrize(
    "wrong", [{"num_samples": 0}, {"num_seeds": 0}, {"power": 1.0}, {"alpha": 0.0}]
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    arguments = {"num_samples": 4, "num_seeds": 3} | wrong
    with pytest.raises(ConfigError, match="set"):
        detectable_difference(MEASURED["aime24"], 30, **arguments)  # type: ignore[arg-type]


def test_a_seed_cannot_vary_more_than_the_whole() -> None:
    with pytest.raises(ConfigError, match="seed_sd"):
        noise_of(0.01, 0.02, 30)


@pytest.mark.parametrize(("num_samples", "num_seeds"), [(1, 3), (32, 5)])
def test_simulated_comparisons_have_the_power(num_samples: int, num_seeds: int) -> None:
    """Problems of mixed difficulty, the same for both sides; runs with a luck of their own."""
    draw = np.random.default_rng(0)
    p_P = draw.beta(0.3, 0.6, size=300) * 0.8 + 0.1  # room for the difference at both ends
    noise = Noise(seed_sd=0.01, pass_variance=float((p_P * (1 - p_P)).mean()))
    gap = detectable_difference(noise, 300, num_samples, num_seeds)
    scores = [
        [_scores(draw, p_P + side * gap / 2, noise, num_samples, num_seeds) for side in (1, -1)]
        for _ in range(2000)
    ]
    sides = np.array(scores)  # comparison, side, seed
    error = np.sqrt(sides.var(axis=2, ddof=1).mean(axis=1) * 2 / num_seeds)
    shift = np.abs(sides[:, 0].mean(axis=1) - sides[:, 1].mean(axis=1))
    found = shift > t.ppf(0.975, 2 * (num_seeds - 1)) * error
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)  # sampling error: 0.009


def _scores(
    draw: np.random.Generator, p_P: np.ndarray, noise: Noise, num_samples: int, num_seeds: int
) -> np.ndarray:
    luck_S = noise.seed_sd * draw.standard_normal(num_seeds)
    p_SP = np.clip(p_P + luck_S[:, None], 0, 1)
    return draw.binomial(num_samples, p_SP).mean(1) / num_samples
