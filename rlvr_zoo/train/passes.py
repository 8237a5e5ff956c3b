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
RunPass = Callable[[Int64[Tensor, "k"], float], T]
"""From a micro-batch's rows and what they weigh, 0 or 1, to what the pass found."""


class Passes:
    """Cuts rows into micro-batches that fit, and runs them."""

    def __init__(self, config: TrainConfig, backend: Backend, discard: Callable[[], None]) -> None:
        """`discard` is called before passes begin anew: it clears the gradients."""
        self._config, self._backend, self._discard = config, backend, discard
        self.micro_batch_tokens = config.micro_batch_tokens
        """The most of a micro-batch; less than was asked for where a rank ran out of memory."""

    def run(self, index: Int64[Tensor, "m"], rows: Rows, run_pass: RunPass[T]) -> list[T]:
        """What `run_pass` finds in this rank's part of every micro-batch of `index`.

        Where a rank lacks the memory, all begin anew with micro-batches of half the size.  Raises
        DeviceMemoryError where that cannot help.
        """
        while True:
            found, error = self._attempt(index, rows, run_pass)
            if not self._backend.any(bool(error)):
                return found
            self._discard()
            _free()
            smaller = self._smaller(rows)
            if not smaller:
                errors = self._backend.gather(error)
                rank = next(rank for rank, each in enumerate(errors) if each)
                raise DeviceMemoryError(self._too_large(rank, errors[rank], 0))
            self.micro_batch_tokens = smaller

    def _attempt(
        self, index: Int64[Tensor, "m"], rows: Rows, run_pass: RunPass[T]
    ) -> tuple[list[T], str]:
        """What the passes found; and why that is too little, where memory ran out."""
        found: list[T] = []
        error = ""
        shares = self._share(index, rows)
        for cut, weight in shares:
            self._backend.collectives.start_pass()
            try:
                found.append(run_pass(cut, weight))
            except RuntimeError as raised:
                if not is_out_of_memory(raised):
                    raise
                error = first_line(raised)
            if error:  # not within `except`: the exception's traceback keeps the activations alive
                break
        if error and self._backend.is_sharded:
            shortest = index[rows.total_tokens_N[index].argmin()][None]
            num_more = len(shares) - len(found) - 1
            self._finish_passes(lambda: run_pass(shortest, 0.0), num_more, error, rows)
        return found, error

    def _finish_passes(
        self, run_dummy: Callable[[], object], num_more: int, error: str, rows: Rows
    ) -> None:
        """Goes with the other ranks to the end of the pass that broke off here, and through as many
        more as they will run; what comes of it is discarded.

        Raises DeviceMemoryError where it cannot: the others then wait until they are ended.
        """
        rank = self._backend.rank
        _free()
        try:
            if not self._backend.collectives.restart_pass():
                raise DeviceMemoryError(self._too_large(rank, error, self._smaller(rows)))
            run_dummy()
            for _ in range(num_more):
                self._backend.collectives.start_pass()
                run_dummy()
        except RuntimeError as raised:
            if not is_out_of_memory(raised):
                raise
            raise DeviceMemoryError(self._too_large(rank, first_line(raised), 0)) from raised

    def _smaller(self, rows: Rows) -> int:
        """The next budget to try; 0 where a micro-batch is one row already."""
        longest = int(rows.total_tokens_N.max())
        tokens = self.micro_batch_tokens
        return 0 if tokens <= longest else max(longest, tokens // 2)

    def _too_large(self, rank: int, error: str, budget: int) -> str:
        ways = [f"train.micro_batch_tokens={budget}"] if budget else []
        if not self._config.gradient_checkpointing:
            ways.append("train.gradient_checkpointing=true")
        ways.append("more GPUs" if self._backend.is_sharded else "train.parallel=fsdp on more GPUs")
        return (
            f"rank {rank} is out of memory ({error}); go on by the same command with --resume and"
            f" {', or '.join(ways)}"
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """On the GPU, so that a smaller pass may fit; not only where torch's own allocator says so."""
    said = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(each in str(error) for each in said)


def _free() -> None:
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
