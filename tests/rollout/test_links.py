"""How weights reach servers: the folder that they pass through, and the order of an NCCL round."""

import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlvr_zoo.errors import ConfigError, EngineError, StorageError
from rlvr_zoo.rollout.links import Client, FileLink, NcclLink, Source
from rlvr_zoo.rollout.server_http import Server
from rlvr_zoo.rollout.vllm import VllmEngine
from tests.rollout.conftest import (
    Handler,
    Stub,
    engine_on,
    fake_model,
    settings,
    weights,
    within,
)

# --------------------------------------------------------------------------- as a file


def file_link(stub: Stub, folder: Path | str) -> FileLink:
    return FileLink([Server(stub.url, 10.0)], str(folder), torch.float32)


def test_the_file_is_there_when_the_server_is_asked(stub: Stub, tmp_path: Path) -> None:
    seen: list[tuple[set[str], float]] = []

    def read(_: Handler, body: dict[str, Any]) -> Any:
        folder = Path(body["kwargs"]["weights_path"])
        assert folder.is_absolute() and folder.parent == tmp_path
        tensors = load_file(folder / "model.safetensors")
        seen.append((set(tensors), float(tensors["a.weight"].sum())))
        return {"results": [None]}

    stub.answers["collective_rpc"] = read
    with engine_on(stub, folder=str(tmp_path)) as engine:
        engine.sync(lambda: ((name, tensor * 2) for name, tensor in weights()), 1)
    names = {"a.weight", "b.weight"}
    assert seen == [(names, 15.0), (names, 30.0)]
    assert list(tmp_path.iterdir()) == []


