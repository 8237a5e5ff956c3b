"""A run's folder, replayed to MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlvr_zoo.track import comparison, database
from rlvr_zoo.track.mlflow import evaluations, parent
from rlvr_zoo.track.mlflow.connection import (
    DEFAULT_URI,
    LOCK,
    BusyError,
    TrackerError,
    connect,
    experiment_id,
    runs_with,
    tracker,
    without_secrets,
)
from rlvr_zoo.track.mlflow.entities import (
    ALGORITHM,
    COMPARISON,
    DIGEST,
    ENTRANT,
    FILES,
    KEY,
    LEVEL,
    MAX_METRICS,
    PARENT,
    PROTOCOL,
    SEED,
    chunks,
    metrics_of,
    send_params,
    send_tags,
)
from rlvr_zoo.track.reader import CONFIG, EVALUATIONS, METRICS, RECORD, SAMPLES, RunReader
from rlvr_zoo.track.record import RunRecord
from rlvr_zoo.track.state import MirrorState
from rlvr_zoo.track.storage import Lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_ARTIFACTS = (CONFIG, RECORD, METRICS, EVALUATIONS, SAMPLES)
_STATUS = {
    "running": "RUNNING",
    "finished": "FINISHED",
    "failed": "FAILED",
    "interrupted": "KILLED",
}
_MAX_DIGEST_CHARS = 36


@dataclass(frozen=True, kw_only=True)
class Synced:
    """What one `sync` sent."""

    tracking_uri: str
    experiment_id: str
    run_id: str
    num_metrics: int
    artifacts: tuple[str, ...]
    status: str
    """The tracker's status of the run: RUNNING, FINISHED, FAILED or KILLED."""


def sync(path: Path, *, live: bool = False, experiment: str = "") -> Synced:
    """Sends what the tracker lacks of the run in that folder; sent things are not sent twice.

    `live` leaves the growing files (record, samples, evaluations) for a later call.  The tracker
    is MLFLOW_TRACKING_URI, else the one that has the run already, else sqlite:///mlflow.db.  The
    experiment is MLFLOW_EXPERIMENT_NAME, else `experiment`, else the run's configuration's.
    A run that calls itself running, but that no process holds, is sent as KILLED.  A comparison's
    run becomes a child of the comparison's; it takes no heed of MLFLOW_RUN_ID, which names one run.

    Raises BusyError, TrackerError, RunFolderError or StorageError.
    """
    reader = RunReader(path)
    lock = Lock.acquire(reader.path / LOCK)
    if lock is None:
        raise BusyError(f"{path}: another process is sending this run to its tracker; wait")
    try:
        config = reader.config()
        comparison_id = _track(config).get("comparison", "")
        own_id = "" if comparison_id else os.environ.get("MLFLOW_RUN_ID", "")
        uri, state = _target(reader.path, own_id)
        with tracker(uri, f"`rlvr-zoo track sync {reader.path}` sends the run later"):
            return _Replay(reader, config, uri, state, experiment, own_id).send(live)
    finally:
        lock.release()


