"""Ranks for tests, without a launcher: forks of one process that has imported everything, which
takes longer than what most tests ask of a rank.

`python -m tests.train.forked NUMBER MODULE ARGUMENTS` in place of
`torchrun --nproc-per-node=NUMBER -m MODULE ARGUMENTS`.  Only importing may come before the fork:
torch's threads do not survive it.
"""

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from runpy import run_module

ROOT = Path(__file__).parents[2]
PR_SET_PDEATHSIG = 1


def command(number: int, module: str, *arguments: object) -> list[str]:
    """Starts a module of tests on so many ranks; to be run in ROOT."""
    ours = [sys.executable, "-m", "tests.train.forked", str(number), module]
    return [*ours, *map(str, arguments)]


def fork(number: int, work: Callable[[], object]) -> None:
    """Does the work in so many processes that are told what torchrun would tell them.

    Exits where one of them fails; it has shown its traceback then.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    failed = together([partial(_be, rank, number, port, work) for rank in range(number)])
    if failed:
        sys.exit(f"ranks {failed} of {number} failed")


def together(works: Sequence[Callable[[], object]]) -> list[int]:
    """Forks a process for each piece of work; returns the numbers of those that failed."""
    context = get_context("fork")
    processes = [context.Process(target=_child, args=(work,)) for work in works]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
    return [number for number, each in enumerate(processes) if each.exitcode]


def _child(work: Callable[[], object]) -> None:
    if sys.platform == "linux":  # a test that has waited for too long kills the one that forked
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    work()


def _be(rank: int, number: int, port: int, work: Callable[[], object]) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    work()


if __name__ == "__main__":
    name = sys.argv[2]
    import_module(name)
    del sys.modules[name]  # each rank runs it anew, as the main module
    ranks, sys.argv = int(sys.argv[1]), sys.argv[2:]
    fork(ranks, partial(run_module, name, run_name="__main__"))
