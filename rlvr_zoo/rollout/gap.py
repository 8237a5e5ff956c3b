"""Does an engine sample the policy?  The gap of their log-probs, and how far it may go.

Measured on the tiny model, in nats, 512 rollouts of 64 problems (mean over tokens / the worst
group of 8 rollouts / the worst rollout): both in fp32 2e-8 / 1e-7 / 5e-7, one or both in bf16
0.001 / 0.006 / 0.03; weights one update old 0.012 in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.errors import SyncError

if TYPE_CHECKING:
    from rlvr_zoo.rollout.base import Engine

LIMITS = {torch.float32: 0.001, torch.bfloat16: 0.05}
"""Nats, mean over tokens, by the coarser type of the two that are compared."""
PART_FACTOR = 4.0
"""What one group's (of an evaluation: one rollout's) mean may be, in limits: a group comes from one
server, which must not hide among others."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """|policy's log-prob - engine's|, nats."""

    mean: float
    """Over tokens."""
    largest: float
    """Of a token."""
    worst_part: float
    """The largest mean of one part."""
    num_tokens: int


def gap_of(
    policy_logp_NT: Float[Tensor, "n t"],
    engine_logp_NT: Float[Tensor, "n t"],
    mask_NT: Float[Tensor, "n t"],
    part_N: Int64[Tensor, "n"],
) -> Gap:
    """The gap over the mask's tokens; rows of one part carry one number."""
    gap_NT = (policy_logp_NT - engine_logp_NT).abs().where(mask_NT > 0, 0.0)
    _, place_N = part_N.unique(return_inverse=True)
    zero_P = gap_NT.new_zeros(int(place_N.max()) + 1)
    sum_P = zero_P.index_add(0, place_N, gap_NT.sum(1))
    tokens_P = zero_P.index_add(0, place_N, mask_NT.sum(1))
    return Gap(
        mean=(sum_P.sum() / tokens_P.sum()).item(),
        largest=gap_NT.max().item(),
        worst_part=(sum_P / tokens_P).max().item(),
        num_tokens=int(tokens_P.sum()),
    )


def engine_dtype(engine: Engine, config: RolloutConfig, trainer_dtype: torch.dtype) -> torch.dtype:
    """What the engine computes in: as it says, or as it was told, or as the trainer."""
    own: torch.dtype | None = getattr(engine, "dtype", None)
    told = config.vllm.dtype if config.engine == "vllm" else "auto"
    asked = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(told, trainer_dtype)
    return own or asked


def engine_settings(
    engine: Engine, config: RolloutConfig, trainer_dtype: torch.dtype
) -> dict[str, str]:
    """What decides rollouts beside the configuration: the type that the engine computes in, or
    which recording it plays back; empty for one that runs the trainer's own model."""
    if engine.exact:
        return {}
    if not engine.follows:
        return {"recording": str(getattr(engine, "recording", ""))}
    return {"dtype": name_of(engine_dtype(engine, config, trainer_dtype))}


def refuse_other_policy(
    found: Gap, engine: Engine, config: RolloutConfig, trainer_dtype: torch.dtype, what: str
) -> None:
    """Raises SyncError where the gap says that the engine samples another policy."""
    other = engine_dtype(engine, config, trainer_dtype)
    coarser = max(trainer_dtype, other, key=lambda dtype: torch.finfo(dtype).eps)
    limit = config.max_logp_gap or LIMITS.get(coarser, LIMITS[torch.bfloat16])
    if found.mean <= limit and found.worst_part <= PART_FACTOR * limit:  # False for NaN
        return
    types = f"{name_of(other)}, the trainer {name_of(trainer_dtype)}"
    advice = "" if other == trainer_dtype else ", let both compute in one type"
    raise SyncError(
        f"the engine {config.engine!r} samples another policy than the one that is trained:"
        f" log-probs of {what} differ by {found.mean:.2g} nats in the mean, {found.worst_part:.2g}"
        f" in the worst part and {found.largest:.2g} at most, and rollout.max_logp_gap is"
        f" {limit:g} ({PART_FACTOR * limit:g} for a part; the engine computes in {types}); look"
        " whether weights reach the engine, and whether another run sends its own"
        f" there{advice}, or raise the limit if its precision explains it"
    )


def name_of(dtype: torch.dtype) -> str:
    """`float32`."""
    return str(dtype).removeprefix("torch.")
