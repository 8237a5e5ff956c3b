"""One run of a comparison, in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import yaml

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import RlvrZooError
from rlvr_zoo.evaluate.base import Standing
from rlvr_zoo.launch.signals import EXIT_CODES, signal_of, terminable
from rlvr_zoo.track.record import EvaluationRecord


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the process is to do."""

    config: RunConfig
    path: Path
    log: Path
    resume: bool
    gpus: tuple[int, ...]
    """Which of this machine's; empty: none, or all."""
    num_processes: int


class Relay:
    """The observer of a run whose screen is another process: steps go there, words to the log."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def step(self, step: int, metrics: dict[str, float]) -> None:
        self._send(step)

    def ready(self, config: RunConfig, folder: Path, resumed_at: int, notes: Sequence[str]) -> None:
        print(f"{config.algo}, seed {config.seed}, from step {resumed_at}", *notes, sep="\n")
        self._send(resumed_at)

    def evaluated(self, evaluation: EvaluationRecord) -> None:
        print(f"step {evaluation.step:>6}  {evaluation.name} {evaluation.accuracy:.4f}", flush=True)

    def warn(self, message: str) -> None:
        print(f"warning: {message}", flush=True)

    def progress(self, done: int, total: int, message: str) -> None:
        """A warm-up: the first run of a model makes it, and others wait."""

    def evaluating(self, standing: Standing) -> None:
        """Suites show in the log when they are done."""

    def _send(self, step: int) -> None:
        try:
            self._connection.send(step)
        except OSError:  # nobody is left to look; `_follow` ends us
            return


def work(order: Order, connection: Connection) -> None:
    """Executes the order and exits: 0 done, 2 a user's error, 1 our fault, 130 or 75 interrupted.

    The last line of the log says what went wrong.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the server that forked us ignores both
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _follow(connection)
    order.log.parent.mkdir(parents=True, exist_ok=True)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if order.gpus:  # torch looks at it when it first needs a GPU
        given = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        names = [given[gpu] if given else str(gpu) for gpu in order.gpus]
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(names)
    sys.exit(_launched(order) if order.num_processes > 1 else _alone(order, connection))


def _follow(connection: Connection) -> None:
    """Ends this process as SIGTERM does, with a checkpoint, when its starter is gone."""

    def wait() -> None:
        try:
            connection.recv()
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def _alone(order: Order, connection: Connection) -> int:
    from rlvr_zoo.models.quiet import quiet_transformers
    from rlvr_zoo.train.setup import execute

    quiet_transformers()
    try:
        with terminable():
            record = execute(order.config, order.path, order.resume, Relay(connection))
    except KeyboardInterrupt as error:
        return EXIT_CODES[signal_of(error)]
    except RlvrZooError as error:
        print(f"rlvr-zoo: {error}", flush=True)
        return 2
    return EXIT_CODES[record.error] if record.status == "interrupted" else 0


def _launched(order: Order) -> int:
    """Several ranks: by the command line, which has a launcher for them."""
    command = [sys.executable, "-m", "rlvr_zoo", "run", "--output", str(order.path)]
    command += ["--num-processes", str(order.num_processes)]
    if order.resume:
        command += ["--resume"]
    else:
        settings = order.log.with_suffix(".yaml")
        settings.write_text(yaml.safe_dump(asdict(order.config), sort_keys=False))
        command += ["--config", str(settings)]
    with subprocess.Popen(command) as ranks:
        signal.signal(signal.SIGTERM, lambda number, _: ranks.send_signal(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal tells the ranks, too
        return ranks.wait()
