"""MLflow's local database, made whole or not at all.

MLflow makes the tables in some forty migrations, which SQLite does not undo: two runs that start
together, or one that is killed meanwhile, leave a file that no MLflow ever opens again
("table _alembic_tmp_tags already exists").
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

_SCHEME = "sqlite:///"


def absolute(uri: str) -> str:
    """The URI, which for a local database does not depend on the working folder any more."""
    if not uri.startswith(_SCHEME):
        return uri
    return f"{_SCHEME}{Path(uri.removeprefix(_SCHEME)).absolute()}"


def is_missing(uri: str) -> bool:
    """True where the URI names a local database that is not there."""
    return uri.startswith(_SCHEME) and not Path(uri.removeprefix(_SCHEME)).is_file()


def ensure(uri: str, build: Callable[[str], object]) -> None:
    """Makes the local database that the URI names, by `build` of another URI and one renaming.

    Does nothing for an existing one, or another kind of tracker.  Raises OSError.
    """
    path = Path(uri.removeprefix(_SCHEME))
    if not uri.startswith(_SCHEME) or path.exists() or not path.parent.is_dir():
        return
    beside = path.with_name(f".{path.name}.lock")
    lock = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait: they need the database, too
        if not path.exists():
            unfinished = path.with_name(f".{path.name}.new")
            unfinished.unlink(missing_ok=True)
            build(f"{_SCHEME}{unfinished}")
            os.replace(unfinished, path)
    finally:
        os.close(lock)
