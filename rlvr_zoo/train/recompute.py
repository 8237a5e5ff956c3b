"""Gradient checkpointing: activations computed anew in the backward pass, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from rlvr_zoo.errors import ModelError, first_line


def recompute_activations(lm: PreTrainedModel) -> None:
    """Has transformers keep only the input of every layer that is `recomputed`.

    Raises ModelError where the model cannot, or would drop out activations.
    """
    # 5.2x renames it, and warns of the old name
    enable = getattr(lm, "activation_checkpointing_enable", None)
    try:
        (enable or lm.gradient_checkpointing_enable)({"use_reentrant": False})
    except ValueError as error:
        raise _cannot(lm, first_line(error)) from error
    lm.disable_input_require_grads()  # a hook for reentrant checkpointing of frozen weights
    layers = _layers(lm)
    if not layers:
        raise _cannot(lm, "none of its layers is a GradientCheckpointingLayer")
    for layer in layers:
        for name, value in vars(layer).items():
            if "drop" in name and isinstance(value, float) and value > 0:
                raise _cannot(lm, f"{type(layer).__name__}.{name}={value} would drop activations")


def _cannot(lm: PreTrainedModel, why: str) -> ModelError:
    return ModelError(
        f"{type(lm).__name__} cannot compute its activations anew ({why.rstrip('.')});"
        " set train.gradient_checkpointing=false and a smaller train.micro_batch_tokens"
    )


@contextmanager
def recomputed(lm: PreTrainedModel) -> Iterator[None]:
    """Around a forward pass, whose activations are not kept where `recompute_activations` was said.

    Transformers checkpoints a layer only if it is in training mode, which models here never are.
    So the layers are, for as long as this lasts, and what is inside them is not.  Beyond it they
    must not be: a layer that is checkpointed throws the cache away, and sampling would go wrong.
    """
    layers = _layers(lm) if torch.is_grad_enabled() else []
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = True
    try:
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _layers(lm: PreTrainedModel) -> list[nn.Module]:
    """Those whose activations are to be computed anew."""
    return [
        module
        for module in lm.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
