"""How many parameters a run holds and trains, from its settings and the model's shape."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from rlvr_zoo.api import Critic, Output, Spec
from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.shape import ModelShape
from rlvr_zoo.plan.work import trained_models

FP32, BF16 = 4, 2
"""Bytes of a number."""


@dataclass(frozen=True)
class Parameters:
    """Numbers of whole models, however they are shared out to ranks."""

    config: RunConfig
    shape: ModelShape
    spec: Spec

    @cached_property
    def adapters(self) -> int:
        """LoRA's in one model.  Raises ConfigError for targets that the model does not have."""
        return self.shape.num_adapter_parameters(self.config.lora)

    @cached_property
    def trained_models(self) -> dict[str, frozenset[Output]]:
        """The models that have gradients, and what the loss asks of each."""
        return trained_models(self.spec)

    def value_head(self, name: str) -> int:
        """Of that model's linear map from features to values; 0 for none."""
        has_one = isinstance(self.spec.companions.get(name), Critic)
        has_one |= name == "policy" and "value" in self.spec.loss["policy"]
        return self.shape.hidden_size + 1 if has_one else 0

    @cached_property
    def policy(self) -> int:
        return self.shape.num_parameters + self.adapters + self.value_head("policy")

    def companions(self, *, own_bases: bool) -> int:
        """Of all companions; with adapters, `own_bases` says whether each holds the frozen weights
        anew, or they share the policy's."""
        each = self.adapters
        if own_bases or not self.adapters:
            each += self.shape.num_parameters
        return sum(each + self.value_head(name) for name in self.spec.companions)

    @cached_property
    def head(self) -> int:
        """Of the trained head that the algorithm builds on features; 0 for none."""
        if self.spec.head is None:
            return 0
        import torch

        with torch.device("meta"):
            head = self.spec.head(self.shape.hidden_size)
        return sum(p.numel() for p in head.parameters())

    @cached_property
    def trained(self) -> int:
        """Parameters with gradients and moments."""
        total = self.head
        for name in self.trained_models:
            total += self.value_head(name)
            if self.adapters:
                total += self.adapters
                continue
            total += self.shape.num_parameters
            if name != "policy" and not self.shape.tied:  # a critic speaks no tokens
                total -= self.shape.num_embedding_parameters
        return total
