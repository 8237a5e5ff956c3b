"""Models in parts, one on each rank: by FSDP2, whose weights are DTensors, or by DeepSpeed, whose
weights have a Part.  They are gathered layer by layer as they are used, and tensor by tensor where
a whole one is wanted."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlvr_zoo.train.part import part_of


def shard(module: nn.Module, mesh: DeviceMesh, dtype: torch.dtype) -> list[FSDPModule]:
    """Splits every weight over the ranks, in place; what is held and updated stays fp32.

    Forward and backward compute in `dtype`.  Gradients are summed over ranks in fp32.  Returns the
    parts that are gathered by themselves, of which the module is the last.
    """
    policy = MixedPrecisionPolicy(
        param_dtype=None if dtype == torch.float32 else dtype,
        reduce_dtype=torch.float32,
        cast_forward_inputs=False,  # masks count tokens, which bf16 does up to 256 only
    )
    parts = [
        fully_shard(part, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
        for part in (*blocks(module), module)
    ]
    for part in parts:
        part.set_gradient_divide_factor(1.0)  # a sum: losses are shares of totals already
        part.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    return parts


def blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks that transformers says must not be split: these are gathered one at a time."""
    names: set[str] = set()
    for each in module.modules():
        names |= set(getattr(each, "_no_split_modules", None) or ())
    return [each for each in module.modules() if type(each).__name__ in names]


def moved(parameter: nn.Parameter) -> nn.Parameter:
    """What the optimizer moves: the parameter, or this rank's Part of it."""
    part = part_of(parameter)
    return parameter if part is None else part


def shape_of(tensor: Tensor) -> torch.Size:
    """The shape of the whole tensor."""
    part = part_of(tensor)
    return tensor.shape if part is None else part.shape_of_whole


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; called on every rank where it is in parts."""
    if (part := part_of(tensor)) is not None:
        return part.gathered(part)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    if (part := part_of(tensor)) is not None:
        return part
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def like(given: Tensor, model: Tensor) -> Tensor:
    """A whole tensor as `model` is held: this rank's part of it, or all of it."""
    if (part := part_of(model)) is not None:
        return part.cut(given).to(part.device)
    given = given.to(model.device)
    if not isinstance(model, DTensor):
        return given
    return distribute_tensor(given, model.device_mesh, model.placements, src_data_rank=None)


@torch.no_grad()
def put(tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Whole tensors into the parameters of their names.  Raises KeyError, or ValueError, where
    they are not these."""
    if other := sorted(parameters.keys() ^ tensors.keys()):
        raise KeyError(f"{len(other)} weights are missing or too many, among them {other[0]}")
    for name, parameter in parameters.items():
        if shape_of(parameter) != tensors[name].shape:
            raise ValueError(f"{name} has {tuple(tensors[name].shape)}")
        local(parameter).copy_(local(like(tensors[name], parameter)))
