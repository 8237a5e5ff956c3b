"""Controls: what they reward, what they learn from, and what they refuse."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from rlvr_zoo.api import Problem, Verdict
from rlvr_zoo.errors import ProblemsError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.problems.addition import addition
from rlvr_zoo.rollout.base import Request, Sampling, sample_seed
from rlvr_zoo.rollout.prompts import Prompts
from rlvr_zoo.train.control import Solutions, rewarded

from .conftest import configured, group

PLAIN = Sampling(temperature=1.0, max_completion_tokens=12)


def seeds(number: int) -> list[int]:
    return [sample_seed(0, "train", 3, "p", n) for n in range(number)]


def test_a_coin_pays_right_and_wrong_alike_and_always_the_same() -> None:
    right = group(0, [1.0] * 400, [2] * 400)
    wrong = group(0, [0.0] * 400, [2] * 400)
    paid = rewarded("random_reward", right, seeds(400)).rewards
    assert paid == rewarded("random_reward", wrong, seeds(400)).rewards
    assert set(paid) == {0.0, 1.0} and 150 < sum(paid) < 250


def test_any_answer_is_paid_for() -> None:
    verdicts = tuple(Verdict(False, "x", method) for method in ("none", "string", "symbolic"))
    answered = replace(group(0, [0.0] * 3, [2] * 3), verdicts=verdicts)
    assert rewarded("format_reward", answered, seeds(3)).rewards == (0.0, 1.0, 1.0)


def test_without_a_control_verdicts_pay() -> None:
    plain = group(0, [1.0, 0.0], [2, 3])
    assert rewarded("none", plain, seeds(2)) is plain
    assert plain.rewards == (1.0, 0.0)


def solutions(model: LoadedModel, problems: Sequence[Problem], max_tokens: int = 12) -> Any:
    config = configured("raft", "problems.num_held_out=4")
    prompts = Prompts(model, config)
    return Solutions(prompts.fitting(problems), prompts, model, max_tokens), prompts


def test_solutions_are_given_with_their_end_as_often_as_asked(model: LoadedModel) -> None:
    problem = addition(1, 0)[0][0]
    engine, prompts = solutions(model, [problem])
    (given,) = engine.generate([Request(prompts[problem], (1, 2, 3))], PLAIN)
    assert len(given) == 3 and given[0].text == problem.solution
    assert given[0].ids[-1] in model.eos_ids and not given[0].truncated
    decoded = cast(Any, model.tokenizer).decode(given[0].ids[:-1])
    assert decoded == problem.solution


def test_a_problem_without_a_solution_is_named(model: LoadedModel) -> None:
    with pytest.raises(ProblemsError, match="'lost' has no solution"):
        solutions(model, [Problem(id="lost", prompt="1+1=", answer="2")])


def test_a_solution_that_is_too_long_is_named(model: LoadedModel) -> None:
    with pytest.raises(ProblemsError, match=r"solution of 10 tokens; raise rollout\.max_compl"):
        solutions(model, [addition(1, 0)[0][0]], max_tokens=9)
