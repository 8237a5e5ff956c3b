"""Low-rank adapters (LoRA, arXiv:2106.09685) in a language model, by peft; the only file that
imports it.

The model stays the PreTrainedModel it was: its linear maps are exchanged for ones that hold the
frozen weight and, beside it, A of (rank, in) and B of (out, rank).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from rlvr_zoo.config import LoraConfig
from rlvr_zoo.errors import ModelError, nearest
from rlvr_zoo.train.extras import optional
from rlvr_zoo.train.sharding import whole

_ADAPTER, _BASE = "lora_", ".base_layer"
"""In peft's names of parameters: an adapter's, and a weight that has one."""
_VALUE_HEAD = "value_head."
"""In the names of a Network's."""


def add_adapters(lm: PreTrainedModel, config: LoraConfig, seed: int) -> None:
    """Freezes the model and gives it fp32 adapters, which change nothing yet: A is drawn from the
    seed, B is zero.

    To be done before the model is sharded.  Raises ModelError where a target is no linear map of
    the model's, ConfigError where peft is missing.
    """
    targets = _targets(lm, config)
    with optional("peft", "lora", f"lora.rank={config.rank}"):
        import peft
    make: Any = peft.LoraConfig  # whose alpha is an int by its annotation only
    settings = make(r=config.rank, lora_alpha=config.alpha, target_modules=targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, lm)
    lm.train(lm.training)  # what was exchanged comes in training mode
    lm.requires_grad_(False)
    for parameter in adapter_parameters(lm):
        parameter.data = parameter.data.float()
        parameter.requires_grad_(True)


def _targets(lm: PreTrainedModel, config: LoraConfig) -> list[str]:
    """Full names of the linear maps that get an adapter."""
    head = lm.get_output_embeddings()
    linear = [n for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not head]
    if config.targets == "all-linear":
        if not linear:
            raise ModelError(f"{type(lm).__name__} has no linear maps for LoRA; set lora.rank=0")
        return linear
    known = {name.rpartition(".")[2] for name in linear}
    for target in config.targets:
        if not any(f".{name}".endswith(f".{target}") for name in linear):
            raise ModelError(
                f"lora.targets: {type(lm).__name__} has no linear map {target!r} beside its head;"
                f" {nearest(target, known)}"
            )
    return [n for n in linear if any(f".{n}".endswith(f".{target}") for target in config.targets)]


def has_adapters(lm: nn.Module) -> bool:
    return any(_ADAPTER in name for name, _ in lm.named_parameters())


def adapter_parameters(lm: nn.Module) -> list[nn.Parameter]:
    """Every A and B, in the model's order; none where it has no adapters."""
    return [parameter for name, parameter in lm.named_parameters() if _ADAPTER in name]


def own(module: nn.Module) -> dict[str, nn.Parameter]:
    """What belongs to a model alone: its adapters and value head, or, without adapters,
    everything."""
    named = dict(module.named_parameters())
    if not has_adapters(module):
        return named
    return {n: p for n, p in named.items() if _ADAPTER in n or n.startswith(_VALUE_HEAD)}


def copied(lm: PreTrainedModel) -> PreTrainedModel:
    """A copy with adapters of its own on the same frozen weights and buffers, in the same memory.

    To be made before the model is sharded.  A model without adapters is copied whole.
    """
    if not has_adapters(lm):
        return copy.deepcopy(lm)
    own = {id(parameter) for parameter in adapter_parameters(lm)}
    shared = {id(t): t for t in (*lm.parameters(), *lm.buffers()) if id(t) not in own}
    return copy.deepcopy(lm, shared)


@torch.no_grad()
def merged(lm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The weights under their Hugging Face names, tied ones once, with adapters added in:
    W + alpha / rank * B A, fp32.

    To be gone through on every rank: a sharded model's are gathered one at a time, from the fp32
    shards.  Where there is nothing to add or gather, these are the parameters themselves.
    """
    for name, parameter in lm.named_parameters():
        if _ADAPTER in name:
            continue
        owner, _, leaf = name.rpartition(".")
        weight = whole(parameter)
        if owner.endswith(_BASE) and leaf == "weight":
            weight = weight + _update(lm.get_submodule(owner.removesuffix(_BASE)))
        yield name.replace(_BASE, ""), weight


def _update(layer: Any) -> Tensor:
    (adapter,) = layer.active_adapters
    a, b = (whole(maps[adapter].weight) for maps in (layer.lora_A, layer.lora_B))
    update: Tensor = (b @ a) * layer.scaling[adapter]
    return update
