"""Where ranks meet within a pass through a model in parts: to gather a weight, or to add up its
gradient.

All ranks must come to all meetings, in one order.  They are counted, so that a rank whose pass
broke off, out of memory, can go through it again with less and leave out the meetings that it has
been to: the others, who wait in the middle of theirs, then get to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

# under the names that torch 2.13 gave them
all_gather = getattr(distributed, "all_gather_single", distributed.all_gather_into_tensor)
reduce_scatter = getattr(distributed, "reduce_scatter_single", distributed.reduce_scatter_tensor)


class Meetings:
    """One rank's attendance."""

    def __init__(self) -> None:
        self._counted = False
        self._entered: list[FSDPModule] = []
        self._been = self._left_out = 0

    def count(self, module: FSDPModule, parts: Sequence[FSDPModule]) -> None:
        """Counts the meetings of a module that FSDP2 has sharded; `parts` are gathered by
        themselves, the module as a whole among them."""
        self._counted = True
        assert isinstance(module, nn.Module)
        module.register_forward_pre_hook(lambda *_: self._entered.append(module), prepend=True)
        all_gather: Any = _AllGather(self)
        reduce_scatter: Any = _ReduceScatter(self)
        for part in parts:
            part.set_custom_all_gather(all_gather)
            part.set_custom_reduce_scatter(reduce_scatter)

    def begin(self) -> None:
        """A pass begins."""
        self._entered.clear()
        self._been = self._left_out = 0

    def begin_again(self) -> bool:
        """The pass broke off, and begins again without the meetings that this rank has been to;
        what comes of it is to be thrown away, on all ranks.

        False where that cannot be: with DeepSpeed, or before torch 2.13.
        """
        if not (self._counted and hasattr(FSDPModule, "reset_iter_state")):
            return False
        for module in self._entered:
            module.reset_iter_state()
        self._entered.clear()
        self._been, self._left_out = 0, self._been
        return True

    def takes_place(self) -> bool:
        """Counts a meeting; False for one to be left out."""
        self._been += 1
        return self._been > self._left_out


class _Meeting:
    """What FSDP2 calls in place of a collective of its own."""

    def __init__(self, meetings: Meetings) -> None:
        self._meetings = meetings

    def allocate(self, size: Sequence[int], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _AllGather(_Meeting):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        async_op: bool = False,
    ) -> Any:
        if self._meetings.takes_place():
            return all_gather(output_tensor, input_tensor, group=group, async_op=async_op)
        return None


class _ReduceScatter(_Meeting):
    def __call__(
        self,
        output_tensor: Tensor,
        input_tensor: Tensor,
        group: distributed.ProcessGroup,
        op: Any,
        async_op: bool = False,
    ) -> Any:
        if self._meetings.takes_place():
            return reduce_scatter(output_tensor, input_tensor, op, group=group, async_op=async_op)
        return None
