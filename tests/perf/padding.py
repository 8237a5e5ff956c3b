"""Share of padding in micro-batches: in order of arrival, and by length under a token budget.

Not a test; a second or two.

    python tests/perf/padding.py > padding.json

Rows are drawn, not sampled from a model: the log of a completion's length is normal, one part of
its variance shared by a problem's rollouts, cut at the limit, where a share ends up.  Before:
micro-batches of a fixed number of rows, the most that fit the budget if all were of the greatest
length.  After: `rlvr_zoo.train.rows.micro_batches`.  Between them, the budget without the sorting.
Every micro-batch is as wide as its longest row.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from statistics import mean

import torch
from torch import Tensor

from rlvr_zoo.train.rows import micro_batches

KINDS = {"short": (250, 1024), "medium": (600, 3072), "long": (1500, 8192)}
"""Median and greatest length of a completion: of answers like GSM8K's, like MATH's, and of
long reasoning."""

BEFORE, AFTER = "arrival, fixed", "length, budget"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--group-size", type=int, default=8)
    parser.add_argument("--budget", type=int, default=16_384, help="train.micro_batch_tokens")
    parser.add_argument("--spread", type=float, default=0.6, help="deviation of the log of lengths")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    kinds: dict[str, dict[str, object]] = {}
    print(f"{'':<8}{'':<18}{'padding':>9}{'micro-batches':>15}{'computed':>10}", file=sys.stderr)
    for kind, (median, limit) in KINDS.items():
        sides = compare(options, median, limit)
        kinds[kind] = {"median": median, "limit": limit, **sides}
        for name, side in sides.items():
            print(
                f"{kind:<8}{name:<18}{side['padding']:9.1%}{side['micro_batches']:15.1f}"
                f"{side['computed_of_before']:10.2f}",
                file=sys.stderr,
            )
    print(json.dumps({**vars(options), "kinds": kinds}, indent=2))


def compare(options: argparse.Namespace, median: int, limit: int) -> dict[str, dict[str, float]]:
    """Every side on the same rows, a mean over seeds."""
    found: dict[str, list[tuple[int, int, int]]] = {BEFORE: [], "arrival, budget": [], AFTER: []}
    for seed in range(options.seeds):
        tokens_N, longest = draw(options, median, limit, seed)
        index = torch.arange(len(tokens_N))
        sides = (
            list(index.split(max(1, options.budget // longest))),
            in_order(tokens_N.tolist(), options.budget),
            micro_batches(index, tokens_N, options.budget),
        )
        for cuts, sums in zip(sides, found.values(), strict=True):
            sums.append((int(tokens_N.sum()), computed(cuts, tokens_N), len(cuts)))
    before = sum(tokens for _, tokens, _ in found[BEFORE])
    return {
        name: {
            "padding": 1 - sum(s[0] for s in sums) / sum(s[1] for s in sums),
            "micro_batches": mean(s[2] for s in sums),
            "computed_of_before": sum(s[1] for s in sums) / before,
        }
        for name, sums in found.items()
    }


def in_order(tokens: Sequence[int], budget: int) -> list[Tensor]:
    """As many rows a micro-batch as the budget takes, in order of arrival."""
    cuts: list[list[int]] = [[]]
    for row in range(len(tokens)):
        width = max(tokens[each] for each in [*cuts[-1], row])
        if cuts[-1] and width * (len(cuts[-1]) + 1) > budget:
            cuts.append([])
        cuts[-1].append(row)
    return [torch.tensor(cut) for cut in cuts]


def draw(options: argparse.Namespace, median: int, limit: int, seed: int) -> tuple[Tensor, int]:
    """Tokens of every row, prompt included, in order of arrival; and the most that there can be."""
    source = torch.Generator().manual_seed(seed)
    problems, group = options.problems, options.group_size

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    share = math.sqrt(0.5)  # half of the variance is the problem's
    log_PG = math.log(median) + options.spread * share * (
        normal(problems, 1) + normal(problems, group)
    )
    completion_PG = log_PG.exp().round().clamp(1, limit)
    prompt_P1 = (math.log(110) + 0.4 * normal(problems, 1)).exp().round().clamp(20, 512)
    return (prompt_P1 + completion_PG).long().flatten(), limit + int(prompt_P1.max())


def computed(cuts: Sequence[Tensor], tokens_N: Tensor) -> int:
    """Tokens that are computed, padding included."""
    return sum(len(cut) * int(tokens_N[cut].max()) for cut in cuts)


if __name__ == "__main__":
    main()
