"""Where vLLM is missing or is another: what is said.  Runs in every environment."""

import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.config import RolloutConfig, VllmConfig
from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.rollout import vllm
from rlvr_zoo.rollout.base import Compute
from rlvr_zoo.rollout.server_http import Server

PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def engine(device: str = "cpu", **settings: Any) -> vllm.VllmEngine:
    model: Any = None  # what is asked first is not the model
    config = RolloutConfig(engine="vllm", vllm=VllmConfig(**settings))
    return vllm.VllmEngine(model, config, Compute(device=torch.device(device)))


def test_a_missing_vllm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: "")
    with pytest.raises(EngineError, match=r"not installed.*pip install 'rlvr-zoo\[vllm\]'"):
        engine()
    with pytest.raises(EngineError, match="not installed"):
        engine("cuda", servers=["http://localhost:1"], transfer="nccl")


@pytest.mark.parametrize(
    ("found", "supported"),
    [("0.32.0", True), ("0.33.1+cpu", True), ("0.31.2", False), ("0.320.0", False), ("1.0", False)],
)
def test_another_version_warns(
    monkeypatch: pytest.MonkeyPatch, found: str, supported: bool
) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: found)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        vllm.require()
    said = [str(each.message) for each in caught]
    assert said == [] if supported else "0.32 to 0.33" in said[0] and found in said[0]


def test_the_extra_asks_for_what_is_supported() -> None:
    assert '"vllm>=0.32,<0.34"' in PROJECT.read_text(encoding="utf-8")
    assert all(vllm.is_supported(version) for version in vllm.TESTED)


def test_the_version_is_found_whoever_built_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "find_spec", lambda name: object())
    monkeypatch.setattr(metadata, "packages_distributions", lambda: {"vllm": ["pytest"]})
    assert vllm.installed() == metadata.version("pytest")


def test_a_server_that_is_down_is_named() -> None:
    down = r"http://127\.0\.0\.1:9 does not answer .*start it again with `rlvr-zoo serve`"
    with pytest.raises(EngineError, match=down):
        Server("http://127.0.0.1:9/", 5.0).get("v1/models")
    with pytest.raises(ConfigError, match=r"rollout\.vllm\.servers: 'localhost:8000' is no URL"):
        Server("localhost:8000", 5.0)
