"""`rlvr-zoo serve` as a process of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from rlvr_zoo.errors import EngineError
from rlvr_zoo.rollout.server_http import Server

START_TIMEOUT_S = 300.0


class Started(NamedTuple):
    url: str
    process: "subprocess.Popen[bytes]"

    def kill(self) -> None:
        """With its workers, which would outlive it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def serving(model: Path, folder: Path) -> Iterator[Started]:
    """A server of the model that answers; its log goes to the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / f"server-{port}.log"
    command = [sys.executable, "-m", "rlvr_zoo", "serve", "--model", str(model)]
    command += ["--port", str(port), "--enforce-eager", "--gpu-memory-utilization", "0.1"]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)
    started = Started(f"http://127.0.0.1:{port}", process)
    try:
        _await_answer(started, log)
        yield started
    finally:
        started.kill()


def _await_answer(started: Started, log: Path) -> None:
    end = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < end:
        with suppress(EngineError):
            Server(started.url, 10.0).get("v1/models")
            return
        if started.process.poll() is not None:
            break
        time.sleep(0.5)
    pytest.fail(log.read_text()[-4000:])
