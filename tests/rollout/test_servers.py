"""The engine on servers: what it makes of their answers, deaths and silences, and of each other's
runs."""

import os
import signal
import threading
import time
from typing import Any

import pytest
import torch

from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.rollout.vllm import VllmEngine
from tests.rollout.conftest import (
    EOS,
    Handler,
    Stub,
    completion,
    engine_on,
    fake_model,
    requests,
    sampling,
    settings,
    weights,
    within,
)  # fmt: skip


def test_a_good_server(stub: Stub, another: Stub) -> None:
    with engine_on(stub, another) as engine:
        groups = engine.generate(requests(4, samples=3), sampling())
        assert [[rollout.ids for rollout in group] for group in groups] == [[(2, 3, 4, 5)] * 3] * 4
        assert [s.asked.count("v1/completions") for s in (stub, another)] == [6, 6]
        assert engine.dtype is torch.bfloat16
        assert engine.description == "vllm 0.32.0, bfloat16, 2 servers"
        assert engine.generate([], sampling()) == []


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        (completion([]), "0 tokens"),
        (completion([2, 3, 4, 99]), "vocabulary"),
        (completion([2, EOS, 4, 5]), "after an end token"),
        (completion([2, 3]), "stops after 2 of 4"),
        (completion([2, 3, 4, 5], finish_reason="abort"), "ended by 'abort'"),
        (completion([2, 3, 4, 5], logprobs={"token_logprobs": [-1.0]}), "1 log-probs for 4"),
        (completion([2, 3, 4, 5], logprobs={"token_logprobs": [float("nan")] * 4}), "finite"),
        (completion([2, 3, 4, 5], logprobs={"token_logprobs": [None] * 4}), "is no vLLM server"),
        (completion([2, 3, 4, 5], logprobs={"token_logprobs": ["-1"] * 4}), "is no vLLM server"),
        (completion([2, 3, 4, 5], logprobs=None), "is no vLLM server"),
        (completion(["2", "3", "4", "5"]), "is no vLLM server"),  # type: ignore[list-item]
        (completion([2.5, 3, 4, 5]), "is no vLLM server"),  # type: ignore[list-item]
        ({"choices": []}, "is no vLLM server"),
        ({"error": {"message": "no"}}, "is no vLLM server"),
        (b"<html>", "is no vLLM server"),
    ],
)
def test_a_completion_that_cannot_be(stub: Stub, said: Any, fault: str) -> None:
    with engine_on(stub) as engine:
        stub.answers["v1/completions"] = lambda *_: said
        with pytest.raises(EngineError, match=fault) as caught:
            engine.generate(requests(), sampling())
        assert stub.url in str(caught.value) and str(caught.value).isprintable()


def test_the_first_server_that_fails_is_told_at_once(stub: Stub, another: Stub) -> None:
    with engine_on(stub, another, timeout_s=60.0) as engine:
        stub.answers["v1/completions"] = stub.hang
        another.answers["v1/completions"] = lambda handler, _: handler.say(b"died", 500)
        with within(3.0), pytest.raises(EngineError, match=f"{another.url} refuses .*500 died"):
            engine.generate(requests(4, samples=4), sampling())
        assert await_idle(), "requests to the other server should end, too"


def test_ctrl_c_ends_it_at_once(stub: Stub) -> None:
    with engine_on(stub, timeout_s=60.0) as engine:
        stub.answers["v1/completions"] = stub.hang
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with within(3.0), pytest.raises(KeyboardInterrupt):
            engine.generate(requests(2, samples=4), sampling())
        assert await_idle()


def await_idle() -> bool:
    """True as soon as no thread asks a server any more."""
    for _ in range(100):
        if not any(thread.name == "rlvr-zoo-ask" for thread in threading.enumerate()):
            return True
        time.sleep(0.02)
    return False


def test_no_more_at_once_than_said(stub: Stub) -> None:
    now, most, lock = [0], [0], threading.Lock()

    def slowly(_: Handler, body: dict[str, Any]) -> Any:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.05)
        with lock:
            now[0] -= 1
        return completion([2, 3, 4, 5])

    stub.answers["v1/completions"] = slowly
    for max_num_seqs, want in ((3, 3), (0, 8)):  # 0: as the server's own
        most[0] = 0
        with engine_on(stub, max_num_seqs=max_num_seqs) as engine:
            engine.generate(requests(4, samples=8), sampling())
        assert most[0] == want


