"""Runs brought back from a tracker, as the folders that they were sent from."""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track import database
from rlvr_zoo.track.comparison import PLAN, Comparison, run_folder
from rlvr_zoo.track.mlflow.connection import (
    TrackerError,
    connect,
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
    PARENT,
    SEED,
)
from rlvr_zoo.track.reader import CONFIG, EVALUATIONS, METRICS, RECORD, RunReader
from rlvr_zoo.track.state import MirrorState
from rlvr_zoo.track.storage import storage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_WANTED = (CONFIG, RECORD, METRICS, EVALUATIONS)
_NEEDED = (CONFIG, RECORD)
_WAY_OUT = "check the URI, and that the tracker runs"
_FILES = TypeAdapter(dict[str, str])


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What one `fetch` brought."""

    runs: tuple[Path, ...]
    """Folders of runs, each with the mlflow.json that says where it came from."""
    left_out: tuple[tuple[str, str], ...]
    """Ids of the tracker's runs that are not whole, and why."""


def fetch(uri: str, out: Path, *, digest: str = "", comparison: str = "") -> Fetched:
    """Brings runs into the new folder `out`: all, those of a comparison, or of a protocol.

    A comparison's are in OUT/ID/runs/ENTRANT/seed-N with OUT/ID/comparison.json, others in
    OUT/RUN_ID.  Each file is what was sent, by its SHA-256; samples stay on the tracker.

    Raises TrackerError, RunFolderError where `out` holds something, or StorageError.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunFolderError(f"{out}: holds something already; fetch into a new folder")
    with storage(out):
        out.mkdir(parents=True, exist_ok=True)
    uri = database.absolute(uri)
    with tracker(uri, _WAY_OUT):
        return _Fetch(connect(uri, make=False), uri, out).fetch(digest, comparison)


class _Fetch:
    def __init__(self, client: MlflowClient, uri: str, out: Path) -> None:
        self.client = client
        self.uri = uri
        self.out = out
        self.experiment_ids = _experiments(client)
        self.left_out: list[tuple[str, str]] = []

    def fetch(self, digest: str, comparison: str) -> Fetched:
        tags = {LEVEL: "run", COMPARISON: comparison}
        chosen = {name: value for name, value in tags.items() if value}
        runs = [
            run
            for run in runs_with(self.client, self.experiment_ids, chosen)
            # one that ended before its first record has no digest, and shows nothing
            if DIGEST in run.data.tags and run.data.tags[DIGEST].startswith(digest)
        ]
        for id_ in sorted({run.data.tags.get(COMPARISON, "") for run in runs} - {""}):
            self._plan(id_)
        found = []
        for run in runs:
            path = _place(self.out, run)
            if self._whole(run.info.run_id, path, partial(self._run, run, path)):
                found.append(path)
        return Fetched(runs=tuple(found), left_out=tuple(self.left_out))

    def _whole(self, run_id: str, path: Path, bring: Callable[[], None]) -> bool:
        """Whether `bring` made `path`; else nothing is left of it, and the reason is kept."""
        try:
            with tracker(self.uri, "send it again"):
                bring()
        except (TrackerError, RunFolderError) as error:
            self.client.get_run(run_id)  # where the tracker is gone, no more runs are tried
            shutil.rmtree(path, ignore_errors=True)
            self.left_out.append((run_id, str(error)))
            return False
        return True

    def _plan(self, comparison: str) -> None:
        folder = self.out / _file_name(comparison)
        tags = {COMPARISON: comparison, LEVEL: "comparison"}

        def bring(run_id: str) -> None:
            folder.mkdir()
            self.client.download_artifacts(run_id, PLAN, str(folder))
            Comparison.read(folder)

        for parent in runs_with(self.client, self.experiment_ids, tags):
            run_id = parent.info.run_id
            if self._whole(run_id, folder, partial(bring, run_id)):
                return

    def _run(self, run: Run, path: Path) -> None:
        sent = _files(run)
        path.mkdir(parents=True)
        for name in _WANTED:
            if name not in sent:
                continue
            self.client.download_artifacts(run.info.run_id, name, str(path))
            if hashlib.sha256((path / name).read_bytes()).hexdigest() != sent[name]:
                raise RunFolderError(f"{name} is not what was sent; sync the run's folder again")
        reader = RunReader(path)
        if reader.record().protocol_digest != run.data.tags[DIGEST]:
            raise RunFolderError(f"{RECORD} is of another protocol digest than the run's tag")
        _state(run, self.uri, path, sent).save(path)


def _experiments(client: MlflowClient) -> list[str]:
    found: list[str] = []
    token: str | None = None
    while True:
        page = client.search_experiments(page_token=token)
        found += [each.experiment_id for each in page]
        token = page.token
        if not token:
            return found


def _files(run: Run) -> dict[str, str]:
    """File -> SHA-256 of what the run's folder held when it was last sent whole."""
    try:
        sent = _FILES.validate_json(run.data.tags.get(FILES, "{}"))
    except ValidationError as error:
        raise RunFolderError(f"its tag {FILES} is damaged; sync the run's folder again") from error
    for name in _NEEDED:
        if name not in sent:
            raise RunFolderError(f"{name} was not sent; sync the run's folder when it has ended")
    return sent


def _place(out: Path, run: Run) -> Path:
    """A new folder: a repeated run's has its id behind its name."""
    tags, run_id = run.data.tags, run.info.run_id
    if not tags.get(COMPARISON):
        return out / _file_name(run_id)
    entrant = tags.get(ENTRANT) or tags.get(ALGORITHM, "")
    above = run_folder(out / _file_name(tags[COMPARISON]), _file_name(entrant), 0).parent
    path = above / f"seed-{_file_name(tags.get(SEED, ''))}"
    return path.with_name(f"{path.name}-{run_id}") if path.exists() else path


def _file_name(tag: str) -> str:
    """A tag's value, which anyone may have set, as one name below a folder."""
    return re.sub(r"[/\0]", "_", tag).lstrip(".") or "_"


def _state(run: Run, uri: str, path: Path, sent: dict[str, str]) -> MirrorState:
    """What makes a later sync of the folder send nothing twice."""
    metrics = path / METRICS
    return MirrorState(
        tracking_uri=without_secrets(uri),
        key=run.data.tags.get(KEY, ""),
        experiment_id=run.info.experiment_id,
        run_id=run.info.run_id,
        parent_id=run.data.tags.get(PARENT, ""),
        params_sent=True,
        dataset_sent=True,
        tags={name: value for name, value in run.data.tags.items() if name.startswith("rlvr_zoo.")},
        metrics_bytes=metrics.stat().st_size if metrics.exists() else 0,
        artifacts=sent,
        status=run.info.status,
    )
