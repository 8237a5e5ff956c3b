"""A comparison's folder, replayed to MLflow."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track import database
from rlvr_zoo.track.comparison import PLAN, Comparison, run_folders
from rlvr_zoo.track.mlflow import parent
from rlvr_zoo.track.mlflow.connection import (
    DEFAULT_URI,
    LOCK,
    BusyError,
    connect,
    experiment_id,
    runs_with,
    tracker,
    without_secrets,
)
from rlvr_zoo.track.mlflow.entities import ALGORITHM, ENTRANT, KIND, LEVEL, PARENT, SEED, send_tags
from rlvr_zoo.track.mlflow.run import Synced, sync
from rlvr_zoo.track.state import MirrorState
from rlvr_zoo.track.storage import Lock

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True, kw_only=True)
class SyncedComparison:
    """What one `sync_comparison` found and sent."""

    tracking_uri: str
    run_id: str
    status: str
    """FINISHED once the tracker has every planned run as FINISHED; else RUNNING."""
    num_missing: int
    """Planned runs that the tracker has not, or not as FINISHED."""
    runs: tuple[Synced, ...]
    not_sent: tuple[tuple[Path, str], ...]
    """Folders of runs that were not sent, and why."""


def sync_comparison(folder: Path, *, experiment: str = "") -> SyncedComparison:
    """Sends what the tracker lacks of a comparison and of all its runs in that folder.

    A run that another process is sending just now, or that is damaged, is left out and named.
    The tracker and the experiment are found as `sync` finds them, or are those of the runs.
    Children may come from several machines: the tracker's are counted.

    Raises BusyError, TrackerError, RunFolderError or StorageError.
    """
    plan = Comparison.read(folder)
    lock = Lock.acquire(folder / LOCK)
    if lock is None:
        raise BusyError(f"{folder}: another process is sending this comparison; wait")
    try:
        runs, not_sent = _sync_runs(folder, experiment)
        uri, state = _target(folder, plan, runs)
        with tracker(uri, f"`rlvr-zoo track sync {folder}` sends the comparison later"):
            state, num_missing = _send(folder, plan, uri, state, experiment)
    finally:
        lock.release()
    return SyncedComparison(
        tracking_uri=state.tracking_uri,
        run_id=state.run_id,
        status=state.status,
        num_missing=num_missing,
        runs=tuple(runs),
        not_sent=tuple(not_sent),
    )


def _sync_runs(folder: Path, experiment: str) -> tuple[list[Synced], list[tuple[Path, str]]]:
    runs: list[Synced] = []
    not_sent: list[tuple[Path, str]] = []
    for path in run_folders(folder):
        try:
            runs.append(sync(path, experiment=experiment))
        except (BusyError, RunFolderError) as error:
            not_sent.append((path, str(error)))
    return runs, not_sent


def _target(folder: Path, plan: Comparison, runs: Sequence[Synced]) -> tuple[str, MirrorState]:
    """The tracker's URI, and what it has of the comparison's own run."""
    old = MirrorState.load(folder)
    known = [old.tracking_uri] if old else [each.tracking_uri for each in runs]
    uri = database.absolute(os.environ.get("MLFLOW_TRACKING_URI") or next(iter(known), DEFAULT_URI))
    shown = without_secrets(uri)
    if old is None or old.tracking_uri != shown or old.key != plan.id:
        old = MirrorState(tracking_uri=shown, key=plan.id)
    homes = [each.experiment_id for each in runs if each.tracking_uri == shown]
    return uri, replace(old, experiment_id=old.experiment_id or next(iter(homes), ""))


def _send(
    folder: Path, plan: Comparison, uri: str, state: MirrorState, experiment: str
) -> tuple[MirrorState, int]:
    """The state as saved, and the number of planned runs that are not FINISHED."""
    client = connect(uri)
    home = state.experiment_id or experiment_id(client, experiment)
    own = parent.find_or_make(client, home, plan.id, folder)
    run_id = own.info.run_id
    if run_id != state.run_id:
        state = replace(state, experiment_id=home, run_id=run_id, artifacts={})
    if own.data.tags.get(KIND) != plan.kind:
        send_tags(client, run_id, {KIND: plan.kind})
    content = hashlib.sha256((folder / PLAN).read_bytes()).hexdigest()
    if state.artifacts.get(PLAN) != content:
        client.log_artifact(run_id, str(folder / PLAN))
        state = replace(state, artifacts={PLAN: content})
    children = runs_with(client, [home], {PARENT: run_id, LEVEL: "run"})
    missing = plan.runs - {_place(each) for each in children if each.info.status == "FINISHED"}
    status = "RUNNING" if missing else "FINISHED"
    if own.info.status != status and missing:
        client.update_run(run_id, status=status)
    elif own.info.status != status:
        last = max((each.info.end_time or 0 for each in children), default=0)
        client.set_terminated(run_id, status, end_time=last or None)
    state = replace(state, status=status)
    state.save(folder)
    return state, len(missing)


def _place(run: Run) -> tuple[str, int]:
    tags = run.data.tags
    seed = tags.get(SEED, "")
    return tags.get(ENTRANT) or tags.get(ALGORITHM, ""), int(seed) if seed.isdecimal() else -1
