"""FSDP2's collectives, the all-gathers of weights and reduce-scatters of gradients, counted.

Every rank must call all of them, in one order.  A rank whose pass broke off skips, in a second
one, as many as it had called already, so that the ranks that wait inside theirs get through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

# under the names that torch 2.13 gave them
all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
reduce_scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)

CAN_RESTART = hasattr(FSDPModule, "reset_iter_state")
"""Can FSDP2 be used again after a pass that broke off?  From torch 2.13 on."""


class CollectiveCounter:
    """Of one rank's passes."""

    def __init__(self) -> None:
        self._is_used = False
        self._roots: list[FSDPModule] = []
        """Sharded models that the present pass has entered."""
        self._num_seen = self._num_to_skip = 0

    def count(self, parts: Sequence[FSDPModule]) -> None:
        """Counts the collectives of a sharded model: of all its parts that are gathered by
        themselves, the last of which is the model."""
        self._is_used = True
        root = parts[-1]
        module = cast(nn.Module, root)
        module.register_forward_pre_hook(lambda *_: self._roots.append(root), prepend=True)
        for part in parts:
            part.set_custom_all_gather(cast(Any, _AllGather(self)))
            part.set_custom_reduce_scatter(cast(Any, _ReduceScatter(self)))

    def start_pass(self) -> None:
        """To be called before every pass."""
        self._roots.clear()
        self._num_seen = self._num_to_skip = 0

    def restart_pass(self) -> bool:
        """The pass broke off, and starts again without the collectives that were called; what it
        gives means nothing, and is to be discarded on all ranks.

        False where it cannot: with DeepSpeed, or before torch 2.13.
        """
        if not (self._is_used and CAN_RESTART):
            return False
        for root in self._roots:
            root.reset_iter_state()
        self._roots.clear()
        self._num_seen, self._num_to_skip = 0, self._num_seen
        return True

    def count_next(self) -> bool:
        """Counts a collective, and says whether it is to be called."""
        self._num_seen += 1
        return self._num_seen > self._num_to_skip


class _Collective:
    """What FSDP2 calls in place of a collective of its own."""

    def __init__(self, counter: CollectiveCounter) -> None:
        self._counter = counter

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _AllGather(_Collective):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        async_op: bool = False,
    ) -> Any:
        if self._counter.count_next():
            return all_gather(output_tensor, input_tensor, group=group, async_op=async_op)
        output_tensor.zero_()  # finite: a loss may raise on numbers that are not
        return None


class _ReduceScatter(_Collective):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        if self._counter.count_next():
            return reduce_scatter(output_tensor, input_tensor, op, group=group, async_op=async_op)
        return None
