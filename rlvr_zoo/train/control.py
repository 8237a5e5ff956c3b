"""Controls: what a run gains that no algorithm deserves credit for.

A coin for a reward and a reward for any answer at all, as in "Spurious Rewards", arXiv:2506.10947;
and supervised training on the problems' own solutions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlvr_zoo.api import Group, Problem, Rollout
from rlvr_zoo.errors import ProblemsError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Request, Sampling, Weights
from rlvr_zoo.rollout.prompts import Prompts


def rewarded(control: str, group: Group, seeds: Sequence[int]) -> Group:
    """The group with the rewards that the control gives, else as it is; `seeds`: a rollout's."""
    if control == "random_reward":
        return replace(group, given=tuple(float(seed >> 31 & 1) for seed in seeds))
    if control == "format_reward":
        answered = tuple(float(verdict.method != "none") for verdict in group.verdicts)
        return replace(group, given=answered)
    return group


class Solutions:
    """An engine that gives every problem's solution, with its end, as its completion.

    Its log-probs are 0: nobody sampled them.
    """

    exact = True
    follows = False

    def __init__(
        self, problems: Sequence[Problem], prompts: Prompts, model: LoadedModel, max_tokens: int
    ) -> None:
        """Raises ProblemsError for a problem without a solution, or with one that is too long."""
        eos = min(model.eos_ids)
        self._rollouts: dict[tuple[int, ...], Rollout] = {}
        for problem in problems:
            if not problem.solution:
                raise ProblemsError(
                    f"problem {problem.id!r} has no solution, which train.control=supervised learns"
                    " from; give every problem a field 'solution', or leave the control out"
                )
            encoded = model.tokenizer(problem.solution, add_special_tokens=False)["input_ids"]
            ids = (*encoded, eos)
            if len(ids) > max_tokens:
                raise ProblemsError(
                    f"problem {problem.id!r} has a solution of {len(ids)} tokens; raise"
                    f" rollout.max_completion_tokens={max_tokens}"
                )
            rollout = Rollout(
                ids=ids, logp=(0.0,) * len(ids), text=problem.solution, truncated=False
            )
            self._rollouts[prompts[problem]] = rollout

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """The solution, as often as there are seeds."""
        return [[self._rollouts[r.prompt_ids]] * len(r.seeds) for r in requests]

    def sync(self, weights: Weights, version: int) -> None:
        """Nothing to do: solutions do not change."""

    def rest(self) -> None:
        """Nothing to free."""

    def close(self) -> None:
        """Nothing to end."""
