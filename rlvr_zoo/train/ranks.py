"""Ranks that come together: whether they fit, and how long one waits for another."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch

from rlvr_zoo.errors import ConfigError, RankError
from rlvr_zoo.protocol import differences
from rlvr_zoo.track import provenance

Card = tuple[Mapping[str, str], Mapping[str, Any]]
"""What a rank runs with: versions by package, and its settings."""

TIMEOUT = "RLVR_ZOO_RANK_TIMEOUT_S"
_TIMEOUT_S = 1800.0


def timeout() -> timedelta:
    """How long a collective waits for a rank that is there but does not answer.

    A rank that has died needs no timeout: gloo notices its closed connection at once, and the
    launcher ends the rest.  So it is as long as ranks may be apart: one samples its last long
    completion, or writes a checkpoint, while the others wait.  Raises ConfigError.
    """
    text = os.environ.get(TIMEOUT, str(_TIMEOUT_S))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"{TIMEOUT}={text}: give seconds, more than 0")
    return timedelta(seconds=seconds)


def refuse_too_few_gpus() -> None:
    """Raises ConfigError where this machine has GPUs, but fewer than ranks."""
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < gpus < here:
        raise ConfigError(
            f"{here} processes for {gpus} GPUs on this machine; start one a GPU:"
            f" --num-processes {gpus}"
        )


def refuse_idle(rows: int, world_size: int) -> None:
    """Raises ConfigError where a step has fewer rollouts than there are ranks."""
    if rows < world_size:
        raise ConfigError(
            f"{world_size} processes for {rows} rollouts a step: some would idle; raise"
            " rollout.rollouts_per_step, or start fewer processes"
        )


def refuse_mixed(
    gather: Callable[[Card], Sequence[Card]],
    settings: Mapping[str, Any],
    versions: Mapping[str, str] | None = None,
) -> None:
    """Raises RankError on all ranks alike, where they run different versions or settings.

    `gather` returns what every rank gave it, by rank; `versions` are those that decide numbers,
    if not given.
    """
    cards = gather((versions or provenance.versions(), settings))
    mixed = _mixed_versions([card[0] for card in cards])
    if mixed:
        raise RankError(
            f"ranks with different versions: {'; '.join(mixed)}; install the same on every machine"
            " (pip install -c constraints.txt)"
        )
    for rank, (_, theirs) in enumerate(cards):
        if changed := differences(cards[0][1], theirs):
            raise RankError(
                f"rank {rank} was started with another {', '.join(changed[:5])} than rank 0; give"
                " every machine the same command and the same files"
            )


def _mixed_versions(versions: Sequence[Mapping[str, str]]) -> list[str]:
    """One clause a package: `torch 2.13.0 on ranks 0-3, 2.12.1 on ranks 4-7`."""
    clauses = []
    for name in sorted({name for each in versions for name in each}):
        having: dict[str, list[int]] = {}
        for rank, each in enumerate(versions):
            having.setdefault(each.get(name, "missing"), []).append(rank)
        if len(having) > 1:
            parts = [f"{version} on {_span(ranks)}" for version, ranks in having.items()]
            clauses.append(f"{name} {', '.join(parts)}")
    return clauses


def _span(ranks: Sequence[int]) -> str:
    """Ranks as a person writes them: `rank 3`, `ranks 0-2 and 7`."""
    runs: list[list[int]] = []
    for rank in ranks:
        if runs and runs[-1][1] == rank - 1:
            runs[-1][1] = rank
        else:
            runs.append([rank, rank])
    text = " and ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)
    return f"rank{'s' if len(ranks) > 1 else ''} {text}"
