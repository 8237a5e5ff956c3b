"""Starts this machine's ranks, hands signals on to them, and ends them together.

Not torch's elastic launcher: after a signal it gives ranks 30 s and kills them, however long a
checkpoint takes; it shows a user's mistake as a page of traceback; and it takes seconds to import.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rlvr_zoo.errors import RankError
from rlvr_zoo.launch import report
from rlvr_zoo.launch.machines import Link, Machines, meet
from rlvr_zoo.launch.verdict import Verdict, judge

_PROGRAM = (sys.executable, "-m", "rlvr_zoo")
_PERIOD_S = 0.1
_SETTLE_S = 3.0
"""After the first trouble, ranks have this long to say what they know and to end by themselves."""
_SAVE_S = 900.0
"""The same after an interruption, where one rank may still write what the others are done with."""
_HURRY_S = 10.0
"""The same after a second Ctrl-C."""
_GRACE_S = 10.0
"""Between SIGTERM and SIGKILL, for ranks that did not end by themselves."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this machine's ranks are among all of them."""

    num_processes: int
    """Ranks on this machine."""
    first_rank: int = 0
    world_size: int
    address: str = "127.0.0.1"
    port: int
    """Where the first rank listens."""

    def environment(self, local_rank: int) -> dict[str, str]:
        """What torch and accelerate read."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
        threads = str(max(1, cores // self.num_processes))
        return {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads),
            "RANK": str(self.first_rank + local_rank),
            "LOCAL_RANK": str(local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.num_processes),
            "MASTER_ADDR": self.address,
            "MASTER_PORT": str(self.port),
        }


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


class Supervisor:
    """This machine's ranks, from their start to their end."""

    def __init__(self, command: Sequence[str], place: Place, link: Link | None) -> None:
        """`link` is the way to the launchers of other machines."""
        self._command, self._place, self._link = command, place, link
        self._ranks: dict[int, subprocess.Popen[bytes]] = {}
        self._ended: set[int] = set()
        self._signals: list[int] = []
        self._num_signals = 0
        self._remote: list[Verdict] = []

    def run(self) -> int:
        """Exit code of the whole launch; 0 where every rank here and elsewhere ended well."""
        with tempfile.TemporaryDirectory(prefix="rlvr-zoo-launch-") as folder, self._noting():
            self._folder = Path(folder)
            try:
                self._start()
                self._watch()
            finally:
                self._kill()
            verdicts = self._verdicts()
        verdict = verdicts[0] if verdicts else None
        if self._link is not None:
            self._link.tell(None if verdict in self._remote else verdict, done=True)
        if verdict is None:
            return 0
        if verdict.text:
            print(verdict.text, file=sys.stderr)
        return verdict.code

    # ----------------------------------------------------------------- ranks

    def _start(self) -> None:
        for local in range(self._place.num_processes):
            own = {**self._place.environment(local), **report.environment(self._folder)}
            self._ranks[self._place.first_rank + local] = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                env={**os.environ, **own},
                start_new_session=True,  # Ctrl-C comes to the ranks through here, once
            )

    def _watch(self) -> None:
        """Until every rank has ended, by itself or not."""
        trouble_s: float | None = None
        while self._alive():
            self._hand_on()
            self._listen()
            now = time.monotonic()
            if (verdicts := self._verdicts()) and trouble_s is None:
                trouble_s = now
                self._tell(verdicts[0])
            if trouble_s is not None:
                late_s = now - trouble_s - self._patience_s(verdicts)
                if late_s > _GRACE_S:
                    self._kill()
                elif late_s > 0:
                    self._terminate()
            time.sleep(_PERIOD_S)
        self._listen_to_the_end()

    def _patience_s(self, verdicts: Sequence[Verdict]) -> float:
        if verdicts[0].cause != "stopped":
            return _SETTLE_S
        if not any(self._folder.glob("ready-*")):  # no rank has anything to save yet
            return _SETTLE_S
        return _SAVE_S if self._num_signals < 2 else _HURRY_S

    def _alive(self) -> list[int]:
        return [rank for rank, process in self._ranks.items() if process.poll() is None]

    def _terminate(self) -> None:
        for rank in self._alive():
            if rank not in self._ended:
                self._ended.add(rank)
                self._ranks[rank].terminate()

    def _kill(self) -> None:
        for rank in self._alive():
            self._ended.add(rank)
            self._ranks[rank].kill()
            self._ranks[rank].wait()

    def _verdicts(self) -> list[Verdict]:
        codes = {rank: process.returncode or 0 for rank, process in self._ranks.items()}
        here = judge(codes, report.read(self._folder), self._ended)
        return sorted([*here, *self._remote], key=lambda verdict: verdict.order)

    # ----------------------------------------------------------------- signals

    @contextmanager
    def _noting(self) -> Iterator[None]:
        def note(number: int, frame: FrameType | None) -> None:
            self._signals.append(number)

        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # under nohup it stays ignored
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hand_on(self) -> None:
        """Signals that came since, to every rank; a terminal that closes asks ranks to end."""
        while self._signals:
            number = self._signals.pop(0)
            self._num_signals += 1
            for rank in self._alive():
                process = self._ranks[rank]
                process.send_signal(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)

    # ----------------------------------------------------------------- other machines

    def _tell(self, verdict: Verdict) -> None:
        """Lets other machines know at once; after an interruption, their ranks know already."""
        if self._link is not None and verdict.cause != "stopped" and verdict not in self._remote:
            self._link.tell(verdict, done=False)

    def _listen(self) -> None:
        if self._link is not None:
            self._remote += self._link.heard()

    def _listen_to_the_end(self) -> None:
        """What other machines say of the same trouble, which may explain it better."""
        deadline = time.monotonic() + _SETTLE_S
        while self._link is not None and self._verdicts() and time.monotonic() < deadline:
            self._listen()
            time.sleep(_PERIOD_S)


def launch(arguments: Sequence[str], num_processes: int, machines: Machines | None) -> int:
    """Runs `rlvr-zoo` with these arguments as so many ranks on this machine; its exit code.

    Raises RankError where machines do not come together, or from within a rank.
    """
    if "RANK" in os.environ or "WORLD_SIZE" in os.environ:
        raise RankError(
            "--num-processes: this process is one of several already (RANK or WORLD_SIZE is set);"
            " leave the option out under torchrun or accelerate launch, or unset them"
        )
    port = free_port()
    if machines is None:
        place, link = Place(num_processes=num_processes, world_size=num_processes, port=port), None
    else:
        agreed = meet(machines, num_processes, port)
        link = agreed.link
        place = Place(
            num_processes=num_processes,
            first_rank=agreed.first_rank,
            world_size=agreed.world_size,
            address=machines.host,
            port=agreed.port,
        )
    return Supervisor([*_PROGRAM, *arguments], place, link).run()