# ------------------------------------------------------------------------------------ its start


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("v1/models", {"data": []}),
        ("v1/models", {"data": [{"id": "m"}]}),
        ("v1/models", {"data": [{"max_model_len": 64}]}),
        ("v1/models", {"data": [{"id": 3, "max_model_len": 64}]}),
        ("v1/models", {"error": "no"}),
        ("v1/models", b"<html>"),
        ("reset_prefix_cache", {}),
        ("reset_prefix_cache", b""),
        ("collective_rpc", b"ok"),
        ("collective_rpc", {}),
    ],
)
def test_what_is_no_vllm_server(stub: Stub, path: str, said: Any) -> None:
    stub.answers[path] = lambda *_: said
    with pytest.raises(EngineError, match=f"{stub.url} is no vLLM server .*/{path}"):  # noqa: SIM117
        with engine_on(stub):
            pass


def test_a_server_that_tells_nothing_of_itself(stub: Stub) -> None:
    for path in ("version", "server_info", "weight_info", "update_weight_version"):
        del stub.answers[path]
    with engine_on(stub) as engine:
        engine.generate(requests(), sampling())
        assert engine.dtype is None and engine.description == "vllm, 1 server"


def test_the_base_model_is_sampled_and_not_an_adapter(stub: Stub) -> None:
    models = [
        {"id": "adapter", "parent": "base", "max_model_len": None},
        {"id": "base", "root": "base", "parent": None, "max_model_len": 64},
    ]
    named: list[str] = []

    def note(_: Handler, body: dict[str, Any]) -> Any:
        named.append(body["model"])
        return completion([2, 3, 4, 5])

    stub.answers |= {"v1/models": lambda *_: {"data": models}, "v1/completions": note}
    with engine_on(stub) as engine:
        engine.generate(requests(), sampling())
    assert named == ["base"]


def test_a_context_that_is_too_short(stub: Stub) -> None:
    short = {"data": [{"id": "m", "max_model_len": 31}]}
    stub.answers["v1/models"] = lambda *_: short
    with pytest.raises(EngineError, match=r"takes 31 tokens .*the model 32"):
        VllmEngine(fake_model(), settings(stub))


def test_settings_that_cannot_be(stub: Stub) -> None:
    with pytest.raises(ConfigError, match=r"tensor_parallel_size=2: is for vLLM in the trainer's"):
        VllmEngine(fake_model(), settings(stub, tensor_parallel_size=2))
    with pytest.raises(ConfigError, match=r"transfer=nccl: goes from a GPU, and the trainer has"):
        VllmEngine(fake_model(), settings(stub, transfer="nccl"))
    hot = settings(stub)
    object.__setattr__(hot, "temperature", 2.5)
    with pytest.raises(ConfigError, match=r"rollout\.temperature=2\.5: vLLM takes 2\.0 at most"):
        VllmEngine(fake_model(), hot)


def test_another_version_warns(stub: Stub) -> None:
    stub.answers["version"] = lambda *_: {"version": "0.99.0"}
    with pytest.warns(UserWarning, match=r"vLLM 0\.99\.0 is not among"):  # noqa: SIM117
        with engine_on(stub):
            pass


# ------------------------------------------------------------------------------------ its weights


def test_a_cache_that_stays_is_an_error(stub: Stub) -> None:
    stub.answers["reset_prefix_cache"] = lambda *_: {"success": False}
    with pytest.raises(EngineError, match=f"{stub.url} kept its prefix cache"):  # noqa: SIM117
        with engine_on(stub):
            pass


def test_weights_that_it_has_are_not_sent_again(stub: Stub) -> None:
    with engine_on(stub) as engine:
        engine.sync(weights, 0)
        engine.rest()
        engine.sync(weights, 0)
        assert stub.asked.count("collective_rpc") == 1
        engine.sync(weights, 1)
        assert stub.asked.count("collective_rpc") == 2
        stub.answers["collective_rpc"] = lambda handler, _: handler.say(b"no", 500)
        for _ in range(2):  # a sync that failed counts as none
            with pytest.raises(EngineError, match="500 no"):
                engine.sync(weights, 2)
        stub.answers["collective_rpc"] = lambda *_: {"results": [None]}
        before = stub.asked.count("collective_rpc")
        engine.sync(weights, 1)  # who knows what it has now
        assert stub.asked.count("collective_rpc") == before + 1


def test_two_runs_on_one_server_notice(stub: Stub) -> None:
    theirs = f"{stub.url} was given another run's weights.*one server serves one run at a time"
    with engine_on(stub) as first, engine_on(stub) as second:
        with pytest.raises(EngineError, match=theirs):
            first.generate(requests(), sampling())
        second.generate(requests(), sampling())
        second.sync(weights, 1)
        second.generate(requests(), sampling())

        def interrupted(*_: Any) -> Any:
            stub.weights = "another"
            return {"results": [None]}

        stub.answers["collective_rpc"] = interrupted
        with pytest.raises(EngineError, match=theirs):
            second.sync(weights, 2)
