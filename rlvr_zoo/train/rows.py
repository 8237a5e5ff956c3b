"""Groups to tensors: the rows of one step, and how they are cut into micro-batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rlvr_zoo.api import Batch, Group


@dataclass(frozen=True, kw_only=True)
class Rows:
    """N rows of tokens, prompt and completion in one, right padded.

    Under causal attention padding on the right is never looked at, so no mask is needed.
    """

    ids_NL: Int64[Tensor, "n l"]
    prompt_tokens_N: Int64[Tensor, "n"]
    sampler_logp_NT: Float[Tensor, "n t"]
    """Log-probs as the rollout engine gave them."""
    batch: Batch
    importance_NT: Float[Tensor, "n t"] | None = None
    """Weight of each token's gradient; None: all weigh 1."""

    @property
    def total_tokens_N(self) -> Int64[Tensor, "n"]:
        """Prompt and completion tokens of each row."""
        return self.prompt_tokens_N + self.batch.mask_NT.sum(1).long()

    def take(self, index: Int64[Tensor, "m"]) -> Rows:
        """Some of the rows, cut to the longest of them."""
        width = int(self.total_tokens_N[index].max())
        batch = self.batch
        return Rows(
            ids_NL=self.ids_NL[index, :width],
            prompt_tokens_N=self.prompt_tokens_N[index],
            sampler_logp_NT=self.sampler_logp_NT[index],
            importance_NT=None if self.importance_NT is None else self.importance_NT[index],
            batch=Batch(
                mask_NT=batch.mask_NT[index],
                reward_N=batch.reward_N[index],
                group_N=batch.group_N[index],
                truncated_N=batch.truncated_N[index],
                seed_N=batch.seed_N[index],
                max_completion_tokens=batch.max_completion_tokens,
            ),
        )


def rows_of(
    groups: Sequence[Group],
    seeds: Sequence[int],
    max_completion_tokens: int,
    device: torch.device,
) -> Rows:
    """All rollouts of the groups, group after group; `seeds` has one number a row."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    prompts = [group.prompt_ids for group in groups for _ in group.rollouts]
    num_tokens = max(len(rollout.ids) for rollout in rollouts)
    width = max(len(p) + len(r.ids) for p, r in zip(prompts, rollouts, strict=True))

    def padded(row: Sequence[float], to: int) -> list[float]:
        return [*row, *[0] * (to - len(row))]

    ids = [padded([*p, *r.ids], width) for p, r in zip(prompts, rollouts, strict=True)]
    logps = [padded(r.logp, num_tokens) for r in rollouts]
    masks = [padded([1.0] * len(r.ids), num_tokens) for r in rollouts]
    group_numbers = [number for number, group in enumerate(groups) for _ in group.rollouts]
    return Rows(
        ids_NL=torch.tensor(ids, dtype=torch.int64, device=device),
        prompt_tokens_N=torch.tensor([len(prompt) for prompt in prompts], device=device),
        sampler_logp_NT=torch.tensor(logps, device=device),
        batch=Batch(
            mask_NT=torch.tensor(masks, device=device),
            reward_N=torch.tensor([r for group in groups for r in group.rewards], device=device),
            group_N=torch.tensor(group_numbers, device=device),
            truncated_N=torch.tensor([r.truncated for r in rollouts], device=device),
            seed_N=torch.tensor(seeds, device=device),
            max_completion_tokens=max_completion_tokens,
        ),
    )


def micro_batches(
    index: Int64[Tensor, "m"], tokens_N: Int64[Tensor, "n"], budget: int, ranks: int = 1
) -> list[Int64[Tensor, "k"]]:
    """The rows of `index` by length, cut so that rows x longest stays within the token budget of
    each of the ranks that share them.

    A row longer than the budget goes alone.
    """
    if len(index) == 0:
        return []
    order = index[tokens_N[index].argsort(descending=True, stable=True)]
    cuts: list[Tensor] = []
    start = 0
    while start < len(order):
        rows = ranks * max(1, budget // int(tokens_N[order[start]]))
        cuts.append(order[start : start + rows])
        start += rows
    return cuts
