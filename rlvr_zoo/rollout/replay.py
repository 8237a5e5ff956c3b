"""The engine `replay`: gives back what another run sampled, for tests, debugging and studies of
learning from another policy's rollouts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlvr_zoo.api import Rollout
from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import PLAIN, Compute, Request, Sampling, Weights
from rlvr_zoo.track.reader import ROLLOUTS, RolloutLine, RunReader


class ReplayEngine:
    """Recorded rollouts, found by the seed that they were sampled with."""

    exact = False
    follows = False

    def __init__(self, model: LoadedModel, config: RolloutConfig, compute: Compute = PLAIN) -> None:
        """Raises ConfigError where the run has no recorded rollouts, RunFolderError for no run."""
        if not config.replay:
            raise ConfigError("rollout.engine=replay: name a recorded run with rollout.replay=DIR")
        self._path = Path(config.replay)
        self._lines: dict[int, RolloutLine] = {
            line.seed: line for line in RunReader(self._path).rollouts()
        }
        if not self._lines:
            raise ConfigError(
                f"rollout.replay={config.replay}: holds no {ROLLOUTS}; record it with"
                " --set track.rollouts=true"
            )
        self._tokenizer = model.tokenizer

    def sync(self, weights: Weights, version: int) -> None:
        """Nothing to do: what was sampled was sampled."""

    def rest(self) -> None:
        """Nothing to free."""

    def close(self) -> None:
        """Nothing was started."""

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """For each request one rollout a seed, in order.

        Raises EngineError for a seed that was not recorded.
        """
        return [[self._rollout(seed) for seed in request.seeds] for request in requests]

    def _rollout(self, seed: int) -> Rollout:
        line = self._lines.get(seed)
        if line is None:
            raise EngineError(
                f"{self._path / ROLLOUTS}: no rollout was sampled with seed {seed}; replay it under"
                " the seed, the problems and the group size that it was recorded with, and for no"
                " more steps"
            )
        (text,) = self._tokenizer.batch_decode([list(line.ids)], skip_special_tokens=True)
        return Rollout(ids=line.ids, logp=line.logp, text=text, truncated=line.truncated)
