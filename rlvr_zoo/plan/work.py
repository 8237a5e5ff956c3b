"""What one step of a run does, in rows and tokens: the longest that the settings allow."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from rlvr_zoo import registry
from rlvr_zoo.api import Critic, Output, Spec
from rlvr_zoo.checks import build
from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.shape import ModelShape

UNSTATED_PROMPT_TOKENS = 512
"""Prompt tokens that are planned for where `rollout.max_prompt_tokens` sets no limit."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Rows are completions with their prompts; all are as long as they may be."""

    prompt_tokens: int
    completion_tokens: int
    rows: int
    """In a step's batch, over all ranks."""

    @property
    def row_tokens(self) -> int:
        """Prompt and completion."""
        return self.prompt_tokens + self.completion_tokens


def work_of(config: RunConfig, shape: ModelShape) -> Work:
    """What a step of the run does at most."""
    rollout = config.rollout
    context = config.model.max_context_tokens or shape.max_positions
    room = context - rollout.max_completion_tokens if context else UNSTATED_PROMPT_TOKENS
    prompt = rollout.max_prompt_tokens or min(max(room, 1), UNSTATED_PROMPT_TOKENS)
    return Work(
        prompt_tokens=prompt,
        completion_tokens=rollout.max_completion_tokens,
        rows=rollout.rollouts_per_step,
    )


@dataclass(frozen=True, kw_only=True)
class Share:
    """One rank's part of an optimizer step."""

    micro_batches: int
    rows: int
    """In a micro-batch."""
    tokens: int
    """Positions that models read in a micro-batch, padding included."""
    completion_tokens: int
    """In a micro-batch."""


def share_of(config: RunConfig, work: Work, world_size: int) -> Share:
    """The largest micro-batch of a rank, and how many there are."""
    rows = math.ceil(work.rows / config.train.minibatches / world_size)
    fitting = max(1, config.train.micro_batch_tokens // work.row_tokens)
    taken = min(rows, fitting)
    # a row's last token predicts nothing: only for its features is it read
    unread = not any("hidden" in outputs for outputs in spec_of(config).loss.values())
    return Share(
        micro_batches=math.ceil(rows / taken),
        rows=taken,
        tokens=taken * (work.row_tokens - unread),
        completion_tokens=taken * work.completion_tokens,
    )


def spec_of(config: RunConfig) -> Spec:
    """What the run's algorithm asks for, for its settings."""
    chosen = registry.algorithm(config.algo)
    settings: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    return chosen.cls.spec(settings)


def resamples(config: RunConfig) -> bool:
    """Whether the algorithm asks for other groups in place of those without signal."""
    chosen = registry.algorithm(config.algo)
    settings: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    size = config.rollout.group_size
    algorithm = chosen.cls(settings)
    return not (algorithm.keep_group([1.0] * size) and algorithm.keep_group([0.0] * size))


def trained_models(spec: Spec) -> dict[str, frozenset[Output]]:
    """The models that have gradients, and what the loss asks of each."""
    critics = {name for name, kind in spec.companions.items() if isinstance(kind, Critic)}
    nothing: frozenset[Output] = frozenset()
    return {name: spec.loss.get(name, nothing) for name in ("policy", *sorted(critics))}
