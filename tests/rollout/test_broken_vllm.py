"""A vLLM that is installed and broken, by a stand-in for its package; and where its configuration
is kept."""

import logging
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

from rlvr_zoo.config import RolloutConfig, VllmConfig
from rlvr_zoo.errors import EngineError, StorageError
from rlvr_zoo.rollout import vllm
from tests.rollout.conftest import fake_model


def install(monkeypatch: pytest.MonkeyPatch, llm: Any) -> list[dict[str, Any]]:
    """A package `vllm` whose LLM is this function; returns what it is called with."""
    package, platforms = ModuleType("vllm"), ModuleType("vllm.platforms")
    calls: list[dict[str, Any]] = []

    class Platform:
        @staticmethod
        def is_sleep_mode_available() -> bool:
            return False

    def make(**options: Any) -> Any:
        calls.append(options)
        return llm()

    package.LLM = make  # type: ignore[attr-defined]
    platforms.current_platform = Platform  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "vllm", package)
    monkeypatch.setitem(sys.modules, "vllm.platforms", platforms)
    monkeypatch.setattr(vllm, "installed", lambda: "0.32.0")
    return calls


class Model(torch.nn.Module):
    """With a buffer that checkpoints have, and one that they have not."""

    def __init__(self) -> None:
        super().__init__()
        self.config = Qwen2Config(vocab_size=16)
        self.register_buffer("bias", torch.ones(2))
        self.register_buffer("positions", torch.ones(2), persistent=False)


def start(**settings: Any) -> vllm.VllmEngine:
    lm: Any = Model()
    model = replace(fake_model(), lm=lm)
    return vllm.VllmEngine(model, RolloutConfig(engine="vllm", vllm=VllmConfig(**settings)))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RLVR_ZOO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vllm"


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize(
    "error", [ImportError, OSError, AssertionError, ValueError, RuntimeError, TypeError, KeyError]
)
def test_it_does_not_start(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def fail() -> None:
        raise error("libcudart.so.13:\n cannot open")

    install(monkeypatch, fail)
    want = f"vLLM does not start: {error.__name__}: .*libcudart.so.13:.* cannot open"
    with pytest.raises(EngineError, match=want) as caught:
        start()
    assert str(caught.value).isprintable()


@pytest.mark.usefixtures("cache")
def test_it_does_not_import(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, None)
    monkeypatch.setitem(sys.modules, "vllm.platforms", None)
    with pytest.raises(EngineError, match=r"vLLM does not start: ModuleNotFoundError: .*platforms"):
        start()


def test_its_configuration_has_the_same_place_at_every_start(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = install(monkeypatch, object)
    for max_num_seqs in (0, 7):
        engine = start(max_num_seqs=max_num_seqs)
        assert engine.description == "vllm 0.32.0, float32, in the trainer's process"
    assert calls[0]["model"] == calls[1]["model"]
    assert "max_num_seqs" not in calls[0] and calls[1]["max_num_seqs"] == 7
    (folder,) = cache.iterdir()
    assert calls[0]["model"] == str(folder)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    (folder / "config.json").write_text("{")  # of a crash
    start()
    assert Qwen2Config.from_pretrained(str(folder)).vocab_size == 16


def test_a_cache_that_cannot_be_written(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.write_text("")
    install(monkeypatch, object)
    with pytest.raises(StorageError, match="RLVR_ZOO_CACHE=DIR"):
        start()


def test_weights_that_it_did_not_get_are_an_error(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class LLM:
        def collective_rpc(self, method: str, kwargs: dict[str, Any]) -> None:
            reload = logging.getLogger("vllm.model_executor.model_loader.reload.inplace")
            reload.warning("RotaryEmbedding: Failed to load weights")  # which is no fault
            got = {name for name, _ in kwargs["weights_iterator"]}
            assert "positions" not in got
            if missing := {"a", "b", "bias"} - got:
                reload.warning("Following weights were not loaded from checkpoint: %s", missing)

        def reset_prefix_cache(self) -> bool:
            return True

    install(monkeypatch, LLM)
    monkeypatch.setattr(logging.getLogger("vllm"), "level", logging.ERROR)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", False)
    logging.getLogger("vllm").addHandler(handler := logging.NullHandler())
    engine = start()
    tensor = torch.ones(1)
    engine.sync(lambda: [("a", tensor), ("b", tensor)], 0)
    with pytest.raises(EngineError, match=r"not given all .*not loaded from checkpoint: \{'b'\}"):
        engine.sync(lambda: [("a", tensor)], 1)
    logging.getLogger("vllm").removeHandler(handler)
