"""The engine `replay`: gives back what another run sampled, for tests, debugging and studies of
learning from another policy's rollouts."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlvr_zoo.api import Rollout
from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import PLAIN, Compute, Request, Sampling, Weights
from rlvr_zoo.track.reader import ROLLOUTS, RolloutLine, RunReader
from rlvr_zoo.track.record import RunRecord


class ReplayEngine:
    """Recorded rollouts, found by the seed that they were sampled with."""

    exact = False
    follows = False

    def __init__(self, model: LoadedModel, config: RolloutConfig, compute: Compute = PLAIN) -> None:
        """Raises ConfigError where the run has no recorded rollouts, RunFolderError for no run,
        EngineError for a line that this model cannot have sampled."""
        if not config.replay:
            raise ConfigError("rollout.engine=replay: name a recorded run with rollout.replay=DIR")
        self._path = Path(config.replay)
        num_words = int(model.lm.config.get_text_config().vocab_size)
        self._lines: dict[int, RolloutLine] = {}
        for number, line in enumerate(RunReader(self._path).rollouts(), start=1):
            if fault := _fault(line, num_words, config.max_completion_tokens):
                raise EngineError(
                    f"{self._path / ROLLOUTS}, line {number}: {fault}; remove the line if it can be"
                    " done without, or record anew"
                )
            self._lines[line.seed] = line
        if not self._lines:
            raise ConfigError(
                f"rollout.replay={config.replay}: holds no {ROLLOUTS}; record it with"
                " --set track.rollouts=true"
            )
        self._tokenizer = model.tokenizer
        text = json.dumps([[s, n.ids, n.logp, n.truncated] for s, n in sorted(self._lines.items())])
        self.recording = hashlib.sha256(text.encode()).hexdigest()[:16]
        """Digest of the rollouts, for records."""

    def refuse_other_run(self, record: RunRecord) -> None:
        """Raises ConfigError where the run of `record` would not sample what the recorded one did
        under the same seeds, but for its policy's training."""
        recorded = _decisive(RunReader(self._path).record())
        for (name, theirs), (_, ours) in zip(recorded, _decisive(record), strict=True):
            if theirs != ours:
                raise ConfigError(
                    f"rollout.replay={self._path}: was recorded with another {name} ({theirs}, and"
                    f" here {ours}); set it as it was there, or record anew"
                )

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


def _decisive(record: RunRecord) -> Iterator[tuple[str, object]]:
    """What a rollout follows from beside its seed, by name."""
    rollout = record.config["rollout"]
    yield "seed", record.seed
    for key in ("group_size", "temperature", "max_completion_tokens"):
        yield f"rollout.{key}", rollout[key]
    yield "model (digest of its weights)", record.model_digest[:16]
    yield "prompts (digest)", str(record.protocol_settings.get("prompts_digest"))[:16]


def _fault(line: RolloutLine, num_words: int, max_tokens: int) -> str:
    """Why a line is no rollout; empty where it is one."""
    if not 1 <= len(line.ids) <= max_tokens:
        return f"{len(line.ids)} tokens, and rollout.max_completion_tokens is {max_tokens}"
    if len(line.logp) != len(line.ids):
        return f"{len(line.logp)} log-probs of {len(line.ids)} tokens"
    if bad := [token for token in line.ids if not 0 <= token < num_words]:
        return f"token {bad[0]}, and the model has {num_words}"
    if odd := [logp for logp in line.logp if not math.isfinite(logp)]:
        return f"log-prob {odd[0]} is not finite"
    return ""
