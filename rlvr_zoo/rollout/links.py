"""How new weights reach vLLM servers: as a file, or by NCCL."""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, distributed

from rlvr_zoo.errors import ConfigError, EngineError, RlvrZooError, first_line
from rlvr_zoo.rollout.background import Outcome, gather, start
from rlvr_zoo.rollout.base import Weights
from rlvr_zoo.rollout.server_http import Hangup, Reply, Server, one_line
from rlvr_zoo.track.storage import Lock, storage


class Link(Protocol):
    """Brings weights to servers.  Every rank of the trainer has one; the first rank's sends, and
    the others go through the weights with it."""

    def send(self, weights: Weights) -> None: ...
    def close(self) -> None: ...


def rank() -> int:
    """This process among the trainer's."""
    return distributed.get_rank() if distributed.is_initialized() else 0


# --------------------------------------------------------------------------- as a file

_ELSEWHERE = "set rollout.vllm.folder to one that trainer and servers share and that has room"
_LOCK = "lock"


class FileLink:
    """Weights as one file in a folder that trainer and servers see, which all servers then read.

    The folder goes when the link is closed, or else when the process ends; one that a killed run
    left is removed by the next run on the same machine.
    """

    def __init__(self, servers: Sequence[Server], folder: str, dtype: torch.dtype) -> None:
        """Raises ConfigError where the folder cannot be written."""
        self._servers, self._dtype = servers, dtype
        self._folder: Path | None = None
        if rank() == 0:
            self._folder, lock = _weights_folder(folder)
            self._remove = weakref.finalize(self, _remove, self._folder, lock, os.getpid())

    def send(self, weights: Weights) -> None:
        """Raises EngineError where a server does not answer or cannot read the file, StorageError
        where the disk refuses it."""
        if self._folder is None:
            for _ in weights():  # takes part in gathering them
                pass
            return
        tensors = {
            name: tensor.detach().to("cpu", self._dtype).contiguous() for name, tensor in weights()
        }
        _save(tensors, self._folder / "model.safetensors")
        hangup = Hangup()
        body = {"method": "reload_weights", "kwargs": {"weights_path": str(self._folder)}}
        gather(
            lambda number: self._servers[number].post("collective_rpc", body, _Results, hangup),
            [[number] for number in range(len(self._servers))],
            1,
            hangup.hang_up,
        )

    def close(self) -> None:
        if self._folder is not None:
            self._remove()


class _Results(Reply):
    results: list[Any]
    """What each worker returned."""


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Under another name first: a server that was late may still read the old one."""
    part = path.with_suffix(".part")
    with storage(path.parent, elsewhere=_ELSEWHERE):
        path.unlink(missing_ok=True)  # there need not be room for two
        try:
            save_file(tensors, part)
            part.rename(path)
        except SafetensorError as error:  # what it makes of the disk's refusal
            number = re.search(r"os error (\d+)", str(error))
            said = os.strerror(int(number[1])) if number else first_line(error)
            raise OSError(int(number[1]) if number else None, said) from error
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _weights_folder(folder: str) -> tuple[Path, Lock | None]:
    """A new folder, and the lock that shows that it is in use."""
    # absolute, as vLLM takes a relative one for a name on the hub
    parent = Path(folder or tempfile.gettempdir()).expanduser().resolve()
    prefix = f"rlvr-zoo-weights-{socket.gethostname()}-"
    for left in parent.glob(f"{prefix}*"):
        _remove_if_left(left)
    try:
        made = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))
    except OSError as error:
        raise ConfigError(
            f"rollout.vllm.folder: weights cannot be kept in {parent} ({error.strerror});"
            f" {_ELSEWHERE}"
        ) from error
    with suppress(OSError):  # a file system without locks: nobody removes the folder but we
        return made, Lock.acquire(made / _LOCK)
    return made, None


def _remove_if_left(folder: Path) -> None:
    """Whose owner is gone: the lock that it held is free."""
    with suppress(OSError):
        if (folder / _LOCK).is_file() and (lock := Lock.acquire(folder / _LOCK)) is not None:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()


def _remove(folder: Path, lock: Lock | None, owner: int) -> None:
    if os.getpid() != owner:  # a child that was forked
        return
    shutil.rmtree(folder, ignore_errors=True)
    if lock is not None:
        lock.release()


# --------------------------------------------------------------------------- by NCCL


class Meta(NamedTuple):
    """What is known of a weight before it is sent."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class Source:
    """The weights as vLLM's trainer-side engine goes through them, in the type to send."""

    def __init__(self, weights: Weights, dtype: torch.dtype) -> None:
        self.weights, self._dtype = weights, dtype
        self._metadata = [Meta(name, dtype, tuple(tensor.shape)) for name, tensor in weights()]

    def metadata(self) -> list[Meta]:
        return self._metadata

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in self.weights():
            yield name, tensor.detach().to(self._dtype)


