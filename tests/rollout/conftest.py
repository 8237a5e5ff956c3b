"""A stand-in for a vLLM server: right answers, until a test puts others in their place."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlvr_zoo.config import RolloutConfig, VllmConfig
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Request, Sampling
from rlvr_zoo.rollout.vllm import VllmEngine

EOS = 1
VOCAB_SIZE = 16
MAX_TOKENS = 4

Answer = Callable[["Handler", dict[str, Any]], Any]
"""Of a request's body to an object for JSON, bytes as they are, or None where it has answered."""


class Handler(BaseHTTPRequestHandler):
    server: "Stub"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._do({})

    def do_POST(self) -> None:
        self._do(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def _do(self, body: dict[str, Any]) -> None:
        path = self.path.lstrip("/").split("?")[0]
        self.server.asked.append(path)
        answer = self.server.answers.get(path)
        said = answer(self, body) if answer else None
        if answer is None:
            self.say(b'{"detail": "Not Found"}', 404)
        elif said is not None:
            self.say(said if isinstance(said, bytes) else json.dumps(said).encode())

    def say(self, text: bytes, status: int = 200, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text) if length is None else length))
        self.end_headers()
        self.wfile.write(text)


class Stub(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked: list[str] = []
        self.weights = "default"
        self.ended = threading.Event()
        config = {
            "model_config": {"dtype": "torch.bfloat16"},
            "scheduler_config": {"max_num_seqs": 8},
            "weight_transfer_config": {"backend": "nccl"},
        }
        done = {"message": "done"}
        self.answers: dict[str, Answer] = {
            "v1/models": lambda *_: {"data": [{"id": "m", "parent": None, "max_model_len": 64}]},
            "version": lambda *_: {"version": "0.32.0"},
            "server_info": lambda *_: {"vllm_config": config},
            "get_world_size": lambda *_: {"world_size": 2},
            "weight_info": lambda *_: {"weight_version": self.weights},
            "update_weight_version": self._claim,
            "reset_prefix_cache": lambda *_: {"success": True},
            "collective_rpc": lambda *_: {"results": [None]},
            "v1/completions": lambda _, body: completion(list(range(2, body["max_tokens"] + 2))),
            "init_weight_transfer_engine": lambda *_: done,
            "shutdown_weight_transfer_engine": lambda *_: done,
            "start_weight_update": lambda *_: done,
            "update_weights": lambda *_: done,
            "finish_weight_update": lambda *_: done,
        }

    def _claim(self, _: Handler, body: dict[str, Any]) -> Any:
        self.weights = body["new_version"]
        return {"success": True}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of clients that hang up: what is looked for."""

    def hang(self, *_: Any) -> None:
        """An answer that never comes."""
        self.ended.wait(60)


def completion(ids: list[int], **other: Any) -> dict[str, Any]:
    choice = {
        "token_ids": ids,
        "logprobs": {"token_logprobs": [-0.5] * len(ids)},
        "finish_reason": "length",
    }
    return {"choices": [choice | other]}


@contextmanager
def serving() -> Iterator[Stub]:
    stub = Stub()
    thread = threading.Thread(target=stub.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield stub
    finally:
        stub.ended.set()
        stub.shutdown()
        stub.server_close()
        thread.join()


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as started:
        yield started


@pytest.fixture
def another() -> Iterator[Stub]:
    with serving() as started:
        yield started


class _Tokenizer:
    def batch_decode(self, rows: list[list[int]], skip_special_tokens: bool) -> list[str]:
        return [" ".join(map(str, row)) for row in rows]


def fake_model() -> LoadedModel:
    text_config = SimpleNamespace(vocab_size=VOCAB_SIZE)
    lm: Any = SimpleNamespace(config=SimpleNamespace(get_text_config=lambda: text_config))
    tokenizer: Any = _Tokenizer()
    return LoadedModel(lm, tokenizer, 32, frozenset({EOS}), "", "")


def settings(*stubs: Stub, **vllm: Any) -> RolloutConfig:
    given = {"servers": [stub.url for stub in stubs], "timeout_s": 10.0}
    return RolloutConfig(engine="vllm", vllm=VllmConfig(**(given | vllm)))


@contextmanager
def engine_on(*stubs: Stub, **vllm: Any) -> Iterator[VllmEngine]:
    """Synced once."""
    engine = VllmEngine(fake_model(), settings(*stubs, **vllm))
    try:
        engine.sync(weights, 0)
        yield engine
    finally:
        engine.close()


def weights() -> Iterator[tuple[str, torch.Tensor]]:
    yield "a.weight", torch.arange(6.0).view(2, 3)
    yield "b.weight", torch.ones(4)


def requests(number: int = 1, samples: int = 1) -> list[Request]:
    return [Request((2, 3 + n), tuple(range(samples))) for n in range(number)]


def sampling(max_tokens: int = MAX_TOKENS) -> Sampling:
    return Sampling(temperature=1.0, max_completion_tokens=max_tokens)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < seconds
