"""What a run takes beside its GPUs, at most: the hosts' memory, and the disk.

At the start each rank makes its models whole, in fp32, in its host's memory, before the first one
goes to the GPU or is sharded.  To save, the main rank gathers a checkpoint in its host's memory:
weights, and the moments too where they are sharded; else these go tensor by tensor to the file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.checkpoints import SAVED_MOMENT_BYTES, Contents, most_at_once, num_saves
from rlvr_zoo.plan.devices import Devices
from rlvr_zoo.plan.parameters import FP32, Parameters
from rlvr_zoo.plan.shape import ModelShape
from rlvr_zoo.plan.work import spec_of

PINNED = 2.0
"""What pinned memory takes of a tensor, at most: torch rounds it up to a power of two bytes."""


@dataclass(frozen=True)
class HostPlan:
    """Bytes of tensors; what Python, torch and CUDA take themselves is not among them."""

    start_bytes: float
    """Of one machine, all its ranks together, before models go to the GPUs."""
    training_bytes: float
    """Of one machine: moments that stay in the host's memory."""
    saving_bytes: float
    """Of the main rank's machine while it saves."""
    checkpoint: Mapping[str, float]
    """Of the disk, for one checkpoint, by part."""
    num_checkpoints: int
    """On the disk at once."""
    num_saves: int
    """In the whole run, one after the other."""

    @property
    def checkpoint_bytes(self) -> float:
        return sum(self.checkpoint.values())

    @property
    def disk_bytes(self) -> float:
        return self.num_checkpoints * self.checkpoint_bytes


def host(config: RunConfig, shape: ModelShape, devices: Devices) -> HostPlan:
    """What a run takes beside its GPUs; `train.parallel` must be decided.

    Raises ConfigError for LoRA targets that the model does not have.
    """
    held = Parameters(config, shape, spec_of(config))
    sharded = config.train.parallel == "fsdp"
    training = 0.0
    if config.optimizer.moments == "offload":
        each = PINNED * SAVED_MOMENT_BYTES["offload"] * held.trained
        training = each * devices.gpus_per_machine / (devices.world_size if sharded else 1)
    checkpoint = planned_contents(held).parts(config.optimizer.moments)
    gathered = sum(checkpoint.values())
    if not sharded:  # on the GPU, or in the host's memory already
        gathered -= checkpoint["optimizer"]
    return HostPlan(
        start_bytes=devices.gpus_per_machine * FP32 * _at_start(held, sharded),
        training_bytes=training,
        saving_bytes=training + gathered,
        checkpoint=checkpoint,
        num_checkpoints=most_at_once(config),
        num_saves=num_saves(config),
    )


def planned_contents(held: Parameters) -> Contents:
    """What a checkpoint of these holds."""
    beside = held.companions(own_bases=False) + held.head
    return Contents(
        policy=held.shape.num_parameters,
        beside=beside + held.policy - held.shape.num_parameters,
        trained=held.trained,
    )


def _at_start(held: Parameters, sharded: bool) -> int:
    """Parameters that one rank holds at once on the host.

    Copies with adapters share the frozen weights until they are sharded.  A resumed run reads one
    model at a time, when its models have left the host.
    """
    models = held.policy + held.companions(own_bases=False) + held.head
    if sharded and held.config.rollout.engine in ("transformers", "replay"):
        return max(models, 2 * held.shape.num_parameters)  # with the engine's copy, made first
    return models
