"""Passes through the models, a micro-batch each: which rows are this rank's, and how a step goes on
where a rank lacks the memory for its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Int64
from torch import Tensor

from rlvr_zoo.config import TrainConfig
from rlvr_zoo.errors import DeviceMemoryError, first_line
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.rows import Rows, micro_batches

T = TypeVar("T")
OnePass = Callable[[Int64[Tensor, "k"], float], T]
"""From a micro-batch's rows and what they weigh, 0 or 1, to what the pass found."""


class Passes:
    """Cuts rows into micro-batches that fit."""

    def __init__(self, config: TrainConfig, backend: Backend, forget: Callable[[], None]) -> None:
        """`forget` is called before passes begin anew: it clears what they added up."""
        self._config, self._backend, self._forget = config, backend, forget
        self.micro_batch_tokens = config.micro_batch_tokens
        """The most of a micro-batch; less than was asked for where a rank ran out of memory."""

    def over(self, index: Int64[Tensor, "m"], rows: Rows, one: OnePass[T]) -> list[T]:
        """What `one` finds in this rank's part of every micro-batch of `index`.

        Where a rank lacks the memory, all begin anew with micro-batches of half the size.  Raises
        DeviceMemoryError where that cannot help.
        """
        while True:
            found, error = self._attempt(index, rows, one)
            if not self._backend.any(bool(error)):
                return found
            self._forget()
            _free()
            longest = int(rows.total_tokens_N.max())
            if self.micro_batch_tokens <= longest:  # a row by itself
                raise DeviceMemoryError(self._too_large(error or "another rank's", 0))
            self.micro_batch_tokens = max(longest, self.micro_batch_tokens // 2)

    def _attempt(
        self, index: Int64[Tensor, "m"], rows: Rows, one: OnePass[T]
    ) -> tuple[list[T], str]:
        """What the passes found; and why that is too little, where memory ran out."""
        found: list[T] = []
        error = ""
        shares = self._share(index, rows)
        for cut, weight in shares:
            self._backend.meetings.begin()
            try:
                found.append(one(cut, weight))
            except RuntimeError as raised:
                if not lacks_memory(raised):
                    raise
                error = first_line(raised)
            if error:  # and not before the exception is gone, which holds on to the pass
                break
        if error and self._backend.is_sharded:
            shortest = index[rows.total_tokens_N[index].argmin()]
            self._keep_up(lambda: one(shortest[None], 0.0), len(shares) - len(found) - 1, error)
        return found, error

    def _keep_up(self, least: Callable[[], object], others: int, error: str) -> None:
        """Goes through what is left of a pass that broke off, in whose middle the other ranks
        wait, and through as many others as they will, with the least that can be."""
        _free()
        try:
            if not self._backend.meetings.begin_again():
                raise DeviceMemoryError(self._too_large(error, self.micro_batch_tokens // 2))
            least()
            for _ in range(others):
                self._backend.meetings.begin()
                least()
        except RuntimeError as raised:
            if not lacks_memory(raised):
                raise
            raise DeviceMemoryError(self._too_large(first_line(raised), 0)) from raised

    def _too_large(self, error: str, budget: int) -> str:
        ways = [f"train.micro_batch_tokens={budget}"] if budget else []
        if not self._config.gradient_checkpointing:
            ways.append("train.gradient_checkpointing=true")
        ways.append("more GPUs" if self._backend.is_sharded else "train.parallel=fsdp on more GPUs")
        return (
            f"rank {self._backend.rank} is out of memory ({error}); go on by the same command (with"
            f" --resume where there is a checkpoint) and {', or '.join(ways)}"
        )

    def _share(
        self, index: Int64[Tensor, "m"], rows: Rows
    ) -> list[tuple[Int64[Tensor, "k"], float]]:
        """This rank's part of every micro-batch of `index`, and what it weighs.

        Of sharded models all ranks must run equally many passes: one that has no row of a
        micro-batch repeats another's, at weight 0.
        """
        rank, world = self._backend.rank, self._backend.world_size
        cuts = micro_batches(index, rows.total_tokens_N, self.micro_batch_tokens, world)
        idle = [(cut[:1], 0.0) for cut in cuts if self._backend.is_sharded and len(cut) <= rank]
        return [(cut[rank::world], 1.0) for cut in cuts if len(cut) > rank] + idle


def lacks_memory(error: RuntimeError) -> bool:
    """Is the GPU's memory too small?  cuBLAS, which wants some of its own, has no class for it."""
    return isinstance(error, torch.OutOfMemoryError) or "CUBLAS_STATUS_ALLOC_FAILED" in str(error)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
