"""How a tracker is reached, and what is said where it is not."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlvr_zoo.errors import RlvrZooError
from rlvr_zoo.track import database

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

DEFAULT_URI = "sqlite:///mlflow.db"
DEFAULT_EXPERIMENT = "rlvr-zoo"
LOCK = ".mlflow.lock"
_PAGE = 1000
_SETTINGS = {
    # What is lost in one try is sent in the next: so no try may take minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # A run tells nobody but the tracker that the user named.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Of every run that ends, and progress bars: standard output is our commands'.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}


class TrackerError(RlvrZooError, ConnectionError):
    """The tracker cannot be reached, or refuses the run; the run's folder is whole."""


class BusyError(TrackerError):
    """Another process is sending the same folder."""


@contextmanager
def tracker(uri: str, way_out: str) -> Iterator[None]:
    """Turns whatever mlflow raises in the block into a TrackerError of one line."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except RlvrZooError:
        raise
    except ModuleNotFoundError as error:
        raise TrackerError(f"{error.name} is not installed; install it, and {way_out}") from error
    # mlflow passes on whatever its stores raise: requests', sqlalchemy's, drivers' own exceptions.
    except Exception as error:
        cause = without_secrets(" ".join(str(_root(error)).split()))[:200]
        shown = without_secrets(uri)
        raise TrackerError(f"MLflow at {shown} failed ({cause}); {way_out}") from error


def connect(uri: str, make: bool = True) -> MlflowClient:
    """A client of the tracker, whose local database is made where there is none.

    Raises TrackerError where it must not be made and is not there.
    """
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets levels of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if make:
        database.ensure(uri, lambda new: MlflowClient(tracking_uri=new).search_experiments())
    elif database.is_missing(uri):
        raise TrackerError(f"{uri}: there is no such database; check the path")
    return MlflowClient(tracking_uri=uri)


def experiment_id(client: MlflowClient, name: str) -> str:
    """The experiment of that name, unless MLFLOW_EXPERIMENT_NAME names another; made if need be."""
    from mlflow.exceptions import MlflowException

    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or name or DEFAULT_EXPERIMENT
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)  # another run was faster
            if found is None:
                raise error
    return str(found.experiment_id)


def runs_with(
    client: MlflowClient, experiment_ids: list[str], tags: Mapping[str, str]
) -> list[Run]:
    """All runs that have those tags, the oldest first.

    Raises TrackerError for a value that MLflow's filters cannot express.
    """
    for value in tags.values():
        if "'" in value:
            raise TrackerError(f"MLflow cannot search for {value!r}: leave out the quote")
    query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found: list[Run] = []
    token: str | None = None
    while True:
        page = client.search_runs(experiment_ids, query, max_results=_PAGE, page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def without_secrets(text: str) -> str:
    """The text with user names and passwords taken out of its URIs."""
    return re.sub(r"//[^/\s]*@", "//", text)


def _root(error: BaseException) -> BaseException:
    """The system's own word (`Connection refused`, `timed out`) where there is one beneath."""
    root, beneath = error, error.__cause__ or error.__context__
    while beneath is not None:
        if isinstance(beneath, OSError):
            root = beneath
        beneath = beneath.__cause__ or beneath.__context__
    return root
