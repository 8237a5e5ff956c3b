"""A comparison's, a sweep's or a tuning's folder, and its plan.

OUT/comparison.json          entrants, seeds, and the settings that all runs share
OUT/runs/ENTRANT/seed-3/     a run's folder
OUT/logs/ENTRANT-seed-3.log  what the run said
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.reader import CONFIG
from rlvr_zoo.track.storage import storage, write_atomically

PLAN, RUNS, LOGS = "comparison.json", "runs", "logs"

Kind = Literal["compare", "sweep"]


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An algorithm with settings of its own."""

    name: str
    algo: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Over the algorithm's preset, by dotted key."""

    @property
    def folder(self) -> str:
        """The name, as a folder may be called."""
        return re.sub(r"[^\w.=+-]+", "_", self.name)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Entrants and seeds under one protocol."""

    schema: Literal[1] = 1
    kind: Kind
    id: str
    command: str = ""
    """What was typed, the first time."""
    protocol: str = ""
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]
    base: Mapping[str, Any] = field(default_factory=dict)
    """Settings that all runs share, as a config file has them."""
    tuning: str = ""
    """How the entrants' settings were chosen, in words; empty: as their presets have them."""

    @classmethod
    def read(cls, folder: Path) -> Comparison:
        """Raises RunFolderError where the folder holds no plan, or a damaged one."""
        path = folder / PLAN
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except OSError as error:
            raise RunFolderError(f"{path}: no comparison to read ({error.strerror})") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "it"
            raise RunFolderError(
                f"{path}: damaged ({where}: {first['msg']}); remove it, and repeat the command"
                " that made it"
            ) from error

    def write(self, folder: Path) -> None:
        """Makes the folder where it is missing.  Raises StorageError."""
        with storage(folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / PLAN, json.dumps(asdict(self), indent=1).encode() + b"\n")

    @property
    def runs(self) -> frozenset[tuple[str, int]]:
        """(entrant's folder, seed) of every run that the plan asks for."""
        return frozenset((each.folder, seed) for each in self.entrants for seed in self.seeds)


_ADAPTER = TypeAdapter(Comparison)


def run_folder(comparison: Path, entrant: str, seed: int) -> Path:
    """Where a comparison keeps one run; `entrant` is its folder's name."""
    return comparison / RUNS / entrant / f"seed-{seed}"


def run_folders(comparison: Path) -> list[Path]:
    """Every run that the folder holds, also those that are in no plan."""
    return sorted(each.parent for each in comparison.glob(f"{RUNS}/*/*/{CONFIG}"))


def folder_of(run: Path) -> Path | None:
    """The comparison's folder that the run's lies in; None where it lies in none."""
    run = run.resolve()
    above = run.parents[2] if len(run.parents) > 2 else None
    if above is None or run.parent.parent.name != RUNS or not (above / PLAN).is_file():
        return None
    return above
