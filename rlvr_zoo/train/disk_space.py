"""Whether the disk has room for the checkpoints that a run will write, before it has cost hours."""

from __future__ import annotations

import shutil
from pathlib import Path

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.plan.checkpoints import most_at_once
from rlvr_zoo.plan.devices import GIB
from rlvr_zoo.track.storage import storage
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.learner import Learner

_MIB = 1 << 20


def check_disk_space(
    folder: Path, learner: Learner, config: RunConfig, backend: Backend, step: int
) -> str:
    """A warning where the checkpoints after `step` will not all fit into `folder`; else nothing.

    Called on every rank; the main one looks.  Raises ConfigError on all of them where the first
    one will not fit.  Other users, and quotas, are not seen.
    """
    refusal = warning = ""
    if backend.is_main:
        size = sum(checkpoint.contents(learner).parts(config.optimizer.moments).values())
        existing = checkpoint.number_in(folder)
        nearest = folder if folder.exists() else folder.parent
        refusal, warning = verdict(nearest, _free_bytes(nearest), size, config, step, existing)
    refusal, warning = backend.broadcast((refusal, warning))
    if refusal:
        raise ConfigError(refusal)
    return warning


def verdict(
    folder: Path, free_bytes: float, size_bytes: float, config: RunConfig, step: int, existing: int
) -> tuple[str, str]:
    """(Why the run is refused, what it is warned of), each empty where there is no reason.

    `size_bytes` is one checkpoint's, `existing` how many there are already.
    """
    new = most_at_once(config, step, existing) - existing
    if free_bytes >= new * size_bytes:
        return "", ""
    has = f"{folder} has {_shown(free_bytes)} free"
    if free_bytes < size_bytes:
        return (
            f"{has}, and a checkpoint takes {_shown(size_bytes)}: not even one fits; free space"
            " there, or put --output on a larger disk"
        ), ""
    fitting = int(free_bytes // size_bytes)
    fewer = existing + fitting - 1  # while the next one is saved, none has gone yet
    help_ = f"set checkpoint.keep={fewer}"
    if not fewer:
        help_ = "set checkpoint.every=0 (one, at the end; a run that is killed begins anew)"
    keep = config.checkpoint.keep
    why = f"checkpoint.keep={keep} and one more while saving" if existing + new > keep else "all"
    return "", (
        f"{has}, and this run's checkpoints will take {_shown(new * size_bytes)}: {new} of"
        f" {_shown(size_bytes)} ({why}); {help_}, or free space there"
    )


def _free_bytes(folder: Path) -> float:
    with storage(folder):
        found = shutil.disk_usage(folder)
    return found.free if found.total else float("inf")  # some network disks do not say


def _shown(num_bytes: float) -> str:
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / _MIB:.1f} MiB"
