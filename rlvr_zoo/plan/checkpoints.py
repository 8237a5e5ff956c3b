"""The disk that checkpoints take: bytes of one, and how many there are at once."""

from __future__ import annotations

from dataclasses import dataclass

from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.memory import MOMENT_BYTES
from rlvr_zoo.plan.parameters import FP32

SAVED_MOMENT_BYTES = MOMENT_BYTES | {"offload": MOMENT_BYTES["fp32"]}
"""A parameter's two moments in a file, and in the host's memory."""


@dataclass(frozen=True)
class Contents:
    """Parameters in a checkpoint, whose tensors are whole however a run shards them."""

    policy: int
    """Of the language model, adapters merged in: the folder `policy`."""
    beside: int
    """In files of their own: companions, the head, what `policy` does not say of the policy."""
    trained: int
    """With moments, which are `optimizer.pt`."""

    def parts(self, moments: str) -> dict[str, float]:
        """Bytes by part; tokenizer and tensors' names are left out, some MB."""
        return {
            "policy": float(FP32 * self.policy),
            "beside": float(FP32 * self.beside),
            "optimizer": SAVED_MOMENT_BYTES[moments] * self.trained,
        }


def most_at_once(config: RunConfig, step: int = 0, there: int = 0) -> int:
    """Checkpoints on the disk at once, at most, from `step` on, when `there` are some already.

    An old one goes when the next one is whole, so that there are `checkpoint.keep` and one more.
    """
    saves = num_saves(config, step)
    return there if not saves else max(there + 1, min(config.checkpoint.keep + 1, there + saves))


def num_saves(config: RunConfig, step: int = 0) -> int:
    """After the step, when no signal asks for more."""
    last, every = config.train.max_steps, config.checkpoint.every
    if step >= last:
        return 0
    return 1 if not every else last // every - step // every + (last % every > 0)
