"""A model's sizes, from its configuration alone: no weights are read or made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlvr_zoo.config import LoraConfig, ModelConfig
from rlvr_zoo.errors import ConfigError, ModelError, first_line
from rlvr_zoo.resolve import presets

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True, kw_only=True)
class ModelShape:
    """Sizes of a causal language model, equal layers between an embedding and a head."""

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied: bool
    """The head is the embedding."""
    max_positions: int
    """0 where the model states none."""
    num_parameters: int
    """All of them, a tied head once."""
    num_layer_parameters: int
    """Of one layer."""
    linear_maps: tuple[tuple[str, int, int], ...]
    """Of one layer: name, width in, width out."""

    @property
    def num_embedding_parameters(self) -> int:
        """Of the embedding; of the head as many again, where it is not tied."""
        return self.vocab_size * self.hidden_size

    @property
    def num_root_parameters(self) -> int:
        """What is in no layer: embedding, head, last norm."""
        return self.num_parameters - self.num_layers * self.num_layer_parameters

    def num_adapter_parameters(self, lora: LoraConfig) -> int:
        """LoRA's: rank x (in + out) for each linear map that gets an adapter.

        Raises ConfigError where `lora.targets` names no linear map.
        """
        if not lora.rank:
            return 0
        chosen = [
            (d_in, d_out)
            for name, d_in, d_out in self.linear_maps
            if lora.targets == "all-linear" or name.split(".")[-1] in lora.targets
        ]
        if not chosen:
            known = ", ".join(name.split(".")[-1] for name, _, _ in self.linear_maps)
            raise ConfigError(f"lora.targets={lora.targets}: the model's layers have {known}")
        return self.num_layers * lora.rank * sum(d_in + d_out for d_in, d_out in chosen)


def load_shape(config: ModelConfig) -> ModelShape:
    """The shape of the model that the settings name.

    The built-in tiny model and presets with an `architecture` need neither hub nor files.  Raises
    ModelError where the configuration cannot be read, or is not of a model with equal layers.
    """
    if not config.path:
        return _tiny()
    known = presets("models").get(config.name, {})
    same = known.get("model", {}).get("path") == config.path
    if same and "architecture" in known:
        return shape_of(_on_meta(_from_preset(known["architecture"])))
    from transformers import AutoConfig

    revision = {"revision": config.revision} if config.revision else {}
    try:
        found = AutoConfig.from_pretrained(config.path, **revision)
        model = _on_meta(found)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {config.name!r}: its configuration cannot be read: {first_line(error)};"
            " name a local folder in Hugging Face's layout, or a preset (`rlvr-zoo list models`),"
            " or connect to the hub"
        ) from error
    return shape_of(model)


def _from_preset(architecture: Mapping[str, Any]) -> PretrainedConfig:
    from transformers import AutoConfig

    settings = dict(architecture)
    found: PretrainedConfig = AutoConfig.for_model(settings.pop("model_type"), **settings)
    return found


def _on_meta(config: PretrainedConfig) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


def _tiny() -> ModelShape:
    import torch

    from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer

    with torch.device("meta"):
        return shape_of(build_model(Recipe(), build_tokenizer(Recipe())))


def shape_of(model: PreTrainedModel) -> ModelShape:
    """The shape of a model, whose weights may be on the meta device.

    Raises ModelError for an architecture that is not a stack of equal layers with known widths.
    """
    from torch import nn

    config = model.config.get_text_config()
    layers = getattr(model.base_model, "layers", None)
    wanted = ("hidden_size", "num_attention_heads", "intermediate_size", "vocab_size")
    if layers is None or any(getattr(config, name, None) is None for name in wanted):
        raise ModelError(
            f"{type(model).__name__}: its sizes are not where plans look for them (layers,"
            f" {', '.join(wanted)}); take a model of the Llama or Qwen kind"
        )
    heads = int(config.num_attention_heads)
    return ModelShape(
        hidden_size=int(config.hidden_size),
        num_layers=len(layers),
        num_heads=heads,
        num_kv_heads=int(getattr(config, "num_key_value_heads", None) or heads),
        head_dim=int(getattr(config, "head_dim", None) or config.hidden_size // heads),
        intermediate_size=int(config.intermediate_size),
        vocab_size=int(config.vocab_size),
        tied=bool(config.tie_word_embeddings),
        max_positions=int(getattr(config, "max_position_embeddings", 0) or 0),
        num_parameters=sum(p.numel() for p in model.parameters()),
        num_layer_parameters=sum(p.numel() for p in layers[0].parameters()),
        linear_maps=tuple(
            (name, module.in_features, module.out_features)
            for name, module in layers[0].named_modules()
            if isinstance(module, nn.Linear)
        ),
    )
