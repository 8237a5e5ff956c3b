"""Held-out accuracy during training, with the rollout engine, prompts and verifier of training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from rlvr_zoo.api import Problem
from rlvr_zoo.config import RunConfig
from rlvr_zoo.evaluate.base import Ranks
from rlvr_zoo.evaluate.intervals import estimates, rerun_sd
from rlvr_zoo.evaluate.proof import Prove
from rlvr_zoo.rollout.base import Engine, Request, Sampling, sample_seed
from rlvr_zoo.rollout.groups import judged_groups
from rlvr_zoo.rollout.prompts import Prompts
from rlvr_zoo.track.record import EvaluationRecord
from rlvr_zoo.verify.base import Verifier


class HeldOut:
    """Measures accuracy on a fixed set of problems, with the same seeds every time."""

    name = "held-out"

    def __init__(
        self,
        problems: Sequence[Problem],
        prompts: Prompts,
        engine: Engine,
        verifier: Verifier,
        config: RunConfig,
        ranks: Ranks,
    ) -> None:
        self._problems, self.engine, self._verifier = problems, engine, verifier
        self._ranks = ranks
        evaluate = config.evaluate
        self.every = evaluate.every
        self._sampling = Sampling(
            temperature=evaluate.temperature,
            top_p=evaluate.top_p,
            max_completion_tokens=evaluate.max_completion_tokens
            or config.rollout.max_completion_tokens,
        )
        self._requests = [
            Request(
                prompts[problem],
                tuple(
                    sample_seed(config.seed, "evaluate", 0, problem.id, n)
                    for n in range(evaluate.num_samples)
                ),
            )
            for problem in problems
        ]

    def measure(self, step: int, prove: Prove) -> EvaluationRecord:
        """Accuracy of the policy after `step` steps: mean over problems of their samples' mean.

        Raises SyncError where another policy was measured.
        """
        proof = prove(self.engine, self._sampling)
        requests = self._ranks.shard(self._requests)
        proof.check(requests)
        mine = judged_groups(
            self._ranks.shard(self._problems), requests, self.engine, self._sampling, self._verifier
        )
        proof.check(requests, mine.groups)
        outcomes = self._ranks.unshard(
            [tuple(int(verdict.correct) for verdict in group.verdicts) for group in mine.groups]
        )
        (accuracy,) = estimates(np.array(outcomes, dtype=np.float64).mean(axis=1)[None])
        return EvaluationRecord(
            step=step,
            name=self.name,
            accuracy=accuracy.value,
            low=accuracy.low,
            high=accuracy.high,
            num_problems=len(outcomes),
            num_samples=len(outcomes[0]),
            rerun_sd=rerun_sd(outcomes),
            logp_gap=proof.gap,
            outcomes={p.id: o for p, o in zip(self._problems, outcomes, strict=True)},
        )
