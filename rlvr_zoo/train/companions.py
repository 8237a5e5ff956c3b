"""The models that an algorithm keeps beside the policy, in fp32."""

from __future__ import annotations

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn

from rlvr_zoo.api import Companion, Critic, Ema
from rlvr_zoo.train.adapters import copied, own
from rlvr_zoo.train.network import Network
from rlvr_zoo.train.sharding import local


class CompanionModel:
    """A copy of the start policy that stays, follows by momentum, or learns values."""

    def __init__(self, policy: Network, kind: Companion) -> None:
        lm = copied(policy.lm)
        self.is_trained = isinstance(kind, Critic)
        self.network = Network(lm, self.is_trained, policy.logits_tokens)
        for parameter in own(self.network).values():  # with adapters, the rest is frozen anyway
            parameter.requires_grad_(self.is_trained)
        if self.is_trained and not lm.config.get_text_config().tie_word_embeddings:
            lm.get_output_embeddings().requires_grad_(False)  # a critic speaks no tokens
        self._follow = get_ema_multi_avg_fn(kind.decay) if isinstance(kind, Ema) else None

    @torch.no_grad()
    def follow(self, policy: Network) -> None:
        """After an optimizer step: copy <- decay * copy + (1 - decay) * policy, where it moves."""
        if self._follow is not None:
            mine, its = own(self.network.lm).values(), own(policy.lm).values()
            self._follow([local(p) for p in mine], [local(p) for p in its], None)
