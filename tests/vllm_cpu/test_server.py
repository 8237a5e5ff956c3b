"""A vLLM server of our own: samples, new weights as a file, two runs on it, and its death."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.errors import EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.links import FileLink
from rlvr_zoo.rollout.server_http import Server
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.rollout.vllm import VllmEngine, installed
from tests.vllm_cpu.conftest import settings
from tests.vllm_cpu.measure import ROUNDING, change, gap, ids_of, requests, sampling, weights_of
from tests.vllm_cpu.serving import Started, serving


@pytest.fixture(scope="module")
def server(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    with serving(tiny, tmp_path_factory.mktemp("server")) as started:
        yield started


@pytest.fixture
def engine(server: Started, model: LoadedModel) -> Iterator[VllmEngine]:
    engine = VllmEngine(model, settings(servers=[server.url]))
    yield engine
    engine.close()
    engine.close()


def test_it_samples_what_the_trainers_model_would(engine: VllmEngine, model: LoadedModel) -> None:
    engine.sync(weights_of(model), 0)
    asked = requests(model, number=8)
    ours = TransformersEngine(model, settings()).generate(asked, sampling(0.0))
    assert ids_of(engine.generate(asked, sampling(0.0))) == ids_of(ours)
    assert gap(engine, model, asked) < ROUNDING


def test_seeds_decide_and_the_end_token_ends(engine: VllmEngine, model: LoadedModel) -> None:
    engine.sync(weights_of(model), 0)
    asked = requests(model)
    first, again = (engine.generate(asked, sampling(1.0, 10)) for _ in range(2))
    assert ids_of(first) == ids_of(again)
    assert {r.truncated for group in first for r in group} == {True, False}
    for group in first:
        for rollout in group:
            assert rollout.truncated == (rollout.ids[-1] not in model.eos_ids)
    varied = engine.generate(asked, sampling(2.0))
    assert all(len({rollout.ids for rollout in group}) > 1 for group in varied)


def test_new_weights_are_sampled_from(
    engine: VllmEngine, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync that sends nothing shows; one that sends is exact."""
    engine.sync(weights_of(model), 0)
    change(model)
    with monkeypatch.context() as broken:
        broken.setattr(FileLink, "send", lambda self, weights: None)
        engine.sync(weights_of(model), 1)
    assert gap(engine, model, requests(model)) > 0.1
    engine.sync(weights_of(model), 2)
    assert gap(engine, model, requests(model)) < ROUNDING


def test_it_says_what_it_is(engine: VllmEngine) -> None:
    assert engine.dtype is torch.float32
    assert engine.description == f"vllm {installed().split('+')[0]}, float32, 1 server"


def test_it_serves_one_run_at_a_time(
    engine: VllmEngine, server: Started, model: LoadedModel
) -> None:
    engine.sync(weights_of(model), 0)
    other = VllmEngine(model, settings(servers=[server.url]))
    change(model)
    other.sync(weights_of(model), 0)
    with pytest.raises(EngineError, match=r"was given another run's weights"):
        engine.generate(requests(model), sampling(1.0))
    assert gap(other, model, requests(model)) < ROUNDING
    other.close()


def test_a_relative_folder_reaches_it(
    server: Started, model: LoadedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    engine = VllmEngine(model, settings(servers=[server.url], folder="."))
    engine.sync(weights_of(model), 0)
    assert gap(engine, model, requests(model)) < ROUNDING
    engine.close()
    assert list(tmp_path.iterdir()) == []


def test_several_servers_share_the_prompts(
    server: Started, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Shown with one server under two names, as one vLLM at a time is what this machine holds."""
    asked_of: dict[str, set[tuple[int, ...]]] = {}
    post = Server.post

    def noted(self: Server, path: str, body: Any = None, *further: Any, **named: Any) -> Any:
        if path == "v1/completions":
            asked_of.setdefault(self.url, set()).add(tuple(body["prompt"]))
        return post(self, path, body, *further, **named)

    monkeypatch.setattr(Server, "post", noted)
    urls = [server.url, server.url.replace("127.0.0.1", "localhost")]
    engine = VllmEngine(model, settings(servers=urls))
    engine.sync(weights_of(model), 0)
    asked = requests(model, number=6)
    assert gap(engine, model, asked) < ROUNDING
    assert {url: len(prompts) for url, prompts in asked_of.items()} == {url: 3 for url in urls}
    assert not asked_of[urls[0]] & asked_of[urls[1]]
    engine.close()


def test_a_server_that_dies_is_named(
    engine: VllmEngine, model: LoadedModel, server: Started
) -> None:
    """The last test: nothing is left of the server."""
    engine.sync(weights_of(model), 0)
    server.kill()
    for call in (
        lambda: engine.generate(requests(model), sampling(1.0)),
        lambda: engine.sync(weights_of(model), 1),
    ):
        with pytest.raises(EngineError, match=f"{server.url} does not answer .*--resume"):
            call()
