"""Runs the cells of a comparison, as many at once as there is room for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, Protocol

from rlvr_zoo.compare.child import Order, work
from rlvr_zoo.compare.comparison import Cell
from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.launch.signals import ECHO_S, EXIT_CODES, signal_of
from rlvr_zoo.protocol import HARMLESS, differences, without
from rlvr_zoo.track.reader import CONFIG, RunReader

_PRELOADED = ["rlvr_zoo.compare.preload"]

Standing = Literal["missing", "begun", "busy", "done"]
Result = Literal["done", "failed", "interrupted"]


class Watcher(Protocol):
    """Shows a person how it goes."""

    def skipped(self, cell: Cell) -> None: ...

    def started(self, cell: Cell, resumed: bool) -> None: ...

    def at_step(self, cell: Cell, step: int) -> None: ...

    def ended(self, cell: Cell, result: Result, why: str) -> None: ...


@dataclass(frozen=True)
class Slots:
    """Room for runs at once: which GPUs each has; empty tuples where there are none."""

    gpus: tuple[tuple[int, ...], ...]
    num_processes: int = 1

    @classmethod
    def on(cls, num_gpus: int, num_processes: int, jobs: int | None, threads: int) -> Slots:
        """The room of this machine: its GPUs in parts of `num_processes`, else its cores by the
        threads that a run takes (0: all of them).  `jobs` lowers it, and on CPUs raises it, too."""
        if num_gpus:
            parts = [
                tuple(range(first, first + num_processes))
                for first in range(0, num_gpus - num_processes + 1, num_processes)
            ]
            return cls(tuple(parts[:jobs]), num_processes)
        cores = len(os.sched_getaffinity(0))
        room = max(1, cores // (num_processes * (threads or cores)))
        return cls(((),) * (jobs or room), num_processes)


def standing(cell: Cell) -> Standing:
    """What there is of a run.  Raises RunFolderError where its folder holds another one."""
    if not (cell.path / CONFIG).is_file():
        return "missing"
    reader = RunReader(cell.path)
    changed = differences(
        without(reader.config(), HARMLESS), without(asdict(cell.config), HARMLESS)
    )
    if changed:
        raise RunFolderError(
            f"{cell.path}: holds a run with another {', '.join(changed[:5])}; choose another"
            " --output, or remove that folder"
        )
    if reader.has_record() and reader.record().status == "finished":
        return "done"
    return "busy" if reader.is_alive() else "begun"


@dataclass
class _Running:
    cell: Cell
    process: BaseProcess
    connection: Connection
    gpus: tuple[int, ...]


class Runner:
    """Runs cells to their end; every one in a process of its own, so that none can harm another."""

    def __init__(self, slots: Slots, watcher: Watcher) -> None:
        self._free = list(slots.gpus)
        self._num_processes = slots.num_processes
        self._watcher = watcher
        self._running: list[_Running] = []
        self._stopping = False
        self._context: Any
        if any(slots.gpus):  # some packages look for CUDA when they are imported: never fork then
            self._context = multiprocessing.get_context("spawn")
        else:
            # imports torch once, and starts a run in a fraction of a second; it never trains
            # itself, so that a run inherits neither threads nor memory
            self._context = multiprocessing.get_context("forkserver")
            self._context.set_forkserver_preload(_PRELOADED)

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs what is missing or begun.  After Ctrl-C, SIGTERM or a fault every run saves a
        checkpoint, and the interruption is raised again."""
        waiting = deque(cells)
        try:
            while waiting or self._running:
                while waiting and self._free:
                    self._start(waiting.popleft())
                if self._running:
                    self._wait()
        except BaseException:
            self._stop()
            raise

    def _start(self, cell: Cell) -> None:
        try:
            found = standing(cell)
        except RunFolderError as error:  # since the start somebody has changed it
            self._watcher.started(cell, False)
            self._watcher.ended(cell, "failed", str(error))
            return
        if found in ("busy", "done"):  # by now: another machine may share the folder
            self._watcher.skipped(cell)
            return
        resume = found == "begun"
        gpus = self._free.pop(0)
        mine, theirs = self._context.Pipe()
        order = Order(
            config=cell.config,
            path=cell.path,
            log=cell.log,
            resume=resume,
            gpus=gpus,
            num_processes=self._num_processes,
        )
        process = self._context.Process(target=work, args=(order, theirs), name=cell.name)
        process.start()
        theirs.close()
        self._running.append(_Running(cell, process, mine, gpus))
        self._watcher.started(cell, resume)

    def _wait(self, timeout_s: float | None = None) -> None:
        """Waits for a word from any run, or for an end."""
        waited: dict[object, _Running] = {}
        for each in self._running:
            waited[each.process.sentinel] = each
            if not each.connection.closed:
                waited[each.connection] = each
        for ready in connection.wait(list(waited), timeout_s):  # type: ignore[arg-type]
            each = waited[ready]
            if ready is each.connection:
                self._hear(each)
            else:
                self._end(each)

    def _hear(self, each: _Running) -> None:
        try:
            self._watcher.at_step(each.cell, each.connection.recv())
        except (EOFError, OSError):
            each.connection.close()

    def _end(self, each: _Running) -> None:
        each.process.join()
        each.connection.close()
        self._running.remove(each)
        self._free.append(each.gpus)
        self._watcher.ended(each.cell, *self._result(each))

    def _result(self, each: _Running) -> tuple[Result, str]:
        """What became of a run, by its record: an exit code may be anybody's."""
        try:
            found = standing(each.cell)
        except RunFolderError as error:
            return "failed", str(error)
        code = each.process.exitcode or 0
        if found == "done":
            return "done", ""
        if found == "busy" or code in EXIT_CODES.values() or self._stopping:
            return "interrupted", ""
        if code < 0:
            return "failed", f"killed by {signal.Signals(-code).name}"
        said = _last_line(each.cell.log) if code in (1, 2) else ""
        return "failed", said or f"ended with code {code}, unfinished"

    def _stop(self) -> None:
        """Has every run save what it did.  A second Ctrl-C ends them unsaved; a second SIGTERM does
        not, for schedulers repeat it, nor does an echo of the first signal."""
        self._stopping = True
        began_s = time.monotonic()
        for each in self._running:
            each.process.terminate()
        while self._running:
            try:
                self._wait()
            except KeyboardInterrupt as error:
                if signal_of(error) == "SIGTERM" or time.monotonic() - began_s < ECHO_S:
                    continue
                for each in self._running:
                    each.process.kill()
                raise


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
