"""Devices, ranks and precision, by accelerate; the only file that imports it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, gather_object
from torch import Tensor, nn

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train.ranks import timeout

T = TypeVar("T")


class Backend:
    """One process's view of all of them.

    Every rank holds the whole step batch, small as it is next to a model, and works on its share.
    """

    def __init__(self, precision: Literal["fp32", "bf16"]) -> None:
        """Raises ConfigError where fewer processes came together than were launched."""
        self._accelerator = Accelerator(
            mixed_precision="bf16" if precision == "bf16" else "no",
            cpu=not torch.cuda.is_available(),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout())],
        )
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != self.world_size:
            raise ConfigError(
                f"{launched} processes were launched, but {self.world_size} came together;"
                " start them with --num-processes"
            )

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

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module on this rank's device, in the run's precision, its gradients shared."""
        return cast(nn.Module, self._accelerator.prepare_model(module))

    def autocast(self) -> AbstractContextManager[None]:
        """The context of a forward pass of a module that is not wrapped."""
        return cast(AbstractContextManager[None], self._accelerator.autocast())

    @contextmanager
    def accumulating(self, modules: Sequence[nn.Module], last: bool) -> Iterator[None]:
        """Around the forward and backward pass of a micro-batch: ranks meet at a step's `last`.

        DDP decides at the forward pass whether the backward pass will meet.
        """
        with ExitStack() as stack:
            if not last:
                for module in modules:
                    stack.enter_context(self._accelerator.no_sync(module))
            yield

    def backward(self, loss: Tensor) -> None:
        """Adds this rank's share to the gradients.

        DDP averages over ranks, so the loss is scaled up by their number.
        """
        self._accelerator.backward(loss * self.world_size)

    def clip(self, parameters: Sequence[nn.Parameter], max_norm: float) -> float:
        """Scales the gradients down to a 2-norm (0: leaves them), and returns what it was."""
        bound = max_norm if max_norm > 0 else float("inf")
        return float(self._accelerator.clip_grad_norm_(parameters, bound))

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

    def sum_metrics(self, metrics: Mapping[str, Tensor]) -> dict[str, float]:
        """Each rank's share of every metric, summed; the names are the same on all ranks."""
        names = sorted(metrics)
        if not names:
            return {}
        values = self.sum(torch.stack([metrics[name].detach().float() for name in names]))
        return dict(zip(names, values.tolist(), strict=True))

    def wait(self) -> None:
        """Returns when every rank has come here."""
        self._accelerator.wait_for_everyone()

    def broadcast(self, value: T) -> T:
        """The main process's value, on every rank."""
        if self.world_size == 1:
            return value
        return cast(T, gather_object([value])[0])

    def gpu_names(self) -> list[str]:
        """Accelerators in use, by name."""
        if self.device.type != "cuda":
            return []
        return [torch.cuda.get_device_name(self.device)] * self.world_size
