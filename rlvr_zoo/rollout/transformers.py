"""The engine that samples by transformers: from the trainer's own model, or, where each rank holds
only a part of that, from a copy that every sync brings up to date.

A prompt is computed once and its key-value cache is shared out to the group.  Rows that have ended
leave the batch once a quarter of it is idle.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformers import DynamicCache

from rlvr_zoo.api import Rollout
from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import PLAIN, Compute, Request, Sampling, Weights
from rlvr_zoo.rollout.sampling import draw, uniforms

IDLE_SHARE = 0.25
"""Ended rows leave when they are this share of the batch: leaving copies the cache."""


class TransformersEngine:
    """Batched sampling with a key-value cache."""

    exact = True
    follows = True

    def __init__(self, model: LoadedModel, config: RolloutConfig, compute: Compute = PLAIN) -> None:
        """To be made before the model is sharded."""
        self._lm, self._tokenizer = model.lm, model.tokenizer
        self._eos = torch.tensor(sorted(model.eos_ids))
        self.batch_tokens = config.batch_tokens
        self._autocast, self._is_copy = compute.autocast, compute.is_sharded
        if self._is_copy:
            self._lm = copy.deepcopy(model.lm)
            nn.Module.to(self._lm, compute.device)
            for parameter in self._lm.parameters():  # not buffers: rotary frequencies want fp32
                parameter.data = parameter.data.to(compute.dtype)
            if compute.dtype != torch.float32:  # the trainer's shards are rounded elsewhere
                self.exact = False

    @torch.no_grad()
    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        """For each request one rollout a seed, in order."""
        with self._autocast():
            return [
                rollouts
                for chunk in self._chunks(requests, sampling)
                for rollouts in self._generate(chunk, sampling)
            ]

    @torch.no_grad()
    def sync(self, weights: Weights, version: int) -> None:
        """Brings a copy up to date; nothing to do for the trainer's own model."""
        if self._is_copy:
            mine = dict(self._lm.named_parameters())
            for name, tensor in weights():
                mine[name].copy_(tensor)

    def rest(self) -> None:
        """Nothing to free: no cache outlives `generate`."""

    def close(self) -> None:
        """Nothing to end."""

    def _chunks(
        self, requests: Sequence[Request], sampling: Sampling
    ) -> Iterator[Sequence[Request]]:
        """Runs of requests whose caches together stay within `batch_tokens`; one at the least."""
        start, rows, width = 0, 0, 0
        for stop, request in enumerate(requests):
            rows += len(request.seeds)
            width = max(width, len(request.prompt_ids))
            full = rows * (width + sampling.max_completion_tokens) > self.batch_tokens
            if full and stop > start:
                yield requests[start:stop]
                start, rows, width = stop, len(request.seeds), len(request.prompt_ids)
        if start < len(requests):
            yield requests[start:]

    def _generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        device = self._lm.device
        eos = self._eos.to(device)
        owner_N = torch.tensor([p for p, request in enumerate(requests) for _ in request.seeds])
        owner_N = owner_N.to(device)
        uniform_NT = uniforms(
            [seed for request in requests for seed in request.seeds], sampling.max_completion_tokens
        ).to(device)
        shape = uniform_NT.shape
        token_NT = torch.zeros(shape, dtype=torch.int64, device=device)
        logp_NT = torch.zeros(shape, dtype=torch.float32, device=device)
        length_N = torch.full(shape[:1], shape[1], device=device)
        ended_N = torch.zeros(shape[:1], dtype=torch.bool, device=device)

        logits_PV, cache, mask_PL = self._prefill([request.prompt_ids for request in requests])
        cache.batch_select_indices(owner_N)
        logits_NV = logits_PV[owner_N]
        mask_NL = None if mask_PL is None else mask_PL[owner_N]
        live = torch.arange(shape[0], device=device)  # rows still in the batch
        for t in range(shape[1]):
            token, logp = draw(logits_NV, uniform_NT[live, t], sampling)
            open_ = ~ended_N[live]
            token_NT[live[open_], t] = token[open_]
            logp_NT[live[open_], t] = logp[open_]
            ends = torch.isin(token, eos) & open_
            length_N[live[ends]] = t + 1
            ended_N[live[ends]] = True
            keep = (~ended_N[live]).nonzero()[:, 0]
            if len(keep) == 0 or t + 1 == shape[1]:
                break
            if len(keep) <= (1 - IDLE_SHARE) * len(live):
                cache.batch_select_indices(keep)
                live, token = live[keep], token[keep]
                mask_NL = None if mask_NL is None else mask_NL[keep]
            logits_NV, mask_NL = self._decode(token, cache, mask_NL)
        return self._collect(requests, token_NT, logp_NT, length_N, ended_N)

    def _prefill(
        self, prompts: Sequence[tuple[int, ...]]
    ) -> tuple[Float[Tensor, "p v"], DynamicCache, Int64[Tensor, "p l"] | None]:
        """Logits after each prompt, the cache, and the attention mask where lengths differ."""
        width = max(len(prompt) for prompt in prompts)
        cache = DynamicCache(config=self._lm.config)
        ids_PL = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        ids_PL = ids_PL.to(self._lm.device)
        length_P1 = torch.tensor([[len(prompt)] for prompt in prompts], device=ids_PL.device)
        if bool((length_P1 == width).all()):
            out = self._lm(
                input_ids=ids_PL, past_key_values=cache, use_cache=True, logits_to_keep=1
            )
            return out.logits[:, -1], cache, None
        place_L = torch.arange(width, device=ids_PL.device)
        mask_PL = (place_L >= width - length_P1).long()  # padded on the left
        out = self._lm(
            input_ids=ids_PL,
            attention_mask=mask_PL,
            position_ids=(mask_PL.cumsum(-1) - 1).clamp_min(0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return out.logits[:, -1], cache, mask_PL

    def _decode(
        self, token_N: Int64[Tensor, "n"], cache: DynamicCache, mask_NL: Int64[Tensor, "n l"] | None
    ) -> tuple[Float[Tensor, "n v"], Int64[Tensor, "n l"] | None]:
        """Logits after one more token of each row."""
        padding = {}
        if mask_NL is not None:
            mask_NL = torch.cat([mask_NL, torch.ones_like(mask_NL[:, :1])], dim=1)
            padding = {"attention_mask": mask_NL, "position_ids": mask_NL.sum(1, keepdim=True) - 1}
        out = self._lm(input_ids=token_N[:, None], past_key_values=cache, use_cache=True, **padding)
        return out.logits[:, -1], mask_NL

    def _collect(
        self,
        requests: Sequence[Request],
        token_NT: Int64[Tensor, "n t"],
        logp_NT: Float[Tensor, "n t"],
        length_N: Int64[Tensor, "n"],
        ended_N: Tensor,
    ) -> list[list[Rollout]]:
        lengths = length_N.tolist()
        ids = [row[:n] for row, n in zip(token_NT.tolist(), lengths, strict=True)]
        logps = [row[:n] for row, n in zip(logp_NT.tolist(), lengths, strict=True)]
        texts = self._tokenizer.batch_decode(ids, skip_special_tokens=True)
        rows = iter(zip(ids, logps, texts, ended_N.tolist(), strict=True))
        return [
            [
                Rollout(ids=tuple(i), logp=tuple(p), text=text, truncated=not ended)
                for i, p, text, ended in (next(rows) for _ in request.seeds)
            ]
            for request in requests
        ]
