"""How small a difference between two algorithms a comparison can see.

Two algorithms are trained with S seeds each and measured on the same P problems, k samples of each
problem.  The problems' difficulty is the same on both sides and cancels.  What is left in a run's
score is the luck of its training seed, which no number of samples averages away, and the luck of
its samples, sum_i p_i (1 - p_i) / (k P^2):

    sd(k)^2    = seed_sd^2 + mean_i p_i (1 - p_i) / (k P)
    error^2    = 2 / S * sd(k)^2 + problem_sd^2 / P
    difference = t(power) * error,    t from Student's t with 2 (S - 1) degrees

Where two algorithms find the same problems differently hard (problem_sd), the choice of problems
is luck, too, with P - 1 degrees; Satterthwaite's approximation joins the two.  At problem_sd = 0
the answer is about these problems only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from rlvr_zoo.errors import ConfigError


@dataclass(frozen=True)
class Noise:
    """What makes a suite's score differ between runs that differ by their seed only."""

    seed_sd: float
    """Standard deviation by the training seed, 0 to 1: what many samples leave."""
    pass_variance: float
    """Mean over problems of p (1 - p), p the chance that one sample is right."""
    problem_sd: float = 0.0
    """Standard deviation over problems of the true difference between two algorithms."""

    def sd(self, num_problems: int, num_samples: int) -> float:
        """Standard deviation of avg@k between runs."""
        return math.sqrt(self.seed_sd**2 + self.pass_variance / (num_samples * num_problems))


def noise_of(single_sample_sd: float, seed_sd: float, num_problems: int) -> Noise:
    """From what is measured: the standard deviation of avg@1 over seeds, and the seed's part.

    Raises ConfigError where the part is larger than the whole.
    """
    if not 0 <= seed_sd <= single_sample_sd:
        raise ConfigError(
            f"seed_sd={seed_sd}: set it from 0 to {single_sample_sd}, what one sample varies by"
        )
    return Noise(seed_sd, (single_sample_sd**2 - seed_sd**2) * num_problems)


MEASURED = {
    "aime24": noise_of(0.045, 0.010, 30),
    "aime25": noise_of(0.045, 0.010, 30),
    "amc23": noise_of(0.038, 0.010, 40),
    "math500": noise_of(0.0075, 0.006, 500),
}
"""Of published runs, single samples: AIME 4.5 points, AMC23 3.8, MATH-500 0.6 to 0.9.  The seed's
part is not published; 1.0 point is what avg@32 with 5 seeds detecting 2 to 3.5 points implies (0.6
to 1.5), and at MATH-500 most of the whole is taken, which is the careful side."""
TYPICAL = Noise(seed_sd=0.010, pass_variance=0.06)
"""For a suite that was not measured: as AIME and AMC23, whose pass variances are 0.06."""


def detectable_difference(
    noise: Noise,
    num_problems: int,
    num_samples: int,
    num_seeds: int,
    *,
    alpha: float = 0.05,
    power: float = 0.8,
) -> float:
    """The smallest true difference of accuracies, 0 to 1, that is found with that power.

    A two-sided t-test at level `alpha` on the S scores of each side.  NaN for one
    seed: there is nothing to tell luck from.  Raises ConfigError for a number below 1, or a level
    or power that is not between 0 and 1.
    """
    if min(num_problems, num_samples, num_seeds) < 1:
        raise ConfigError("problems, samples and seeds: set 1 or more")
    if not (0 < alpha < 1 and alpha < power < 1):
        raise ConfigError(f"alpha={alpha}, power={power}: set 0 < alpha < power < 1")
    if num_seeds == 1:
        return math.nan
    runs = 2 / num_seeds * noise.sd(num_problems, num_samples) ** 2
    problems = noise.problem_sd**2 / num_problems
    degrees = 2.0 * (num_seeds - 1)
    if problems:
        parts = runs**2 / degrees + problems**2 / max(1, num_problems - 1)
        degrees = (runs + problems) ** 2 / parts
    return detectable_at(runs + problems, degrees, alpha, power)


def detectable_at(variance: float, degrees: float, alpha: float, power: float = 0.8) -> float:
    """The smallest true difference that a two-sided t-test finds with that power, for a squared
    standard error that is known with so many degrees of freedom."""
    return _shift(degrees, alpha, power) * math.sqrt(variance)


def _shift(degrees: float, alpha: float, power: float) -> float:
    """The noncentrality at which the t-test has the power, in standard errors."""
    from scipy.optimize import brentq
    from scipy.stats import nct, t

    critical = float(t.ppf(1 - alpha / 2, degrees))
    # what lies beyond the other end is left out, as it is next to nothing
    guess = critical + float(t.ppf(power, degrees))
    return float(brentq(lambda at: nct.sf(critical, degrees, at) - power, 0.0, 2 * guess))
