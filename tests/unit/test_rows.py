"""Groups to tensors, and tensors to micro-batches."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.train.rows import Rows, micro_batches, rows_of

CPU = torch.device("cpu")


def group(prompt: list[int], *completions: tuple[list[int], bool]) -> Group:
    return Group(
        problem=Problem(id="p", prompt="?", answer="!"),
        prompt_ids=tuple(prompt),
        rollouts=tuple(
            Rollout(
                ids=tuple(ids),
                logp=tuple(-token / 8 for token in ids),
                text="",
                truncated=not correct,
            )
            for ids, correct in completions
        ),
        verdicts=tuple(
            Verdict(correct=correct, extracted="", method="string") for _, correct in completions
        ),
    )


def four_rows() -> Rows:
    groups = [
        group([9, 8], ([1, 2, 3], True), ([4], False)),
        group([7, 6, 5], ([2], False), ([3, 1], True)),
    ]
    return rows_of(groups, [11, 2**62, 33, 44], max_completion_tokens=16, device=CPU)


def test_rows_are_prompt_and_completion_padded_on_the_right() -> None:
    rows = four_rows()
    assert rows.ids_NL.tolist() == [
        [9, 8, 1, 2, 3],
        [9, 8, 4, 0, 0],
        [7, 6, 5, 2, 0],
        [7, 6, 5, 3, 1],
    ]
    assert rows.prompt_tokens_N.tolist() == [2, 2, 3, 3]
    assert rows.total_tokens_N.tolist() == [5, 3, 4, 5]
    assert rows.sampler_logp_NT.tolist() == [
        [-0.125, -0.25, -0.375],
        [-0.5, 0, 0],
        [-0.25, 0, 0],
        [-0.375, -0.125, 0],
    ]


def test_the_batch_says_which_row_is_what() -> None:
    batch = four_rows().batch
    assert batch.mask_NT.tolist() == [[1, 1, 1], [1, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert batch.reward_N.tolist() == [1, 0, 0, 1]
    assert batch.group_N.tolist() == [0, 0, 1, 1]
    assert batch.truncated_N.tolist() == [False, True, True, False]
    assert batch.seed_N.tolist() == [11, 2**62, 33, 44]
    assert batch.max_completion_tokens == 16
    assert (batch.mask_NT.dtype, batch.group_N.dtype) == (torch.float32, torch.int64)


def test_groups_may_have_different_sizes() -> None:
    groups = [group([1], ([2], True)), group([1], ([3], True), ([4, 5], True), ([6], True))]
    rows = rows_of(groups, [1, 2, 3, 4], max_completion_tokens=2, device=CPU)
    assert rows.batch.group_N.tolist() == [0, 1, 1, 1]
    assert rows.ids_NL.tolist() == [[1, 2, 0], [1, 3, 0], [1, 4, 5], [1, 6, 0]]


def test_taken_rows_are_cut_to_the_longest_of_them() -> None:
    rows = four_rows().take(torch.tensor([2, 1]))
    assert rows.ids_NL.tolist() == [[7, 6, 5, 2], [9, 8, 4, 0]]
    assert rows.prompt_tokens_N.tolist() == [3, 2]
    assert rows.total_tokens_N.tolist() == [4, 3]
    assert rows.sampler_logp_NT[:, 0].tolist() == [-0.25, -0.5]
    assert rows.batch.reward_N.tolist() == [0, 0]
    assert rows.batch.group_N.tolist() == [1, 0]
    assert rows.batch.seed_N.tolist() == [33, 2**62]
    assert rows.batch.truncated_N.tolist() == [True, True]
    assert rows.batch.max_completion_tokens == 16


def test_a_row_may_be_taken_twice() -> None:
    assert four_rows().take(torch.tensor([3, 3])).batch.seed_N.tolist() == [44, 44]


# --------------------------------------------------------------------------- micro-batches


@pytest.mark.parametrize(
    ("budget", "cuts"),
    [
        (1, [[2], [4], [0], [3], [1]]),  # each is longer than the budget: each alone
        (12, [[2], [4, 0], [3, 1]]),  # 10; 2 * 6; 2 * 4
        (20, [[2, 4], [0, 3, 1]]),  # 2 * 10 and 3 * 5
        (50, [[2, 4, 0, 3, 1]]),
    ],
)
def test_micro_batches_of_five_rows(budget: int, cuts: list[list[int]]) -> None:
    tokens_N = torch.tensor([5, 3, 10, 4, 6])
    got = micro_batches(torch.arange(5), tokens_N, budget)
    assert [cut.tolist() for cut in got] == cuts


def test_rows_of_one_length_keep_their_order() -> None:
    got = micro_batches(torch.tensor([4, 1, 3]), torch.full((5,), 7), 14)
    assert [cut.tolist() for cut in got] == [[4, 1], [3]]


def test_the_budget_is_each_rank_s() -> None:
    cuts = micro_batches(torch.arange(20), torch.full((20,), 9), 16, ranks=4)
    assert [len(cut) for cut in cuts] == [4, 4, 4, 4, 4], "one row a rank: two would be 18 tokens"


def test_no_rows_no_micro_batches() -> None:
    assert micro_batches(torch.tensor([], dtype=torch.int64), torch.tensor([3]), 10) == []


@settings(max_examples=100, deadline=None)
@given(data=st.data(), budget=st.integers(1, 300))
def test_micro_batches_hold_every_row_once_within_the_budget(
    data: st.DataObject, budget: int
) -> None:
    tokens = data.draw(st.lists(st.integers(1, 100), min_size=1, max_size=40))
    rows = data.draw(st.lists(st.integers(0, len(tokens) - 1), unique=True))
    cuts = micro_batches(torch.tensor(rows, dtype=torch.int64), torch.tensor(tokens), budget)
    assert sorted(row for cut in cuts for row in cut.tolist()) == sorted(rows)
    for cut in cuts:
        assert len(cut) == 1 or len(cut) * max(tokens[row] for row in cut) <= budget
