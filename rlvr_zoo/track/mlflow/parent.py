"""The run that stands for a comparison: one, however many processes make it at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from rlvr_zoo.track.mlflow.connection import runs_with
from rlvr_zoo.track.mlflow.entities import (
    COMPARISON,
    DIGEST,
    LEVEL,
    PARENT,
    PROTOCOL,
    send_params,
    send_tags,
)
from rlvr_zoo.track.record import RunRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_LOCK = ".mlflow-parent.lock"
_LOCK_TIMEOUT_S = 30.0


def find_or_make(
    client: MlflowClient, experiment_id: str, comparison: str, folder: Path | None
) -> Run:
    """The comparison's run in that experiment.

    Processes that share `folder` make it one after the other.  Where those on several machines
    have made several, whoever sees them keeps the oldest, to which it moves the others' children.
    """
    tags = {COMPARISON: comparison, LEVEL: "comparison"}
    found = runs_with(client, [experiment_id], tags)
    if not found:
        with _alone(folder):
            if not runs_with(client, [experiment_id], tags):
                client.create_run(experiment_id, tags=tags, run_name=comparison)
        found = runs_with(client, [experiment_id], tags)
    first, *others = found
    for other in others:
        _move(client, other, first)
    return first


def describe(client: MlflowClient, parent: Run, record: RunRecord) -> None:
    """Gives it the protocol of its first child that has a record; the others' is the same."""
    if DIGEST not in parent.data.tags:
        send_params(client, parent.info.run_id, record.protocol_settings)
        tags = {PROTOCOL: record.protocol, DIGEST: record.protocol_digest}
        send_tags(client, parent.info.run_id, tags)


@contextmanager
def _alone(folder: Path | None) -> Iterator[None]:
    lock = FileLock(folder / _LOCK, timeout=_LOCK_TIMEOUT_S) if folder else None
    try:
        if lock is not None:
            with suppress(Timeout):  # then there may be two for a while
                lock.acquire()
        yield
    finally:
        if lock is not None:
            lock.release()


def _move(client: MlflowClient, parent: Run, to: Run) -> None:
    from mlflow.exceptions import MlflowException

    children = {PARENT: parent.info.run_id}
    for child in runs_with(client, [parent.info.experiment_id], children):
        client.set_tag(child.info.run_id, PARENT, to.info.run_id)
    with suppress(MlflowException):  # another has deleted it meanwhile
        client.delete_run(parent.info.run_id)
