"""What the trainer asks of an evaluator, and an evaluator of the processes it runs in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from rlvr_zoo.track.record import EvaluationRecord

if TYPE_CHECKING:
    import torch

    from rlvr_zoo.evaluate.proof import Prove
    from rlvr_zoo.rollout.base import Compute, Engine

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How far a suite has come."""

    name: str
    num_samples: int
    """Samples made so far."""
    num_samples_wanted: int
    num_problems: int
    """Problems with all their samples."""
    num_problems_wanted: int
    accuracy: float
    """Share of correct samples so far."""


Progress = Callable[[Standing], None]


class Evaluator(Protocol):
    """Measures the policy as it is now, on problems of its own."""

    name: str
    every: int
    """Steps between measurements, besides the first and the last; 0: only these."""

    @property
    def engine(self) -> Engine:
        """What samples; its weights are the caller's to sync."""

    def measure(self, step: int, prove: Prove) -> EvaluationRecord:
        """What the policy scores after `step` steps.  Raises SyncError where `prove` shows that
        another policy was measured."""


class Ranks(Protocol):
    """Shares work out over processes."""

    @property
    def is_main(self) -> bool: ...

    @property
    def world_size(self) -> int: ...

    def shard(self, items: Sequence[T]) -> list[T]: ...

    def unshard(self, mine: Sequence[T]) -> list[T]: ...

    def broadcast(self, value: T) -> T: ...


class Machine(Ranks, Protocol):
    """The processes and their devices."""

    @property
    def device(self) -> torch.device: ...

    @property
    def compute(self) -> Compute: ...

    def wait(self) -> None: ...

    def gpu_names(self) -> list[str]: ...
