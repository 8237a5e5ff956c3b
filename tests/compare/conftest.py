"""Runs that end as they are told to, in no time."""

from collections.abc import Callable
from dataclasses import asdict

from rlvr_zoo.compare.comparison import Cell
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.record import EvaluationRecord, RunRecord, Status


def finish(cell: Cell, accuracy: float = 0.5, status: Status = "finished") -> None:
    """Leaves the folder of a run that ended so."""
    step = cell.config.train.max_steps
    ends = [
        EvaluationRecord(
            step=step, accuracy=accuracy, low=0.0, high=1.0, num_problems=4, num_samples=1
        )
    ]
    record = RunRecord(
        config=asdict(cell.config),
        protocol=cell.config.protocol,
        protocol_digest="d",
        algorithm=cell.config.algo,
        seed=cell.config.seed,
        status=status,
        evaluations=tuple(ends),
    )
    with RunFolder.create(cell.path, asdict(cell.config)) as folder:
        folder.write_record(record)


def finisher(score: Callable[[Cell], float]) -> Callable[[list[Cell]], None]:
    """Finishes every cell with the accuracy that `score` gives it."""

    def run(cells: list[Cell]) -> None:
        for cell in cells:
            finish(cell, score(cell))

    return run