class _Replay:
    """One pass over a run; the state is saved after each thing sent."""

    def __init__(
        self,
        reader: RunReader,
        config: Mapping[str, Any],
        uri: str,
        state: MirrorState,
        experiment: str,
        own_id: str,
    ) -> None:
        self.reader = reader
        self.alive = reader.is_alive()  # asked before the record is read: what died is final
        self.config = config
        self.record = reader.record() if reader.has_record() else None
        self.client: MlflowClient = connect(uri)
        self.state = state
        self.experiment: str = experiment or _track(config).get("experiment", "")
        self.comparison: str = _track(config).get("comparison", "")
        self.own_id = own_id
        self.num_metrics = 0
        self.artifacts: list[str] = []

    def send(self, live: bool) -> Synced:
        if not self.state.run_id:
            self._attach()
        if self.comparison:
            self._join(live)
        if not self.state.params_sent:
            send_params(self.client, self.state.run_id, self.config)
            self._keep(params_sent=True)
        self._tags(_tags_of(self.record, self.reader.path, self.comparison))
        self._dataset()
        self._metrics()
        for name in (CONFIG,) if live else _ARTIFACTS:
            self._artifact(name)
        if not live:
            self._tags({FILES: json.dumps(dict(self.state.artifacts), sort_keys=True)})
            self._evaluations()
        self._terminate()
        return Synced(
            tracking_uri=self.state.tracking_uri,
            experiment_id=self.state.experiment_id,
            run_id=self.state.run_id,
            num_metrics=self.num_metrics,
            artifacts=tuple(self.artifacts),
            status=self.state.status,
        )

    def _keep(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)
        self.state.save(self.reader.path)

    def _attach(self) -> None:
        """Finds the run on the tracker, or makes it."""
        if self.own_id:
            info = self.client.get_run(self.own_id).info
            self._keep(run_id=self.own_id, experiment_id=info.experiment_id)
            return
        if self.state.experiment_id:
            # An earlier try got this far, and perhaps made the run but never heard of it.
            lost = runs_with(self.client, [self.state.experiment_id], {KEY: self.state.key})
            if lost:
                self._keep(run_id=lost[0].info.run_id)
                return
        else:
            self._keep(experiment_id=experiment_id(self.client, self.experiment))
        first = next(self.reader.metrics(), None)
        run = self.client.create_run(
            self.state.experiment_id,
            start_time=int(first.time * 1000) if first else None,
            tags={KEY: self.state.key, LEVEL: "run"},
            run_name=_name(self.reader.path),
        )
        self._keep(run_id=run.info.run_id, status=run.info.status)

    def _join(self, live: bool) -> None:
        """Makes the run a child of its comparison's, which other runs may be making meanwhile."""
        if live and (self.state.parent_id or self.record is None):
            return
        folder = comparison.folder_of(self.reader.path)
        client, experiment = self.client, self.state.experiment_id
        above = parent.find_or_make(client, experiment, self.comparison, folder)
        if self.record is not None:
            parent.describe(client, above, self.record)
        parent_id = above.info.run_id
        if parent_id != self.state.parent_id:
            self._tags({PARENT: parent_id})
            self._keep(parent_id=parent_id)

    def _tags(self, tags: Mapping[str, str]) -> None:
        new = {key: value for key, value in tags.items() if self.state.tags.get(key) != value}
        if new:
            send_tags(self.client, self.state.run_id, new)
            self._keep(tags={**self.state.tags, **new})

    def _dataset(self) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        if self.state.dataset_sent or self.record is None or not self.record.problems_digest:
            return
        dataset = Dataset(
            name=self.record.problems_source[:500] or "problems",
            digest=self.record.problems_digest[:_MAX_DIGEST_CHARS],
            source_type="rlvr_zoo",
            source=json.dumps({"source": self.record.problems_source}),
        )
        tag = InputTag(key="mlflow.data.context", value="training")
        self.client.log_inputs(self.state.run_id, [DatasetInput(dataset, [tag])])
        self._keep(dataset_sent=True)

    def _metrics(self) -> None:
        waiting: list[Metric] = []
        end, step = self.state.metrics_bytes, self.state.last_step
        for line_end, line in self.reader.metrics_from(end):
            metrics = metrics_of(line.step, line.time, line.metrics)
            if waiting and len(waiting) + len(metrics) > MAX_METRICS:
                self._flush(waiting, end, step)
                waiting = []
            waiting += metrics
            end, step = line_end, line.step
        if end > self.state.metrics_bytes:
            self._flush(waiting, end, step)

    def _flush(self, metrics: list[Metric], end: int, step: int) -> None:
        for batch in chunks(metrics, MAX_METRICS):
            self.client.log_batch(self.state.run_id, metrics=batch)
        self.num_metrics += len(metrics)
        self._keep(metrics_bytes=end, last_step=step)

    def _artifact(self, name: str) -> None:
        path = self.reader.path / name
        if not path.is_file():
            return
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if self.state.artifacts.get(name) != digest:
            self.client.log_artifact(self.state.run_id, str(path))
            self.artifacts.append(name)
            self._keep(artifacts={**self.state.artifacts, name: digest})

    def _evaluations(self) -> None:
        """Sends a comparison's evaluations as runs below this one."""
        if not self.comparison or self.record is None:
            return
        chosen = evaluations.choose(self.reader.evaluations(), self.record.status == "finished")
        evaluations.send(self.client, self.state, self.record, chosen)

    def _terminate(self) -> None:
        """Tells the run's status, be it an end or, after a resumption, an end that is undone."""
        own = self.record.status if self.record else "running"
        status = _STATUS["interrupted" if own == "running" and not self.alive else own]
        if status == self.state.status:
            return
        if status == "RUNNING":
            self.client.update_run(self.state.run_id, status=status)
        else:
            last = 0.0
            for line in self.reader.metrics():
                last = line.time
            end_ms = int(last * 1000) if last else None
            self.client.set_terminated(self.state.run_id, status, end_time=end_ms)
        self._keep(status=status)


def _track(config: Mapping[str, Any]) -> Mapping[str, Any]:
    section = config.get("track")
    return section if isinstance(section, Mapping) else {}


def _name(path: Path) -> str:
    path = path.resolve()
    return f"{path.parent.name}/{path.name}" if comparison.folder_of(path) else path.name


def _tags_of(record: RunRecord | None, path: Path, comparison_id: str) -> dict[str, str]:
    """The tags that the run should have; a resumption with other MLFLOW_TAGS adds to the old."""
    tags = {LEVEL: "run"}
    if comparison_id:
        tags[COMPARISON] = comparison_id
    if comparison_id and comparison.folder_of(path):
        tags[ENTRANT] = path.resolve().parent.name
    if record is not None:
        tags |= {
            PROTOCOL: record.protocol,
            DIGEST: record.protocol_digest,
            ALGORITHM: record.algorithm,
            SEED: str(record.seed),
            "rlvr_zoo.commit": record.code.commit + ("-dirty" if record.code.dirty else ""),
            "rlvr_zoo.status": record.status,
        }
    return tags | _user_tags()


def _user_tags() -> dict[str, str]:
    text = os.environ.get("MLFLOW_TAGS", "")
    try:
        tags = json.loads(text) if text else {}
    except ValueError as error:
        raise TrackerError(f"MLFLOW_TAGS is no JSON ({error}): {text[:80]}") from error
    if not isinstance(tags, dict):
        raise TrackerError(f"MLFLOW_TAGS is no JSON object: {text[:80]}")
    return {str(key): str(value) for key, value in tags.items()}


def _target(folder: Path, own_id: str) -> tuple[str, MirrorState]:
    """The tracker's URI, and what it has of the run: nothing where it is another than last time."""
    old = MirrorState.load(folder)
    uri = os.environ.get("MLFLOW_TRACKING_URI") or (old.tracking_uri if old else DEFAULT_URI)
    uri = database.absolute(uri)
    shown = without_secrets(uri)
    if old is None or old.tracking_uri != shown or (own_id and old.run_id not in ("", own_id)):
        return uri, MirrorState(tracking_uri=shown, key=uuid.uuid4().hex)
    return uri, old
