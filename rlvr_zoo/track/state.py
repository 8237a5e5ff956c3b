"""What a tracker has been sent of a run: `mlflow.json` in its folder.  Knows no tracker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.storage import write_atomically

STATE = "mlflow.json"


@dataclass(frozen=True, kw_only=True)
class MirrorState:
    """One tracker's copy of one run."""

    tracking_uri: str
    """Without user name and password."""
    key: str
    """A random tag on the tracker's run, by which it is found when its id was lost."""
    experiment_id: str = ""
    run_id: str = ""
    parent_id: str = ""
    """The tracker's run of the comparison that this run belongs to."""
    params_sent: bool = False
    dataset_sent: bool = False
    tags: Mapping[str, str] = field(default_factory=dict)
    """Tags as they were last sent."""
    metrics_bytes: int = 0
    """How much of metrics.jsonl was sent."""
    last_step: int = -1
    """The step of the last metrics sent; for readers, `metrics_bytes` is what counts."""
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """File -> SHA-256 of the content that was sent."""
    status: str = ""
    """The tracker's status of the run as last sent."""

    @staticmethod
    def load(folder: Path) -> MirrorState | None:
        """None where nothing was ever sent.  Raises RunFolderError for a damaged file."""
        path = folder / STATE
        if not path.exists():
            return None
        try:
            return _ADAPTER.validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise RunFolderError(
                f"{path}: damaged; delete it to send the run anew, as another run of the tracker"
            ) from error

    def save(self, folder: Path) -> None:
        """Raises StorageError."""
        write_atomically(folder / STATE, _ADAPTER.dump_json(self, indent=1) + b"\n")

    @staticmethod
    def rewind(folder: Path, metrics_bytes: int) -> None:
        """Lets lines beyond that byte be sent again, for they are about to be written anew."""
        state = MirrorState.load(folder)
        if state is not None and state.metrics_bytes > metrics_bytes:
            replace(state, metrics_bytes=metrics_bytes).save(folder)


_ADAPTER = TypeAdapter(MirrorState)
