"""Devices, ranks and precision, by accelerate; the only file that imports it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.rollout.base import Compute
from rlvr_zoo.train.collectives import CollectiveCounter
from rlvr_zoo.train.part import clip_parts
from rlvr_zoo.train.ranks import timeout
from rlvr_zoo.train.sharding import shard, whole

if TYPE_CHECKING:
    from rlvr_zoo.train.zero import Zero

T = TypeVar("T")
Parallel = Literal["auto", "ddp", "fsdp", "deepspeed"]
_DEEPSPEED, _FSDP = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_FSDP"


class Backend:
    """One process's view of all of them.

    Every rank holds the whole step batch, small as it is next to a model, and works on its share.
    Models are whole on every rank, whose gradients are added up after the last micro-batch of a
    step; or sharded (FSDP2, DeepSpeed), and then every rank must run every forward and backward
    pass.
    """

    def __init__(
        self,
        precision: Literal["fp32", "bf16"],
        parallel: Parallel = "auto",
    ) -> None:
        """`auto` shards where `accelerate launch` was told to; else models stay whole, unless
        `self.parallel` is decided before one is placed.

        Raises ConfigError where fewer processes came together than were launched, or deepspeed is
        asked for and missing.
        """
        told = os.environ.pop(_DEEPSPEED, "")  # accelerate would begin a DeepSpeed engine
        self._accelerator = Accelerator(  # precision is `autocast`'s and the shards' matter
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout())],
        )
        if told:
            os.environ[_DEEPSPEED] = told
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != self.world_size:
            raise ConfigError(
                f"{launched} processes were launched, but {self.world_size} came together;"
                " start them with --num-processes, torchrun, or accelerate launch on GPUs"
            )
        self.parallel: Parallel = _told() if parallel == "auto" else parallel
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.collectives = CollectiveCounter()
        self._zero: Zero | None = None
        if self.parallel == "deepspeed" and self.is_sharded:
            from rlvr_zoo.train.zero import Zero

            self._zero = Zero(self.device)

    @property
    def device(self) -> torch.device:
        return cast(torch.device, self._accelerator.device)

    @property
    def rank(self) -> int:
        return int(self._accelerator.process_index)

    @property
    def world_size(self) -> int:
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """True on the one process that writes files."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """True where each rank holds a part of every model."""
        return self.parallel in ("fsdp", "deepspeed") and self.world_size > 1

    @property
    def models(self) -> Literal["whole", "fsdp", "deepspeed"]:
        """How models are held: whole on each rank, or sharded, by what."""
        return cast(Any, self.parallel) if self.is_sharded else "whole"

    @property
    def compute(self) -> Compute:
        """What a rollout engine may know of the forward passes here."""
        return Compute(
            autocast=nullcontext if self.is_sharded else self.autocast,  # a copy is in `dtype`
            dtype=self._dtype,
            device=self.device,
            is_sharded=self.is_sharded,
        )

    @cached_property
    def _mesh(self) -> DeviceMesh:
        return init_device_mesh(self.device.type, (self.world_size,))

    def place(self, module: nn.Module, full_precision: bool = False) -> None:
        """Moves the module to this rank's device, or this rank's part of it; `full_precision` for
        one that is not called within `autocast`."""
        if self._zero is not None:
            self._zero.shard(module)
        elif self.is_sharded:
            dtype = torch.float32 if full_precision else self._dtype
            self.collectives.count(shard(module, self._mesh, dtype))
        else:
            module.to(self.device)

    def rest(self) -> None:
        """To be called after every backward pass, on every rank."""
        if self._zero is not None:
            self._zero.rest()

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass: of fp32 weights in the run's precision."""
        by_fsdp = self.is_sharded and self._zero is None  # which rounds what it gathers
        enabled = self._dtype != torch.float32 and not by_fsdp
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=enabled)

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Adds up what the ranks found; sharded models have done so in the backward pass."""
        if self.world_size == 1 or self.is_sharded:
            return
        mine = torch.tensor([float(p.grad is not None) for p in parameters], device=self.device)
        reached = [p for p, ranks in zip(parameters, self.sum(mine).tolist(), strict=True) if ranks]
        for parameter in reached:
            if parameter.grad is None:  # no row of this rank's led there
                parameter.grad = torch.zeros_like(parameter)
        pending = [distributed.all_reduce(parameter.grad, async_op=True) for parameter in reached]
        for work in pending:
            work.wait()

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> float:
        """Scales the gradients down to a 2-norm (0: leaves them), and returns what it was."""
        bound = max_norm if max_norm > 0 else float("inf")
        clip = nn.utils.clip_grad_norm_ if self._zero is None else clip_parts
        return float(whole(clip(parameters, bound)))

    def shard(self, items: Sequence[T]) -> list[T]:
        """This rank's share: every world_size-th item."""
        return list(items[self.rank :: self.world_size])

    def unshard(self, mine: Sequence[T]) -> list[T]:
        """All ranks' shares put together again, in the order that `shard` took them from."""
        if self.world_size == 1:
            return list(mine)
        shares = cast(list[list[T]], gather_object([list(mine)]))
        total = sum(len(share) for share in shares)
        return [shares[n % self.world_size][n // self.world_size] for n in range(total)]

    def sum(self, tensor: Tensor) -> Tensor:
        """The tensor summed over ranks."""
        if self.world_size == 1:
            return tensor
        return cast(Tensor, self._accelerator.reduce(tensor, reduction="sum"))

    def any(self, value: bool) -> bool:
        """Does any rank say so?"""
        return bool(self.sum(torch.tensor(float(value), device=self.device)) > 0)

    def sum_metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Each rank's share of every metric, summed; a rank without rows has none."""
        names = sorted({name for share in self.gather(list(metrics)) for name in share})
        if not names:
            return {}
        zero = torch.zeros((), device=self.device)
        values = self.sum(torch.stack([metrics.get(n, zero).detach().float() for n in names]))
        return dict(zip(names, values.tolist(), strict=True))

    def gather(self, value: T) -> list[T]:
        """Every rank's value, in their order, on every rank."""
        if self.world_size == 1:
            return [value]
        return cast(list[T], gather_object([value]))

    def wait(self) -> None:
        """Returns when every rank has come here."""
        self._accelerator.wait_for_everyone()

    def broadcast(self, value: T) -> T:
        """The main process's value, on every rank."""
        return self.gather(value)[0]

    def gpu_memory_bytes(self) -> int:
        """What the smallest GPU of all ranks has in all, the same on every rank; 0 without GPUs."""
        mine = 0
        if self.device.type == "cuda":
            mine = torch.cuda.get_device_properties(self.device).total_memory
        return min(self.gather(mine))

    def gpu_names(self) -> list[str]:
        """Accelerators in use, by name."""
        if self.device.type != "cuda":
            return []
        return [torch.cuda.get_device_name(self.device)] * self.world_size


def _told() -> Parallel:
    """How `accelerate launch` was told to hold models."""
    if os.environ.get(_DEEPSPEED, "").lower() == "true":
        from rlvr_zoo.train.zero import refuse_other_settings

        refuse_other_settings()
        return "deepspeed"
    return "fsdp" if os.environ.get(_FSDP, "").lower() == "true" else "auto"