class Client:
    """A server's routes for new weights, as vLLM's trainer-side engine calls them.

    It calls from threads of its own, and may be stuck in NCCL before it looks at what they met: so
    an error is reported to whoever waits, too.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._hangup = server, Hangup()
        self.outcome: Outcome[Any] = Outcome()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._post("init_weight_transfer_engine", {"init_info": init_info})

    def shutdown_weight_transfer_engine(self) -> None:
        self._post("shutdown_weight_transfer_engine")

    def start_weight_update(self) -> None:
        self._post("start_weight_update")

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self._post("update_weights", {"update_info": update_info})

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self._post("finish_weight_update", {"weight_version": weight_version})

    def _post(self, path: str, body: dict[str, Any] | None = None) -> None:
        try:
            self._server.post(path, body, hangup=self._hangup)
        except EngineError as error:
            self.outcome.fail(error)
            raise

    def hang_up(self) -> None:
        self._hangup.hang_up()


class Sender(Protocol):
    """vLLM's trainer-side engine."""

    def send_weights(self) -> None: ...
    def shutdown(self) -> None: ...


Connect = Callable[[Source, Client, int], Sender]
"""Meets the workers of a server, of which there are so many."""

_CLOSE_S = 30.0
_FAILURES = (RuntimeError, ValueError, OSError, AssertionError, ImportError)
"""What vLLM and NCCL raise where they cannot do it."""


class NcclLink:
    """Weights from the trainer's first rank to the workers of one server, by vLLM's own
    weight-transfer engine.  Needs GPUs on both sides, and has not been run on any.

    vLLM's part runs on a thread of its own: a worker that dies in the middle leaves NCCL waiting
    for ever, and the run must not.
    """

    def __init__(
        self, server: Server, num_workers: int, dtype: torch.dtype, connect: Connect
    ) -> None:
        self._server, self._num_workers = server, num_workers
        self._dtype, self._connect = dtype, connect
        self._source: Source | None = None
        self._client = Client(server)
        self._sender: Sender | None = None

    def send(self, weights: Weights) -> None:
        """Raises EngineError where the server does not take the weights in time."""
        if self._source is None:
            self._source = Source(weights, self._dtype)
        self._source.weights = weights
        if rank() != 0:
            for _ in self._source:  # takes part in gathering them
                pass
            return
        if self._sender is None:
            self._sender = self._bounded(self._connected, self._server.timeout_s)
        self._bounded(self._sender.send_weights, self._server.timeout_s)

    def _connected(self) -> Sender:
        assert self._source is not None
        self._client.shutdown_weight_transfer_engine()  # a dead trainer may have left a connection
        return self._connect(self._source, self._client, self._num_workers)

    def _bounded(self, work: Callable[[], Any], timeout_s: float) -> Any:
        """What the work returns.  Where it fails or takes too long, the link is of no more use."""
        outcome: Outcome[Any] = Outcome()
        self._client.outcome = outcome
        device = torch.cuda.current_device() if torch.cuda.is_available() else None

        def on_device() -> Any:
            if device is not None:
                torch.cuda.set_device(device)  # a thread begins with the first
            return work()

        start(lambda: outcome.run(on_device), "rlvr-zoo-send")
        try:
            return outcome.get(timeout_s)
        except BaseException as error:
            self._sender = None
            self._client.hang_up()
            if isinstance(error, _FAILURES) and not isinstance(error, RlvrZooError):
                raise EngineError(
                    f"vLLM server {self._server.url} cannot be given weights by NCCL"
                    f" ({type(error).__name__}: {one_line(str(error))}); see its log, or set"
                    " rollout.vllm.transfer=files"
                ) from error
            raise

    def close(self) -> None:
        if self._sender is not None:
            sender = self._sender
            with suppress(EngineError):
                self._bounded(sender.shutdown, _CLOSE_S)
            self._sender = None
