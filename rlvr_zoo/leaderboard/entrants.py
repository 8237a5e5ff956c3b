"""Who is on a board: all seeds of one algorithm with one set of settings, and its name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlvr_zoo.leaderboard.records import Entry, seeds_of
from rlvr_zoo.leaderboard.statistics import MIN_SEEDS, Outcomes


@dataclass(frozen=True)
class Entrant:
    """All seeds of one algorithm with one set of settings."""

    name: str
    entries: list[Entry]

    @property
    def control(self) -> bool:
        return bool(self.entries[0].record.control)

    @property
    def tested(self) -> bool:
        """True where there are seeds enough to tell luck."""
        return len(self.entries) >= MIN_SEEDS

    def outcomes(self, suite: str) -> Outcomes:
        """S x P x K, problems by name."""
        finals = [entry.final()[suite] for entry in self.entries]
        problems = sorted(finals[0].outcomes)
        return np.array([[final.outcomes[p] for p in problems] for final in finals], dtype=np.int64)


def entrants_of(entries: Sequence[Entry]) -> list[Entrant]:
    """Named by the algorithm, and by the settings that differ where it entered with several."""
    groups = list(seeds_of(entries).values())
    by_name: dict[str, list[list[Entry]]] = defaultdict(list)
    for mine in groups:
        record = mine[0].record
        plain = record.algorithm + (f"+{record.control}" if record.control else "")
        by_name[plain].append(mine)
    found = []
    for plain, alike in by_name.items():
        keys = varied([mine[0] for mine in alike])
        for mine in alike:
            shown = " ".join(f"{last(key)}={mine[0].settings.get(key)}" for key in keys)
            found.append(Entrant(f"{plain} {shown}".rstrip(), mine))
    return sorted(found, key=lambda entrant: entrant.name)


def varied(entries: Sequence[Entry]) -> list[str]:
    """Settings in which they differ."""
    keys = sorted({key for entry in entries for key in entry.settings})
    return [key for key in keys if len({repr(entry.settings.get(key)) for entry in entries}) > 1]


def last(key: str) -> str:
    return key.rpartition(".")[2]
