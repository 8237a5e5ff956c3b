r"""Addition with a scratchpad of fixed width: the embedded tasks.

The prompt `23+58=` wants `180=\boxed{081}`: the sum's digits from the lowest up, which a small
model can write one carry at a time, then the answer.  With two digits all 10,000 pairs of operands
exist; with more, 10,000 pairs are drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache

from rlvr_zoo.api import Problem
from rlvr_zoo.errors import ProblemsError
from rlvr_zoo.problems.split import part

NUM_RESERVED = 2000
"""Problems that the tiny models' warm-up never sees; held-out problems are chosen among them."""

_NUM_PROBLEMS = 10_000
_RESERVE_SEED = 20_250_101
_NUMBERS = {2: "two", 4: "four"}


def _operands(prompt: str) -> tuple[str, str]:
    left, right = prompt.removesuffix("=").split("+")
    return left, right


def _unordered(problem: Problem) -> str:
    """The key that a + b and b + a share, so that no answer leaks by swapping them."""
    return "+".join(sorted(_operands(problem.prompt)))


def _problem(left: int, right: int, digits: int) -> Problem:
    text = f"{left:0{digits}}+{right:0{digits}}"
    prompt = f"{text}="
    return Problem(
        id=f"addition/{text}",
        prompt=prompt,
        answer=str(left + right),
        solution=careless(prompt, ()),
        source=f"generated: {_NUMBERS[digits]}-digit addition",
    )


def _pairs(digits: int) -> list[tuple[int, int]]:
    size = 10**digits
    if size * size <= _NUM_PROBLEMS:
        return [(left, right) for left in range(size) for right in range(size)]
    draw = random.Random(_RESERVE_SEED)
    pairs: dict[tuple[int, int], None] = {}  # a set that keeps its order
    while len(pairs) < _NUM_PROBLEMS:
        pairs[draw.randrange(size), draw.randrange(size)] = None
    return list(pairs)


@cache
def _pools(digits: int) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """(open to the warm-up, reserved): together all 10,000 problems."""
    everything = [_problem(left, right, digits) for left, right in _pairs(digits)]
    return part(everything, NUM_RESERVED, _RESERVE_SEED, _unordered)


def warmup_problems(digits: int = 2) -> tuple[Problem, ...]:
    """The 8,000 problems that are training problems whatever the split: a warm-up may use them."""
    return _pools(digits)[0]


def addition(
    num_held_out: int, split_seed: int, validation: bool = False, digits: int = 2
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """(training, held-out) problems: 10,000 together; a + b and b + a are on the same side.

    With `validation` as many others are held out, and those of the test are on neither side.
    Raises ProblemsError where more problems are to be held out than are reserved.
    """
    room = NUM_RESERVED // 2 if validation else NUM_RESERVED
    if num_held_out > room:
        raise ProblemsError(
            f"num_held_out={num_held_out}: the addition problems reserve {room} for "
            f"holding out; set problems.num_held_out to {room} or less"
        )
    unreserved, reserved = _pools(digits)
    train, held_out = part(reserved, num_held_out, split_seed, _unordered)
    if validation:
        train, held_out = part(train, num_held_out, split_seed, _unordered)
    return unreserved + train, held_out


def addition4(
    num_held_out: int, split_seed: int, validation: bool = False
) -> tuple[tuple[Problem, ...], tuple[Problem, ...]]:
    """`addition` of numbers with four digits."""
    return addition(num_held_out, split_seed, validation, digits=4)


def careless(prompt: str, forgotten: Sequence[int]) -> str:
    r"""The completion of one who forgets the carries out of these places, 0 the lowest.

    `180=\boxed{081}` for `23+58=`, which is right, and `170=\boxed{071}` without the carries.
    """
    left, right = _operands(prompt)
    carry, written = 0, ""
    for place, (a, b) in enumerate(zip(reversed(left), reversed(right), strict=True)):
        total = int(a) + int(b) + carry
        written += str(total % 10)
        carry = 0 if place in forgotten else total // 10
    written += str(carry)
    return written + rf"=\boxed{{{written[::-1]}}}"
