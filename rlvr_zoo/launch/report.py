"""How a rank ends: what it tells the launcher, or says itself where another program started it."""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import sys
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["error", "fault", "lost"]
"""What a user can put right; what is our fault; another rank that did not answer."""

REPORTS = "RLVR_ZOO_REPORTS"
"""Environment variable: the folder in which the ranks of our own launcher report."""
_PARENT = "RLVR_ZOO_LAUNCHER"

_PATIENCE_S = 10.0
"""How long a rank waits for the launcher that started it to end it, before it speaks itself."""
_LOST = re.compile(
    r"gloo/|NCCL|ProcessGroup|TCPStore|Connection (closed|reset) by peer|Broken pipe"
    r"|Timed out waiting",
)
_PR_SET_PDEATHSIG = 1

_folder: Path | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The end of a rank that did not do what it should."""

    rank: int
    kind: Kind
    text: str
    """One line; of a fault, its traceback."""
    time_s: float
    """Seconds since 1970."""


def rank() -> int:
    """This process's number among all of a launch; 0 where it is alone."""
    return int(os.environ.get("RANK", "0"))


def is_rank() -> bool:
    """True in a process that a launcher, ours or another, started as one of several."""
    return "RANK" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_supervised() -> bool:
    """True in a rank that our own launcher started."""
    return _folder is not None


def adopt() -> None:
    """Makes a process that our launcher started its rank: it reports there, and does not outlive
    it.  The variables that say so are not handed on to children, who are no ranks."""
    global _folder
    folder, parent = os.environ.pop(REPORTS, ""), os.environ.pop(_PARENT, "")
    if not folder:
        return
    _folder = Path(folder)
    if sys.platform == "linux":  # a launcher that is killed can forward no signal
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if parent and os.getppid() != int(parent):
            os.kill(os.getpid(), signal.SIGTERM)


def environment(folder: Path) -> dict[str, str]:
    """What `adopt` reads."""
    return {REPORTS: str(folder), _PARENT: str(os.getpid())}


def ready() -> None:
    """Tells the launcher that from now on there is work that a rank may want to save."""
    if _folder is not None:
        (_folder / f"ready-{rank()}").touch()


def user_error(error: Exception) -> None:
    """Says in one line what a user can put right; of several ranks, one says it."""
    line = f"rlvr-zoo: error: {error}"
    if _folder is not None:
        _write(_folder, "lost" if _lost_another(error.__cause__) else "error", str(error))
    elif rank() == 0:
        print(line, file=sys.stderr)
    else:
        _await_the_launcher()
        print(f"rlvr-zoo: error: rank {rank()}: {error}", file=sys.stderr)


def fault(error: Exception) -> None:
    """Shows a traceback, with the rank that it is of, unless the error is another rank's."""
    text = "".join(traceback.format_exception(error)).rstrip()
    lost = _lost_another(error)
    if _folder is not None:
        _write(_folder, "lost" if lost else "fault", _last_line(text) if lost else text)
        return
    if lost:
        _await_the_launcher()
    print(f"rlvr-zoo: rank {rank()} failed\n{text}", file=sys.stderr)


def read(folder: Path) -> list[Report]:
    """What ranks have reported so far."""
    return [Report(**json.loads(path.read_text())) for path in sorted(folder.glob("rank-*.json"))]


def _write(folder: Path, kind: Kind, text: str) -> None:
    report = Report(rank=rank(), kind=kind, text=text, time_s=time.time())
    partial = folder / f".rank-{report.rank}"
    try:
        partial.write_text(json.dumps(asdict(report)))
        partial.rename(folder / f"rank-{report.rank}.json")
    except OSError:  # the disk is full, or the launcher is gone: then nobody else will say it
        print(f"rlvr-zoo: error: rank {report.rank}: {text}", file=sys.stderr)


def _await_the_launcher() -> None:
    """Until the launcher ends this rank, whose peer has spoken, or for a while."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(_PATIENCE_S)


def _lost_another(error: BaseException | None) -> bool:
    """True where a collective failed: it is another rank that did."""
    if error is None:
        return False
    names = {kind.__name__ for kind in type(error).__mro__}
    said = isinstance(error, RuntimeError) and _LOST.search(str(error)) is not None
    return "DistError" in names or said or _lost_another(error.__cause__)


def _last_line(text: str) -> str:
    return text.splitlines()[-1]
