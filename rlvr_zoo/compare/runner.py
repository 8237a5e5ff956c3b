"""Runs the cells of a comparison, as many at once as there is room for."""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Protocol

from rlvr_zoo.compare.child import Order, work
from rlvr_zoo.compare.comparison import Cell
from rlvr_zoo.errors import RunFolderError
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
        # imports torch once, and starts a run in a fraction of a second; it never trains itself,
        # so that a run inherits neither threads nor memory nor a CUDA context
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def run(self, cells: Sequence[Cell]) -> None:
        """Runs what is missing or begun.  After Ctrl-C or SIGTERM every run saves a checkpoint,
        and the interruption is raised again."""
        waiting = deque(cells)
        try:
            while waiting or self._running:
                while waiting and self._free:
                    self._start(waiting.popleft())
                if self._running:
                    self._wait()
        except KeyboardInterrupt:
            self._stop()
            raise

    def _start(self, cell: Cell) -> None:
        found = standing(cell)
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
        code = each.process.exitcode
        if code == 0:
            self._watcher.ended(each.cell, "done", "")
        elif code in (75, 130):
            self._watcher.ended(each.cell, "interrupted", "")
        else:
            why = _last_line(each.cell.log) or f"ended with code {code}"
            self._watcher.ended(each.cell, "failed", why)

    def _stop(self) -> None:
        """Has every run save what it did; a second interruption ends them unsaved."""
        try:
            for each in self._running:
                each.process.terminate()
            while self._running:
                self._wait()
        except KeyboardInterrupt:
            for each in self._running:
                each.process.kill()
            raise


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1].strip() if lines else ""
