"""A weight that is split over the ranks as one long row, as DeepSpeed's ZeRO-3 does it."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, distributed, nn

from rlvr_zoo.train.collectives import all_gather, reduce_scatter


class Part(nn.Parameter):
    """This rank's part of a weight: what the optimizer moves in its place.

    It lies in the memory that the weight is gathered from, less the padding that makes all ranks'
    parts equally long.
    """

    padded: Tensor
    shape_of_whole: torch.Size

    def __new__(cls, padded: Tensor, shape: torch.Size, requires_grad: bool) -> Part:
        each = len(padded)
        mine = min(max(shape.numel() - distributed.get_rank() * each, 0), each)
        part = super().__new__(cls, padded[:mine], requires_grad)
        part.padded, part.shape_of_whole = padded, shape
        return part

    def cut(self, given: Tensor) -> Tensor:
        """This rank's part of a whole tensor."""
        start = distributed.get_rank() * len(self.padded)
        return given.flatten()[start : start + len(self)]

    @torch.no_grad()
    def gathered(self, mine: Tensor) -> Tensor:
        """The whole tensor of which this is every rank's part; called on all of them."""
        row = _padded(mine, len(self.padded))
        rows = row.new_empty(distributed.get_world_size() * len(row))
        all_gather(rows, row)
        return rows[: self.shape_of_whole.numel()].view(self.shape_of_whole)

    @torch.no_grad()
    def add_gradient(self, grad: Tensor) -> None:
        """Adds this rank's part of the sum of all ranks' gradients of the weight."""
        summed = torch.empty_like(self.padded)
        size = distributed.get_world_size() * len(summed)
        reduce_scatter(summed, _padded(grad.flatten(), size))
        mine = summed[: len(self)]
        self.grad = mine if self.grad is None else self.grad.add_(mine)


def part_of(tensor: Tensor) -> Part | None:
    """The Part of a weight that has one; a Part is its own."""
    return tensor if isinstance(tensor, Part) else getattr(tensor, "part", None)


def clip_parts(parts: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """As torch.nn.utils.clip_grad_norm_, where ranks have parts of the gradients."""
    parts = list(parts)
    squared = nn.utils.get_total_norm([p.grad for p in parts if p.grad is not None]).square()
    distributed.all_reduce(squared)
    norm = squared.sqrt()
    nn.utils.clip_grads_with_norm_(parts, max_norm, norm)
    return norm


def _padded(row: Tensor, size: int) -> Tensor:
    return nn.functional.pad(row, (0, size - len(row)))
