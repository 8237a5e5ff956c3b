"""The generated task: what is asked, what is right, and what can never leak."""

from collections.abc import Callable

import pytest

from rlvr_zoo.api import Problem
from rlvr_zoo.errors import ProblemsError
from rlvr_zoo.problems.addition import (
    NUM_RESERVED,
    addition,
    addition4,
    careless,
    warmup_problems,
)

Source = Callable[[int, int, bool], tuple[tuple[Problem, ...], tuple[Problem, ...]]]


@pytest.mark.parametrize(
    ("prompt", "right", "wrong"),
    [
        ("23+58=", r"180=\boxed{081}", r"170=\boxed{071}"),
        ("99+99=", r"891=\boxed{198}", r"880=\boxed{088}"),
        ("00+07=", r"700=\boxed{007}", r"700=\boxed{007}"),
        ("60+70=", r"031=\boxed{130}", r"030=\boxed{030}"),
    ],
)
def test_demonstrations_are_the_ones_worked_out_by_hand(
    prompt: str, right: str, wrong: str
) -> None:
    assert careless(prompt, ()) == right
    assert careless(prompt, (0, 1)) == wrong


def test_forgetting_carries_is_harmless_for_exactly_the_pairs_without_a_carry() -> None:
    train, held_out = addition(256, 0)
    harmless = sum(p.solution == careless(p.prompt, (0, 1)) for p in train + held_out)
    assert harmless == 55 * 55  # pairs of digits that sum to 9 or less: 55, in ones and in tens


def test_every_pair_is_there_once_and_every_answer_is_its_sum() -> None:
    train, held_out = addition(256, 0)
    assert len(train) == 10_000 - 256 and len(held_out) == 256
    assert {p.prompt for p in train + held_out} == {
        f"{a:02}+{b:02}=" for a in range(100) for b in range(100)
    }
    assert len({p.id for p in train + held_out}) == 10_000
    by_prompt = {p.prompt: p.answer for p in train + held_out}
    assert by_prompt["23+58="] == "81" and by_prompt["00+00="] == "0"
    assert all(int(answer) == eval(prompt_sum(prompt)) for prompt, answer in by_prompt.items())


def prompt_sum(prompt: str) -> str:
    left, right = prompt.rstrip("=").split("+")
    return f"{int(left)}+{int(right)}"


@pytest.mark.parametrize("seed", [0, 1, 7])
def test_a_pair_and_its_swap_are_on_one_side(seed: int) -> None:
    train, held_out = addition(301, seed)
    assert len(held_out) == 301
    swapped = {f"{p.prompt[3:5]}+{p.prompt[:2]}=" for p in held_out}
    assert swapped == {p.prompt for p in held_out}
    assert not swapped & {p.prompt for p in train}


def test_the_seed_chooses_what_is_held_out() -> None:
    assert addition(64, 3) == addition(64, 3)
    one, other = addition(64, 3)[1], addition(64, 4)[1]
    assert len(set(one) & set(other)) < 20


@pytest.mark.parametrize("seed", [0, 1, 99])
def test_no_split_holds_out_what_the_warm_up_may_see(seed: int) -> None:
    _, held_out = addition(NUM_RESERVED, seed)
    assert len(held_out) == NUM_RESERVED
    assert not set(held_out) & set(warmup_problems())
    assert len(warmup_problems()) == 10_000 - NUM_RESERVED


def test_more_than_the_reserve_cannot_be_held_out() -> None:
    with pytest.raises(ProblemsError, match=r"num_held_out=2001: .* to 2000 or less"):
        addition(2001, 0)


def test_one_carry_can_be_forgotten_alone() -> None:
    assert careless("0155+0855=", ()) == r"01010=\boxed{01010}"
    assert careless("0155+0855=", (0,)) == r"00010=\boxed{01000}"
    assert careless("0155+0855=", (2,)) == r"01000=\boxed{00010}"


def test_four_digits_are_drawn_once_and_split_like_two() -> None:
    train, held_out = addition4(256, 0)
    assert len({p.id for p in train + held_out}) == 10_000 and len(held_out) == 256
    assert addition4(256, 0) == (train, held_out)
    assert all(len(p.prompt) == 10 for p in train)
    assert not set(held_out) & set(warmup_problems(4))


@pytest.mark.parametrize("source", [addition, addition4])
def test_validation_problems_are_others_and_leave_the_test_alone(source: Source) -> None:
    _, test = source(256, 0, False)
    train, validation = source(256, 0, True)
    assert len(validation) == 256 and len(train) == 10_000 - 512
    assert not set(test) & set(train) and not set(test) & set(validation)
    assert not set(validation) & set(warmup_problems(len(train[0].prompt) // 2 - 1))


def test_validation_needs_room_beside_the_test() -> None:
    with pytest.raises(ProblemsError, match=r"num_held_out=1001: .* to 1000 or less"):
        addition(1001, 0, True)
