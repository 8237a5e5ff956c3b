"""Ranks of the trainer that hold one copy of an engine's model between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import distributed

from rlvr_zoo.rollout.completions import Job


def team(num_ranks: int, width: int) -> distributed.ProcessGroup | None:
    """The ranks that hold one model together; None where each holds its own."""
    if width == 1:
        return None
    teams = [list(range(first, first + width)) for first in range(0, num_ranks, width)]
    mine: distributed.ProcessGroup
    mine, _ = distributed.new_subgroups_by_enumeration(teams, backend="gloo")
    return mine


def joined(
    jobs: Sequence[Job], mates: distributed.ProcessGroup | None
) -> tuple[Sequence[Job], int]:
    """The jobs of all ranks of a team, and where this rank's begin."""
    if mates is None:
        return jobs, 0
    shares: list[Any] = [None] * distributed.get_world_size(mates)
    distributed.all_gather_object(shares, list(jobs), group=mates)
    before = shares[: distributed.get_rank(mates)]
    return [job for share in shares for job in share], sum(len(share) for share in before)
