"""What is asked of the place where an engine runs its model, and what a completion must be before
anything is trained on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch

from rlvr_zoo.errors import EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Sampling, Weights


class Job(NamedTuple):
    """One completion that is wanted."""

    prompt_ids: tuple[int, ...]
    seed: int


class Completion(NamedTuple):
    """What came back for a job."""

    ids: tuple[int, ...]
    """Tokens as sampled, the end token included."""
    logp: tuple[float, ...]
    """The log-prob of each, in nats."""
    finish_reason: str | None
    """`stop` at an end token, `length` at the limit."""


class Host(Protocol):
    """Where an engine's model runs."""

    dtype: torch.dtype | None
    """What it computes in; None where it does not tell."""
    description: str
    """Its version, precision and place, for people."""

    def complete(self, jobs: Sequence[Job], sampling: Sampling) -> list[Completion]: ...
    def load(self, weights: Weights, version: int) -> None: ...
    def rest(self) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Rules:
    """What every completion of a model keeps to, whoever sampled it."""

    vocab_size: int
    eos_ids: frozenset[int]

    @classmethod
    def of(cls, model: LoadedModel) -> Rules:
        return cls(int(model.lm.config.get_text_config().vocab_size), model.eos_ids)

    def checked(self, completion: Completion, max_tokens: int, who: str) -> Completion:
        """The same completion.  Raises EngineError, which names `who` sampled it and what is wrong:
        trained on, it would be wrong in silence."""
        fault = self._fault(completion, max_tokens)
        if fault:
            raise EngineError(
                f"{who} returned a completion that cannot be trained on: {fault}; look at its log,"
                " and at its version and plug-ins"
            )
        return completion

    def _fault(self, completion: Completion, max_tokens: int) -> str:
        ids, logps, finish_reason = completion
        if not 1 <= len(ids) <= max_tokens:
            return f"{len(ids)} tokens where 1 to {max_tokens} were asked for"
        if len(logps) != len(ids):
            return f"{len(logps)} log-probs for {len(ids)} tokens"
        if set(map(type, ids)) != {int} or not 0 <= min(ids) <= max(ids) < self.vocab_size:
            return f"tokens that are not in the vocabulary of {self.vocab_size}"
        if not set(map(type, logps)) <= {float, int} or not all(map(math.isfinite, logps)):
            return "log-probs that are no finite numbers"
        if finish_reason not in ("stop", "length"):
            return f"it ended by {finish_reason!r}, neither at an end token nor at the limit"
        if not self.eos_ids.isdisjoint(ids[:-1]):
            return "it goes on after an end token"
        if len(ids) < max_tokens and ids[-1] not in self.eos_ids:
            return f"it stops after {len(ids)} of {max_tokens} tokens, at no end token"
        return ""
