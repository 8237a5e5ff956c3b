"""Why a launch ended: of all that its ranks have to say, the one thing that caused the rest."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rlvr_zoo.launch.report import Report
from rlvr_zoo.launch.signals import EXIT_CODES

Cause = Literal["killed", "error", "fault", "stopped", "lost", "unknown"]
_ORDER: tuple[Cause, ...] = ("killed", "error", "fault", "stopped", "lost", "unknown")
"""What comes first explains what comes after it."""

_GO_ON = "the others were stopped; go on with --resume"
_LOST = "waited for another rank in vain: one hangs, or a machine or the network is down"
_HINTS = {
    "SIGKILL": ", as the kernel does where memory runs out (`dmesg` tells)",
    "SIGABRT": ", as NCCL does where a rank waited too long for another",
    "SIGBUS": ", as happens where /dev/shm is full",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The end of a launch that did not go well, or of a machine's part of it."""

    cause: Cause
    code: int
    """Exit code."""
    text: str = ""
    """What to print; empty where the ranks have said it."""
    rank: int = 0
    time_s: float = 0.0

    @property
    def order(self) -> tuple[int, float, int]:
        """The smaller, the more it explains."""
        return _ORDER.index(self.cause), self.time_s, self.rank


def judge(
    codes: Mapping[int, int], reports: Sequence[Report], ended: Iterable[int]
) -> list[Verdict]:
    """What to make of exit codes (negative: a signal's number) and reports, by rank.

    `ended` are the ranks that the launcher itself ended, which are nobody's fault.
    """
    found = [_of_report(report) for report in _once(reports)]
    spoken, ours = {report.rank for report in reports}, set(ended)
    for rank, code in codes.items():
        if code and rank not in spoken:
            verdict = _of_code(rank, code)
            if rank not in ours or verdict.cause == "unknown":
                found.append(verdict)
    return sorted(found, key=lambda verdict: verdict.order)


def _once(reports: Sequence[Report]) -> list[Report]:
    """What several ranks say alike is the lowest one's, at the time of the first."""
    alike: dict[tuple[str, str], list[Report]] = {}
    for report in reports:
        alike.setdefault((report.kind, report.text), []).append(report)
    return [
        replace(min(same, key=lambda each: each.rank), time_s=min(each.time_s for each in same))
        for same in alike.values()
    ]


def machine_lost(machine: int, why: str) -> Verdict:
    """A machine whose launcher does not answer any more."""
    text = f"rlvr-zoo: error: machine {machine} is gone ({why}); {_GO_ON} on every machine"
    return Verdict(cause="killed", code=2, text=text)


def _of_report(report: Report) -> Verdict:
    rank = report.rank
    if report.kind == "fault":
        code, text = 1, f"rlvr-zoo: rank {rank} failed\n{report.text}"
    elif report.kind == "lost":
        code, text = 2, f"rlvr-zoo: error: rank {rank} {_LOST} ({report.text[:200]}); {_GO_ON}"
    else:
        who = f"rank {rank}: " if rank else ""
        code, text = 2, f"rlvr-zoo: error: {who}{report.text}"
    return Verdict(cause=report.kind, code=code, text=text, rank=rank, time_s=report.time_s)


def _of_code(rank: int, code: int) -> Verdict:
    if code in EXIT_CODES.values():
        return Verdict(cause="stopped", code=code, rank=rank)
    if code > 0:
        text = f"rlvr-zoo: error: rank {rank} ended with exit code {code}; {_GO_ON}"
        return Verdict(cause="unknown", code=code, text=text, rank=rank)
    name = signal.Signals(-code).name
    if name in EXIT_CODES:  # before the rank could see to it
        return Verdict(cause="stopped", code=EXIT_CODES[name], rank=rank)
    text = f"rlvr-zoo: error: rank {rank} was ended by {name}{_HINTS.get(name, '')}; {_GO_ON}"
    return Verdict(cause="killed", code=2, text=text, rank=rank)
