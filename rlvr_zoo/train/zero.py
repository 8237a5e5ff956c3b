"""Models in parts by DeepSpeed's ZeRO-3; the only file that imports deepspeed.

DeepSpeed holds the parts, and gathers each weight as its module is used.  Gradients, clipping and
the optimizer are the trainer's own, so that they are the same whatever holds the weights; a
DeepSpeed engine would bring its own.  Weights are gathered in fp32, and autocast rounds them.
"""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train.extras import optional
from rlvr_zoo.train.network import Network, reads_weight
from rlvr_zoo.train.part import Part, part_of
from rlvr_zoo.train.sharding import blocks

SETTING = "train.parallel=deepspeed"
_ACCELERATE = "ACCELERATE_DEEPSPEED_"
_OFFLOAD = "take optimizer.moments=offload, or more GPUs"
_FOLLOWED = (
    ("ZERO_STAGE", "2", "3", "stage 3 shards all that the others do"),
    ("OFFLOAD_OPTIMIZER_DEVICE", "none", "none", _OFFLOAD),
    ("OFFLOAD_PARAM_DEVICE", "none", "none", _OFFLOAD),
)
"""What `accelerate launch` asks of DeepSpeed: a variable's name, what it is if not set, what it
must be, and why or what else."""


def refuse_other_settings() -> None:
    """Raises ConfigError where `accelerate launch` asks for more of DeepSpeed than there is."""
    if os.environ.get(f"{_ACCELERATE}CONFIG_FILE"):
        raise ConfigError(
            "accelerate's deepspeed_config_file is not read; set zero_stage: 3 in its place, and"
            " the rest as settings of the run"
        )
    for name, unset, only, why in _FOLLOWED:
        found = os.environ.get(_ACCELERATE + name, unset)
        if found != only:
            raise ConfigError(
                f"accelerate's configuration says {name.lower()}: {found}; set {only} there ({why})"
            )


class Zero:
    """Splits modules over all ranks, and brings them to rest after backward passes."""

    def __init__(self, device: torch.device) -> None:
        """Raises ConfigError where deepspeed is missing."""
        if device.type == "cpu":
            os.environ.setdefault("DS_ACCELERATOR", "cpu")
        with optional("deepspeed", "deepspeed", SETTING):
            import deepspeed
            from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
        # that torch has newer names for DeepSpeed's collectives is nothing to a user
        warnings.filterwarnings("ignore", "`torch.distributed.*is deprecated", FutureWarning)
        if device.type == "cpu":  # a collective of its own, which it would compile first
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        backend = "nccl" if device.type == "cuda" else "gloo"
        deepspeed.init_distributed(backend, auto_mpi_discovery=False, verbose=False)
        self._deepspeed, self._hold, self._device = deepspeed, DeepSpeedZeRoOffload, device
        self._held: list[Any] = []

    def shard(self, module: nn.Module) -> None:
        """Splits every weight over the ranks, in place, and gives it a Part.

        Raises ConfigError for a language model whose head is called a chunk at a time: ranks have
        different numbers of chunks, and DeepSpeed has them meet in every call.
        """
        head = module.lm.get_output_embeddings() if isinstance(module, Network) else None
        if head is not None and not reads_weight(head):
            raise ConfigError(
                f"{SETTING} needs a head that is a plain linear map, which {type(head).__name__}"
                " is not; set train.parallel=fsdp"
            )
        _own_weights(module)
        for buffer in module.buffers():
            buffer.data = buffer.data.to(self._device)
        layer = max((_size(each) for each in blocks(module)), default=0)
        # as FSDP2 does: the present layer and the next are gathered, and what is outside of layers
        held = self._hold(
            module,
            None,
            None,
            prefetch_bucket_size=layer,
            max_live_parameters=2 * layer + _size(module) - sum(map(_size, blocks(module))),
            max_reuse_distance=0,
            param_persistence_threshold=0,
        )
        self._held.append(held)
        for parameter in head.parameters() if head is not None else ():
            self._deepspeed.zero.register_external_parameter(module, parameter)
        for parameter in module.parameters():
            split: Any = parameter
            split.part = Part(split.ds_tensor, split.ds_shape, parameter.requires_grad)
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(_hand_over)

    def rest(self) -> None:
        """Lets go of what is still gathered: a module whose input needs no gradient, like an
        embedding, is not told that its backward pass is over."""
        for held in self._held:
            held.release_backward_leftovers()
            held.partition_all_parameters()


@torch.no_grad()
def _own_weights(module: nn.Module) -> None:
    """Copies in place of weights that an earlier module has taken: adapters' frozen ones."""
    copies: dict[int, nn.Parameter] = {}
    for owner in module.modules():
        for name, parameter in list(owner.named_parameters(recurse=False)):
            if (part := part_of(parameter)) is not None:
                if id(parameter) not in copies:
                    copies[id(parameter)] = nn.Parameter(part.gathered(part), part.requires_grad)
                setattr(owner, name, copies[id(parameter)])


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _hand_over(parameter: Tensor) -> None:
    """A gradient, whole and of this rank's rows, goes where the optimizer finds it."""
    part = part_of(parameter)
    assert part is not None and parameter.grad is not None
    part.add_gradient(parameter.grad)
    parameter.grad = None
