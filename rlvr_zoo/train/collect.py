"""One step's rollout batch: problems in the run's order, until the step has its groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rlvr_zoo.api import Algorithm, Group, Problem
from rlvr_zoo.config import RunConfig
from rlvr_zoo.problems import ProblemOrder
from rlvr_zoo.rollout.base import Engine, Request, Sampling, sample_seed
from rlvr_zoo.rollout.groups import judged_groups
from rlvr_zoo.rollout.prompts import Prompts
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.control import rewarded
from rlvr_zoo.verify.base import Verifier


@dataclass(frozen=True, kw_only=True)
class Collected:
    """A step's groups, and what it took to get them."""

    groups: list[Group]
    seeds: list[int]
    """One a row, in the order of groups and their rollouts."""
    sampled: list[tuple[Group, tuple[int, ...]]]
    """Every group that was sampled, refused ones too, with its rollouts' seeds."""
    position: int
    """Problems drawn since the run's start."""
    num_refused: int
    """Groups that the algorithm did not want."""
    generated_tokens: int
    """Completion tokens sampled, refused groups included."""
    rollout_s: float
    verify_s: float


class Collector:
    """Draws problems in the run's order until a step has its groups."""

    def __init__(
        self,
        problems: Sequence[Problem],
        prompts: Prompts,
        engine: Engine,
        verifier: Verifier,
        algorithm: Algorithm[object],
        config: RunConfig,
        backend: Backend,
    ) -> None:
        self._problems, self._prompts, self._engine = problems, prompts, engine
        self._verifier, self._algorithm, self._backend = verifier, algorithm, backend
        self._config = config
        self._order = ProblemOrder(len(problems), config.seed)
        self._sampling = Sampling(
            temperature=config.rollout.temperature,
            max_completion_tokens=config.rollout.max_completion_tokens,
        )
        self._rollout_s = self._verify_s = 0.0

    def collect(self, step: int, position: int) -> Collected:
        """The groups of a step; at most `train.max_resamples` rounds replace refused ones, after
        which the step goes on with the groups it has, or with refused ones if it has none."""
        wanted = self._config.rollout.rollouts_per_step // self._config.rollout.group_size
        kept: list[tuple[Group, tuple[int, ...]]] = []
        refused: list[tuple[Group, tuple[int, ...]]] = []
        drawn: Counter[str] = Counter()
        self._rollout_s = self._verify_s = 0.0
        for _ in range(1 + self._config.train.max_resamples):
            missing = wanted - len(kept)
            if missing == 0:
                break
            numbers = self._order.take(position, missing)
            position += missing
            for group, seeds in self._round(step, [self._problems[n] for n in numbers], drawn):
                good = self._algorithm.keep_group(group.rewards)
                (kept if good else refused).append((group, seeds))
        used = kept or refused[:wanted]
        return Collected(
            groups=[group for group, _ in used],
            seeds=[seed for _, seeds in used for seed in seeds],
            sampled=kept + refused,
            position=position,
            num_refused=len(refused),
            generated_tokens=self._generated(kept + refused),
            rollout_s=self._rollout_s,
            verify_s=self._verify_s,
        )

    def _round(
        self, step: int, problems: Sequence[Problem], drawn: Counter[str]
    ) -> list[tuple[Group, tuple[int, ...]]]:
        """Samples and judges one group a problem, each rank its share of them."""
        size = self._config.rollout.group_size
        requests: list[Request] = []
        for problem in problems:
            first = drawn[problem.id] * size  # a problem drawn twice in a step gets other samples
            drawn[problem.id] += 1
            seeds = tuple(
                sample_seed(self._config.seed, "train", step, problem.id, first + n)
                for n in range(size)
            )
            requests.append(Request(self._prompts[problem], seeds))
        mine = judged_groups(
            self._backend.shard(problems),
            self._backend.shard(requests),
            self._engine,
            self._sampling,
            self._verifier,
        )
        self._rollout_s += mine.rollout_s
        self._verify_s += mine.verify_s
        groups = self._backend.unshard(mine.groups)
        control = self._config.train.control
        return [
            (rewarded(control, group, request.seeds), request.seeds)
            for group, request in zip(groups, requests, strict=True)
        ]

    def _generated(self, sampled: Sequence[tuple[Group, tuple[int, ...]]]) -> int:
        if self._config.train.control == "supervised":  # solutions are written by others
            return 0
        return sum(len(rollout.ids) for group, _ in sampled for rollout in group.rollouts)
