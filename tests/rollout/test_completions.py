"""What a completion must be before anything is trained on it."""

import math
from typing import Any

import pytest

from rlvr_zoo.errors import EngineError
from rlvr_zoo.rollout.completions import Completion, Rules

RULES = Rules(vocab_size=10, eos_ids=frozenset({1, 2}))
GOOD = [
    Completion((5, 6, 7), (-0.1, -0.2, -0.3), "length"),
    Completion((5, 6, 1), (-0.1, -0.2, 0), "stop"),
    Completion((2,), (-0.1,), "stop"),
]


def bad(ids: Any, logp: Any, reason: str | None = "length") -> Completion:
    return Completion(tuple(ids), tuple(logp), reason)


@pytest.mark.parametrize("completion", GOOD)
def test_a_good_one_passes(completion: Completion) -> None:
    assert RULES.checked(completion, 3, "vLLM") is completion


@pytest.mark.parametrize(
    ("completion", "fault"),
    [
        (bad([], []), "0 tokens where 1 to 3"),
        (bad([5] * 4, [-0.1] * 4), "4 tokens where 1 to 3"),
        (bad([5, 6, 7], [-0.1, -0.2]), "2 log-probs for 3 tokens"),
        (bad([5, 6, 10], [-0.1] * 3), "vocabulary of 10"),
        (bad([5, 6, -1], [-0.1] * 3), "vocabulary of 10"),
        (bad([5, 6, "7"], [-0.1] * 3), "vocabulary of 10"),
        (bad([5, 6, True], [-0.1] * 3), "vocabulary of 10"),
        (bad([5, 6, 7], [-0.1, -0.2, math.nan]), "no finite numbers"),
        (bad([5, 6, 7], [-0.1, -0.2, -math.inf]), "no finite numbers"),
        (bad([5, 6, 7], [-0.1, -0.2, None]), "no finite numbers"),
        (bad([5, 6, 7], [-0.1] * 3, "abort"), "ended by 'abort'"),
        (bad([5, 6, 7], [-0.1] * 3, None), "ended by None"),
        (bad([5, 2, 7], [-0.1] * 3), "goes on after an end token"),
        (bad([5, 6], [-0.1] * 2, "stop"), "stops after 2 of 3 tokens, at no end token"),
    ],
)
def test_a_bad_one_is_named(completion: Completion, fault: str) -> None:
    with pytest.raises(EngineError, match=f"vLLM server X returned .*{fault}"):
        RULES.checked(completion, 3, "vLLM server X")
