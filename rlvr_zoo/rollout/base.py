"""What the trainer and the evaluation ask of a rollout engine, and the seed of every sample."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch

from rlvr_zoo.api import Rollout

if TYPE_CHECKING:
    from torch import Tensor

Weights = Callable[[], "Iterable[tuple[str, Tensor]]"]
"""The policy's weights, named as in the Hugging Face model's state_dict, tied ones once.  Called on
every rank: a sharded model is gathered as they are gone through."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What an engine may know of how the trainer computes."""

    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    """The context of a forward pass of its fp32 weights."""
    dtype: torch.dtype = torch.float32
    """What a forward pass computes in."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    is_sharded: bool = False
    """True where each rank holds a part of the policy only."""


PLAIN = Compute()
"""One process, fp32, on the CPU."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How completions are drawn."""

    temperature: float
    """0 is greedy."""
    top_p: float = 1.0
    max_completion_tokens: int


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, and a seed for each completion that is wanted of it."""

    prompt_ids: tuple[int, ...]
    seeds: tuple[int, ...]


class Engine(Protocol):
    """Samples completions of the policy."""

    exact: bool
    """True where sampling log-probs equal the trainer's but for rounding, so that they may serve
    as the old log-probs."""
    follows: bool
    """True where it samples the policy that it was last synced with, so that log-probs that are
    far from the trainer's prove a fault; False where rollouts are another policy's."""

    # It may say more of itself: `batch_tokens: int`, cache positions that it takes at once, where
    # it does not manage its cache by itself; `dtype: torch.dtype | None`, what it computes in;
    # `description: str`, what it is and its version, then, behind a comma, where it runs;
    # `recording: str`, a digest of what it plays back.

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """For each request one rollout a seed, in order; equal seeds give equal rollouts."""

    def sync(self, weights: Weights, version: int) -> None:
        """Makes the engine sample from these weights, ready to generate; `version` counts optimizer
        steps.  Called before the first `generate` and after every update; does nothing where the
        engine runs the trainer's own model."""

    def rest(self) -> None:
        """Frees what an update may need; the next call is `sync`."""

    def close(self) -> None:
        """Ends what it started; may be called twice."""


def batch_tokens(engine: Engine) -> int | None:
    """Cache positions that the engine takes at once; None: it manages its cache by itself."""
    found: int | None = getattr(engine, "batch_tokens", None)
    return found


def sample_seed(run_seed: int, purpose: str, step: int, problem_id: str, sample: int) -> int:
    """A 63-bit seed of its own for every (run, purpose, step, problem, sample).

    It depends on nothing else: two algorithms, or two splits of a batch, draw the same numbers.
    """
    key = f"{run_seed}\x1f{purpose}\x1f{step}\x1f{problem_id}\x1f{sample}"
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest()) >> 1
