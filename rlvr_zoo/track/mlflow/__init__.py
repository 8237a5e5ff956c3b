"""MLflow as a replay of folders: whatever a folder has and the tracker lacks is sent.

The only place that imports mlflow, and only inside functions.  It uses MlflowClient, not the fluent
API, whose exit hook marks any run FINISHED.

    comparison            name: its id; tags: protocol, digest, kind; params: the protocol's
    └── run               an entrant and a seed; metrics by step, the folder's files
        └── evaluation    of a suite, or of held-out problems before and after training
"""

from rlvr_zoo.track.mlflow.comparison import SyncedComparison, sync_comparison
from rlvr_zoo.track.mlflow.connection import BusyError, TrackerError
from rlvr_zoo.track.mlflow.fetch import Fetched, fetch
from rlvr_zoo.track.mlflow.run import Synced, sync

__all__ = [
    "BusyError",
    "Fetched",
    "Synced",
    "SyncedComparison",
    "TrackerError",
    "fetch",
    "sync",
    "sync_comparison",
]
