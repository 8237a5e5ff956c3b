"""Is the sampler the policy?  The gap of their log-probs, its limit, and what corrects for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import EngineError
from rlvr_zoo.evaluate.proof import Probe
from rlvr_zoo.functional.mismatch import masked, truncated
from rlvr_zoo.rollout.base import Engine
from rlvr_zoo.rollout.gap import gap_of, refuse_other_policy
from rlvr_zoo.train.network import Network

Weigh = Callable[[Tensor, Tensor, float], Tensor]
WEIGHTS: dict[str, Weigh | None] = {"none": None, "truncate": truncated, "mask": masked}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True, kw_only=True)
class Mismatch:
    """What a step's log-probs say of the sampler."""

    metrics: dict[str, float]
    importance_NT: Float[Tensor, "n t"] | None
    """Weight of each token's gradient; None: all weigh 1."""


def mismatch(
    old_logp_NT: Float[Tensor, "n t"],
    sampler_logp_NT: Float[Tensor, "n t"],
    mask_NT: Float[Tensor, "n t"],
    group_N: Int64[Tensor, "n"],
    engine: Engine,
    config: RunConfig,
) -> Mismatch:
    """Compares the trainer's log-probs of a rollout batch with the engine's.

    Raises SyncError where an engine that follows the policy is too far from it, EngineError where
    another's log-probs are no numbers.
    """
    tokens = mask_NT.sum()
    found = gap_of(old_logp_NT, sampler_logp_NT, mask_NT, group_N)
    metrics = {
        "sync/logp_gap_mean": found.mean,
        "sync/logp_gap_group": found.worst_part,
        "sync/logp_gap_max": found.largest,
    }
    if engine.follows:
        dtype = DTYPES[config.train.precision]
        refuse_other_policy(found, engine, config.rollout, dtype, "a step's tokens")
    elif not sampler_logp_NT[mask_NT > 0].isfinite().all():
        raise EngineError(
            f"the engine {config.rollout.engine!r} gives log-probs that are not finite, which no"
            " token can be weighted by; mend what it plays back, or set another rollout.engine"
        )
    kind = config.train.importance
    if kind == "auto":
        kind = "none" if engine.exact else "truncate"
    weight = WEIGHTS[kind]
    if weight is None:
        return Mismatch(metrics=metrics, importance_NT=None)
    importance_NT = weight(old_logp_NT, sampler_logp_NT, config.train.importance_cap)
    importance_NT = importance_NT.where(mask_NT > 0, 1.0)
    beyond = (old_logp_NT - sampler_logp_NT).exp() > config.train.importance_cap
    metrics["sync/importance_capped"] = ((beyond & (mask_NT > 0)).sum() / tokens).item()
    return Mismatch(metrics=metrics, importance_NT=importance_NT)


@torch.no_grad()
def logp_of(policy: Network, probes: Sequence[Probe], temperature: float) -> list[list[float]]:
    """Log-probs of the probes' tokens under the policy.

    One forward pass each, on every rank: of a sharded model all run equally many.
    """
    found: list[list[float]] = []
    for probe in probes:
        ids_1L = torch.tensor([[*probe.prompt_ids, *probe.ids]], device=policy.lm.device)
        start_1 = torch.tensor([len(probe.prompt_ids)], device=ids_1L.device)
        mask_1T = torch.ones(1, len(probe.ids), device=ids_1L.device)
        found.append(policy(ids_1L, start_1, mask_1T, ["logp"], temperature)["logp"][0].tolist())
    return found
