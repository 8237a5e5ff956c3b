"""What only GPUs can run, against vLLM's own interface with the devices left out: the order of
calls around sleep, and the hand-over to vLLM's NCCL engine."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rlvr_zoo.errors import EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.links import NcclLink
from rlvr_zoo.rollout.server_http import Server
from rlvr_zoo.rollout.vllm import Colocated, _nccl_sender
from tests.rollout.conftest import Stub, serving
from tests.vllm_cpu.measure import weights_of


@pytest.fixture
def stub() -> Iterator[Stub]:
    with serving() as started:
        yield started


class SleepingModel:
    """Notes what is asked of an `LLM`."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def sleep(self, level: int) -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str]) -> None:
        self.calls.append(f"wake {' '.join(tags)}")

    def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
        num_tensors = len(list(kwargs["weights_iterator"]))
        self.calls.append(f"{method} {num_tensors}")

    def reset_prefix_cache(self) -> bool:
        self.calls.append("reset")
        return True


def test_weights_wake_before_the_cache(model: LoadedModel) -> None:
    host: Any = Colocated.__new__(Colocated)
    host._llm, host._can_sleep, host._asleep = SleepingModel(), True, False
    host._buffers = []
    number = len(list(model.lm.parameters()))
    for version in range(2):
        host.rest()
        host.rest()
        host.load(weights_of(model), version)
    load = ["sleep 2", "wake weights", f"reload_weights {number}", "wake kv_cache", "reset"]
    assert host._llm.calls == load * 2
    host.load(weights_of(model), 2)  # nobody slept
    assert host._llm.calls[len(load) * 2 :] == [f"reload_weights {number}", "reset"]


@pytest.fixture
def broadcasts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """What vLLM's engine sends in each round, NCCL itself left out."""
    from vllm.distributed.weight_transfer import nccl_engine

    rounds: list[dict[str, torch.Tensor]] = []

    class Group:
        def destroy(self) -> None:
            rounds.append({})

    def send(iterator: Any, **_: Any) -> None:
        rounds.append(dict(iterator))

    monkeypatch.setattr(nccl_engine, "open_trainer_endpoint", lambda info: Group())
    monkeypatch.setattr(nccl_engine, "packed_nccl_broadcast_producer", send)
    return rounds


def test_vllms_nccl_engine_sends_over_our_client(
    model: LoadedModel, stub: Stub, broadcasts: list[dict[str, torch.Tensor]]
) -> None:
    bodies: dict[str, Any] = {}

    def noted(path: str) -> Any:
        return lambda _, body: bodies.setdefault(path, body) and {}

    for path in ("init_weight_transfer_engine", "update_weights"):
        stub.answers[path] = noted(path)
    link = NcclLink(Server(stub.url, 30.0), 2, torch.bfloat16, _nccl_sender)
    for _ in range(2):
        link.send(weights_of(model))
        with torch.no_grad():
            model.lm.get_input_embeddings().weight.mul_(2)
    link.close()
    link.close()
    each = ["start_weight_update", "update_weights", "finish_weight_update"]
    opened = ["shutdown_weight_transfer_engine", "init_weight_transfer_engine"]
    assert stub.asked == opened + each * 2, "one connection for all rounds"
    assert bodies["init_weight_transfer_engine"]["init_info"]["world_size"] == 1 + 2
    names = [name for name, _ in model.lm.named_parameters()]
    told = bodies["update_weights"]["update_info"]
    assert told["names"] == names and set(told["dtype_names"]) == {"bfloat16"}
    first, second, destroyed = broadcasts
    assert list(first) == list(second) == names and destroyed == {}
    key = "model.embed_tokens.weight"
    assert first[key].dtype == torch.bfloat16 and torch.equal(first[key] * 2, second[key])


@pytest.mark.usefixtures("broadcasts")
@pytest.mark.parametrize("path", ["init_weight_transfer_engine", "update_weights"])
def test_a_server_that_refuses_in_the_middle(model: LoadedModel, stub: Stub, path: str) -> None:
    stub.answers[path] = lambda handler, _: handler.say(b"out of memory", 500)
    link = NcclLink(Server(stub.url, 30.0), 2, torch.bfloat16, _nccl_sender)
    with pytest.raises(EngineError, match=f"refuses /{path}: 500 out of memory"):
        link.send(weights_of(model))
