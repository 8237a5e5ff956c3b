"""Planned memory beside the peak of a real optimizer step; tests/perf/memory.py does more."""

from collections.abc import Iterator

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from rlvr_zoo.plan.work import Work

from .measure import PeakBytes, measured, measured_rollout, random_model

SIZES = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 640,
    "vocab_size": 512,
}
WORK = Work(prompt_tokens=16, completion_tokens=48, rows=16)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """accelerate keeps the first precision that a process asks for."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.parametrize("algo", ["popo", "grpo", "ppo"])
@pytest.mark.parametrize("tokens", [1024, 256])
@pytest.mark.parametrize("tied", [True, False])
def test_an_update_in_fp32(algo: str, tokens: int, tied: bool) -> None:
    model = random_model({**SIZES, "tie_word_embeddings": tied})
    found = measured(algo, model, WORK, f"train.micro_batch_tokens={tokens}")
    assert found.ratio == pytest.approx(1, abs=0.15)


@pytest.mark.parametrize("algo", ["popo", "ppo"])
@pytest.mark.usefixtures("any_precision")
def test_an_update_in_bf16(algo: str) -> None:
    model = random_model(SIZES)
    settings = ("train.micro_batch_tokens=256", "train.precision=bf16")
    assert measured(algo, model, WORK, *settings).ratio == pytest.approx(1, abs=0.15)


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_activations(precision: str) -> None:
    """Many tokens and few words: what layers keep is nearly all there is."""
    model = random_model({**SIZES, "vocab_size": 64})
    work = Work(prompt_tokens=64, completion_tokens=64, rows=32)
    found = measured("grpo", model, work, f"train.precision={precision}", "algorithm.kl_coef=0")
    assert found.planned.peak["activations"] > 0.8 * found.planned.tensor_bytes
    assert found.ratio == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sampling(precision: str) -> None:
    work = Work(prompt_tokens=16, completion_tokens=48, rows=64)
    found = measured_rollout(random_model(SIZES), work, precision)
    assert found.ratio == pytest.approx(1, abs=0.15)


def test_a_companion_left_out_would_be_noticed() -> None:
    """The tolerance is narrower than the smallest part that counts."""
    model = random_model(SIZES)
    found = measured("grpo", model, WORK, "train.micro_batch_tokens=256")
    without = found.planned.tensor_bytes - found.planned.peak["companions"]
    assert without / found.peak_bytes < 0.88


def test_the_meter_counts_storages_once_and_forgets_the_dead() -> None:
    layer = nn.Linear(100, 50, bias=False)
    with PeakBytes(layer.parameters()) as memory:
        assert memory.now == 4 * 5000
        view = layer.weight.T[:10]
        assert memory.now == 4 * 5000
        copy = view.clone()
        assert memory.now == 4 * (5000 + 500)
        del copy, view
        layer(torch.ones(3, 100)).sum().backward()
        assert memory.now == 4 * 2 * 5000  # the gradient stays
    assert memory.peak >= memory.now
