"""A model's sizes without its weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr_zoo.config import LoraConfig, ModelConfig
from rlvr_zoo.errors import ConfigError, ModelError
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.resolve import presets, resolve

PUBLISHED = {
    "qwen-math-7b": 7_615_616_512,
    "qwen-math-1.5b": 1_543_714_304,
    "qwen2.5-0.5b": 494_032_768,
    "llama-3.2-3b": 3_212_749_824,
}
"""Parameters that the hub states of each."""


def shape(model: str) -> ModelShape:
    return load_shape(resolve({}, {"algo": "grpo", "model": model}).model)


@pytest.mark.parametrize(("model", "number"), PUBLISHED.items())
def test_presets_have_as_many_parameters_as_their_models(model: str, number: int) -> None:
    found = shape(model)
    assert found.num_parameters == number
    assert found.head_dim * found.num_heads == found.hidden_size


def test_every_preset_has_a_shape_without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for model in presets("models"):
        found = shape(model)
        heads = 1 if found.tied else 2
        assert found.num_root_parameters == (
            heads * found.num_embedding_parameters + found.hidden_size
        )


def test_a_folder_is_read_without_weights(tmp_path: Path) -> None:
    settings = {
        "model_type": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 96,
        "vocab_size": 100,
        "tie_word_embeddings": False,
    }
    (tmp_path / "config.json").write_text(json.dumps(settings))
    found = load_shape(ModelConfig(name="mine", path=str(tmp_path)))
    layer = 64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 96 + 2 * 64
    assert found.num_layer_parameters == layer
    assert found.num_parameters == 3 * layer + 2 * 100 * 64 + 64


def test_a_presets_shape_is_for_its_own_path_only(tmp_path: Path) -> None:
    config = resolve({}, {"algo": "grpo", "model": "qwen2.5-0.5b"}).model
    with pytest.raises(ModelError, match="cannot be read"):
        load_shape(replace(config, path=str(tmp_path)))  # an empty folder


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError) as caught:
        load_shape(ModelConfig(name="mine", path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_another_architecture_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", "n_layer": 2}))
    with pytest.raises(ModelError, match="Llama or Qwen") as caught:
        load_shape(ModelConfig(name="mine", path=str(tmp_path)))
    assert "\n" not in str(caught.value)


def test_adapters_are_rank_times_both_widths() -> None:
    tiny = shape("tiny")  # 2 layers of 4 x 128 to 128, 2 x 128 to 256, 256 to 128
    widths = 4 * (128 + 128) + 3 * (128 + 256)
    assert tiny.num_adapter_parameters(LoraConfig(rank=8)) == 2 * 8 * widths
    some = LoraConfig(rank=8, targets=["q_proj", "v_proj"])
    assert tiny.num_adapter_parameters(some) == 2 * 8 * 2 * 256
    assert tiny.num_adapter_parameters(LoraConfig(rank=0)) == 0
    with pytest.raises(ConfigError, match="q_proj"):
        tiny.num_adapter_parameters(LoraConfig(rank=8, targets=["query"]))
