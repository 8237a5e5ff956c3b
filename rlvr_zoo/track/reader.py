"""Reading a run's folder, also while another process writes it.  The layout is in `folder`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.lines import read_lines
from rlvr_zoo.track.record import EvaluationRecord, RunRecord
from rlvr_zoo.track.storage import Lock

CONFIG = "config.yaml"
METRICS = "metrics.jsonl"
SAMPLES = "samples.jsonl"
ROLLOUTS = "rollouts.jsonl"
EVALUATIONS = "evaluations.jsonl"
RECORD = "record.json"
CHECKPOINTS = "checkpoints"
SUITES = "suites"
LOCK = ".lock"

Row = TypeVar("Row")


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """A line of metrics.jsonl."""

    step: int
    time: float
    """Seconds since 1970."""
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A line of samples.jsonl, or of a suite's file: a rollout that was kept, with its verdict."""

    step: int
    problem: str
    """The problem's id."""
    prompt: str
    completion: str
    extracted: str
    correct: bool
    method: str
    verdict_problem: str
    """`Verdict.problem`: why no honest verdict could be had; else empty."""
    num_tokens: int
    truncated: bool
    sample: int = 0
    """Its number among the samples of its problem."""


@dataclass(frozen=True, kw_only=True)
class RolloutLine:
    """A line of rollouts.jsonl: a rollout as the engine gave it, and the seed it came of."""

    step: int
    seed: int
    ids: tuple[int, ...]
    logp: tuple[float, ...]
    truncated: bool


def suites_folder(run: Path, step: int) -> Path:
    """Where the samples of the suites measured after a step are kept."""
    return run / SUITES / f"step-{step:08d}"


class RunReader:
    """Reads a run's folder, also while another process writes it."""

    def __init__(self, path: Path) -> None:
        """Raises RunFolderError where the folder holds no run."""
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise RunFolderError(f"{path}: holds no run ({CONFIG} is missing)")

    def config(self) -> dict[str, Any]:
        """The resolved configuration.  Raises RunFolderError."""
        path = self.path / CONFIG
        try:
            value = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            cause = " ".join(str(error).split())
            raise RunFolderError(f"{path}: cannot be read ({cause})") from error
        if not isinstance(value, dict):
            raise RunFolderError(f"{path}: is no mapping")
        return value

    def record(self) -> RunRecord:
        """The newest record.  Raises RunFolderError where it is missing or damaged."""
        return RunRecord.read(self.path / RECORD)

    def has_record(self) -> bool:
        """False for a run that ended before it wrote its first record."""
        return (self.path / RECORD).is_file()

    def metrics(self) -> Iterator[Metrics]:
        """Whole lines of metrics.jsonl.  Raises RunFolderError for a damaged one."""
        return (line for _, line in self.metrics_from(0))

    def metrics_from(self, start: int) -> Iterator[tuple[int, Metrics]]:
        """The same from byte `start` on, each with the byte at which it ends."""
        return rows(self.path / METRICS, Metrics, start)

    def samples(self) -> Iterator[Sample]:
        """Whole lines of samples.jsonl.  Raises RunFolderError for a damaged one."""
        return (line for _, line in rows(self.path / SAMPLES, Sample))

    def rollouts(self) -> Iterator[RolloutLine]:
        """Whole lines of rollouts.jsonl.  Raises RunFolderError for a damaged one."""
        return (line for _, line in rows(self.path / ROLLOUTS, RolloutLine))

    def evaluations(self) -> Iterator[EvaluationRecord]:
        """Whole lines of evaluations.jsonl.  Raises RunFolderError for a damaged one."""
        return (line for _, line in rows(self.path / EVALUATIONS, EvaluationRecord))

    def is_alive(self) -> bool:
        """True while a process holds the folder for writing."""
        lock = Lock.acquire(self.path / LOCK)
        if lock is None:
            return True
        lock.release()
        return False


def rows(path: Path, kind: type[Row], start: int = 0) -> Iterator[tuple[int, Row]]:
    """Whole lines of a file from byte `start` on, each with the byte at which it ends.

    Raises RunFolderError for a damaged one.
    """
    adapter = TypeAdapter(kind)
    for end, line in read_lines(path, start):
        try:
            yield end, adapter.validate_python(line)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RunFolderError(
                f"{path}: damaged line before byte {end} ({where}: {first['msg']}); remove it if"
                " it can be done without, or start anew with another --output"
            ) from error
