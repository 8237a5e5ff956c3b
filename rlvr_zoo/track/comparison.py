"""A comparison's or a sweep's folder: its plan, comparison.json, and runs/ENTRANT/seed-N/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.reader import CONFIG

PLAN = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """An algorithm with its settings; its runs are in a folder of its name."""

    name: str
    algo: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What comparison.json says."""

    schema: Literal[1]
    kind: Literal["compare", "sweep"]
    id: str
    command: str = ""
    protocol: str = ""
    entrants: tuple[Entrant, ...]
    seeds: tuple[int, ...]

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
            raise RunFolderError(f"{path}: damaged ({where}: {first['msg']})") from error

    @property
    def runs(self) -> frozenset[tuple[str, int]]:
        """(entrant, seed) of every run that the plan asks for."""
        return frozenset((each.name, seed) for each in self.entrants for seed in self.seeds)


_ADAPTER = TypeAdapter(Comparison)


def run_folder(comparison: Path, entrant: str, seed: int) -> Path:
    """Where a comparison keeps one run."""
    return comparison / "runs" / entrant / f"seed-{seed}"


def run_folders(comparison: Path) -> list[Path]:
    """Every run that the folder holds, also those that are in no plan."""
    return sorted(each.parent for each in comparison.glob(f"runs/*/*/{CONFIG}"))


def folder_of(run: Path) -> Path | None:
    """The comparison's folder that the run's lies in; None where it lies in none."""
    run = run.resolve()
    above = run.parents[2] if len(run.parents) > 2 else None
    if above is None or run.parent.parent.name != "runs" or not (above / PLAN).is_file():
        return None
    return above
