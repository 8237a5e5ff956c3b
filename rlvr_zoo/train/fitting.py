"""Whether a run fits its GPUs, and whether its models must be sharded for that: by the plan, on the
memory that is really there, before weights are loaded."""

from __future__ import annotations

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError, ModelError
from rlvr_zoo.plan.fit import refuse_if_too_big, settled, with_setting
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.collectives import CAN_RESTART


def fit(config: RunConfig, backend: Backend) -> list[str]:
    """Decides what `train.parallel=auto` is, on all ranks alike; returns lines that say so.

    Nothing to do without GPUs, or for models of a kind that the plan does not know.  Raises
    ConfigError for a run that will not fit.
    """
    by_deepspeed = backend.parallel == "deepspeed" and backend.world_size > 1
    if by_deepspeed and config.optimizer.moments == "8bit":
        raise ConfigError(
            "optimizer.moments=8bit: DeepSpeed's parts are no whole blocks of 256; set"
            " train.parallel=fsdp, or optimizer.moments=fp32"
        )
    memory = backend.gpu_memory_bytes()
    if not memory:
        return []
    shape = backend.broadcast(_shape(config))  # all decide by what the main rank knows
    if shape is None:
        return []
    parallel = "fsdp" if by_deepspeed else backend.parallel  # to the plan they are one
    asked = with_setting(config, "train.parallel", parallel)
    decided, note = settled(asked, shape, backend.world_size, memory)
    halves = decided.train.parallel != "fsdp" or (CAN_RESTART and not by_deepspeed)
    refuse_if_too_big(decided, shape, backend.world_size, memory, halves=halves)
    if backend.parallel == "auto":
        backend.parallel = decided.train.parallel
    return [note] if note else []


def _shape(config: RunConfig) -> ModelShape | None:
    try:
        return load_shape(config.model)
    except ModelError:
        return None