def test_a_relative_folder(stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    asked: list[str] = []

    def note(_: Handler, body: dict[str, Any]) -> Any:
        asked.append(body["kwargs"]["weights_path"])
        return {"results": []}

    stub.answers["collective_rpc"] = note
    with engine_on(stub, folder="here"):
        assert asked[0].startswith(f"{tmp_path}/here/rlvr-zoo-weights-")


def test_a_folder_that_cannot_be(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(ConfigError, match=r"rollout\.vllm\.folder: weights cannot be kept in"):
            VllmEngine(fake_model(), settings(stub, folder=str(folder)))


@contextmanager
def small_files() -> Iterator[None]:
    """A disk that takes 100 bytes a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_is_full(stub: Stub, tmp_path: Path) -> None:
    link = file_link(stub, tmp_path)
    link.send(weights)
    want = r"File too large; raise the limit on file sizes"
    with small_files(), pytest.raises(StorageError, match=want):
        link.send(weights)
    assert stub.asked.count("collective_rpc") == 1
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]
    link.close()
    assert list(tmp_path.iterdir()) == []


def test_no_room_names_the_folder(
    stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    from rlvr_zoo.rollout import links

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space (os error 28)")

    monkeypatch.setattr(links, "save_file", full)
    link = file_link(stub, tmp_path)
    with pytest.raises(StorageError, match=r"No space left.*set rollout\.vllm\.folder"):
        link.send(weights)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]
    link.close()


LEFT = """
import os, sys, torch
from rlvr_zoo.rollout.links import FileLink
link = FileLink([], sys.argv[1], torch.float32)
print("made", flush=True)
if sys.argv[2] == "wait":
    sys.stdin.read()
elif sys.argv[2] == "raise":
    raise SystemExit(3)
"""


def other(folder: Path, how: str) -> "subprocess.Popen[str]":
    started = subprocess.Popen(
        [sys.executable, "-c", LEFT, str(folder), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert started.stdout is not None and started.stdout.readline() == "made\n"
    return started


def test_the_folder_of_a_killed_run_is_removed_and_a_live_ones_is_not(
    stub: Stub, tmp_path: Path
) -> None:
    killed, alive = other(tmp_path, "wait"), other(tmp_path, "wait")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(list(tmp_path.iterdir())) == 2
    file_link(stub, tmp_path).close()
    (left,) = tmp_path.iterdir()
    assert f"-{alive.pid}-" in left.name
    alive.communicate()
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_ends_by_an_exception_leaves_nothing(tmp_path: Path) -> None:
    ended = other(tmp_path, "raise")
    ended.communicate()
    assert ended.returncode == 3 and list(tmp_path.iterdir()) == []


# --------------------------------------------------------------------------- by NCCL


class Sender:
    """Makes vLLM's calls in vLLM's order, and notes what it would broadcast."""

    def __init__(self, source: Source, client: Client, num_workers: int) -> None:
        assert num_workers == 2
        self.source, self.client = source, client
        self.sent: list[dict[str, torch.Tensor]] = []
        self.broadcast = lambda: None
        client.init_weight_transfer_engine({"world_size": 3})

    def send_weights(self) -> None:
        names = [meta.name for meta in self.source.metadata()]
        self.client.start_weight_update()
        self.client.update_weights({"names": names})
        self.broadcast()
        self.sent.append(dict(self.source))
        self.client.finish_weight_update()

    def shutdown(self) -> None:
        self.sent.clear()


def nccl_link(stub: Stub, timeout_s: float = 10.0, connect: Any = Sender) -> NcclLink:
    return NcclLink(Server(stub.url, timeout_s), 2, torch.bfloat16, connect)


def test_the_order_of_requests(stub: Stub) -> None:
    link = nccl_link(stub)
    for _ in range(2):
        link.send(weights)
    first = ["shutdown_weight_transfer_engine", "init_weight_transfer_engine"]
    each = ["start_weight_update", "update_weights", "finish_weight_update"]
    assert stub.asked == first + each * 2
    sender: Any = link._sender
    assert [tensors["a.weight"].dtype for tensors in sender.sent] == [torch.bfloat16] * 2
    link.close()
    link.close()


def test_metadata_casts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.Tensor, "to", None)
    (first, second) = Source(weights, torch.bfloat16).metadata()
    assert first == ("a.weight", torch.bfloat16, (2, 3)) and second.shape == (4,)


@pytest.mark.parametrize(
    "path", ["shutdown_weight_transfer_engine", "init_weight_transfer_engine", "update_weights"]
)
def test_a_refusal_carries_its_reason(stub: Stub, path: str) -> None:
    stub.answers[path] = lambda handler, _: handler.say(b"not configured", 500)
    with pytest.raises(EngineError, match=f"{stub.url} refuses /{path}: 500 not configured"):
        nccl_link(stub).send(weights)


def test_a_refusal_is_told_although_the_transfer_is_stuck(stub: Stub) -> None:
    """As where workers refuse, and the trainer's broadcast waits for them."""
    stub.answers["update_weights"] = lambda handler, _: handler.say(b"out of memory", 500)
    stuck = threading.Event()

    class Stuck(Sender):
        def send_weights(self) -> None:
            threading.Thread(target=self._update, daemon=True).start()
            stuck.wait(30)

        def _update(self) -> None:
            with pytest.raises(EngineError):
                self.client.update_weights({})

    with within(5.0), pytest.raises(EngineError, match="500 out of memory"):
        nccl_link(stub, 30.0, Stuck).send(weights)
    stuck.set()


def test_a_worker_that_dies_in_mid_transfer_ends_the_wait(stub: Stub) -> None:
    stuck = threading.Event()

    class Stuck(Sender):
        def send_weights(self) -> None:
            stuck.wait(30)

    with within(5.0), pytest.raises(EngineError, match=r"by NCCL \(TimeoutError: .*within 0\.5 s"):
        nccl_link(stub, 0.5, Stuck).send(weights)
    stuck.set()


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError, ImportError, AssertionError])
def test_what_vllm_and_nccl_raise(stub: Stub, error: type[Exception]) -> None:
    def connect(*_: Any) -> Any:
        raise error("NCCL error:\nunhandled system error")

    want = f"{stub.url} cannot be given weights by NCCL .*NCCL error: unhandled .*transfer=files"
    with pytest.raises(EngineError, match=want):
        nccl_link(stub, connect=connect).send(weights)


def test_a_server_that_takes_no_weights_by_nccl(stub: Stub) -> None:
    from rlvr_zoo.config import VllmConfig
    from rlvr_zoo.rollout.vllm_servers import Servers

    config = {"model_config": {}, "scheduler_config": {}, "weight_transfer_config": None}
    stub.answers["server_info"] = lambda *_: {"vllm_config": config}
    to_one = VllmConfig(servers=[stub.url])
    with pytest.raises(EngineError, match=r"takes no weights by NCCL; start it with --weight-tr"):
        Servers(fake_model(), to_one, torch.float32, Sender)
    stub.answers["server_info"] = lambda *_: {}
    stub.answers["get_world_size"] = lambda *_: {}
    with pytest.raises(EngineError, match=r"is no vLLM server .*world_size: Field required"):
        Servers(fake_model(), to_one, torch.float32, Sender)


HANGING = """
import sys, threading, torch
from rlvr_zoo.errors import EngineError
from rlvr_zoo.rollout.links import NcclLink
from rlvr_zoo.rollout.server_http import Server
class Stuck:
    def __init__(self, source, client, num_workers): pass
    def send_weights(self): threading.Event().wait()
link = NcclLink(Server(sys.argv[1], 0.5), 2, torch.float32, Stuck)
try:
    link.send(lambda: [])
except EngineError:
    sys.exit(2)
"""


def test_what_stays_stuck_does_not_keep_the_process(stub: Stub) -> None:
    done = subprocess.run([sys.executable, "-c", HANGING, stub.url], timeout=60, check=False)
    assert done.returncode == 2
