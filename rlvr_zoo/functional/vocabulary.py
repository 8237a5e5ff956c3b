"""Log-probs and entropies over a vocabulary, without the logits of all tokens at once.

Axes: M tokens of all rows, C tokens of a chunk, S tokens of a block inside it, V vocabulary,
D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

BLOCK_ELEMENTS = {"cpu": 2**20}
"""Logits that are worked on at once, by device: on a CPU few enough for its cache."""
BLOCK_ELEMENTS_ELSEWHERE = 2**24
"""The same where starting work costs more than memory traffic, as on a GPU."""
PRODUCT_ROWS = 2**14
"""Rows of the weight's gradient that wait for their sum in a narrow type."""


def logp_and_entropy(
    logits_MV: Float[Tensor, "m v"], target_M: Int64[Tensor, "m"], *, entropy: bool
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"] | None]:
    """log p(target) and, where asked for, H = -sum_v p_v log p_v, in nats; p = softmax(logits)."""
    if not entropy:
        return -F.cross_entropy(logits_MV, target_M, reduction="none"), None
    logp_MV = logits_MV.log_softmax(-1)
    chosen_M = logp_MV.gather(-1, target_M[:, None])[:, 0]
    return chosen_M, -(logp_MV.exp() * logp_MV).sum(-1)


def token_logp_and_entropy(
    hidden_MD: Float[Tensor, "m d"],
    weight_VD: Float[Tensor, "v d"],
    target_M: Int64[Tensor, "m"],
    temperature: float,
    *,
    bias_V: Float[Tensor, "v"] | None = None,
    entropy: bool,
    chunk_tokens: int,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"] | None]:
    """`logp_and_entropy` of the logits (hidden W^T + bias) / temperature.

    Never holds more than (chunk_tokens, V) of them; the backward pass computes them anew, one
    matrix product more than the plain computation's three.  Products are in autocast's type where
    it is on, else in the inputs' type; what is returned is fp32, or fp64 of fp64 inputs.
    """
    apply: Callable[..., tuple[Tensor, Tensor | None]] = _TokenLogp.apply
    return apply(hidden_MD, weight_VD, bias_V, target_M, temperature, entropy, chunk_tokens)


class _Logits:
    """Yields (rows, hidden_CD, logits_CV), chunk after chunk, each into the memory of the last."""

    def __init__(
        self,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        dtype: torch.dtype,
        chunk_tokens: int,
    ) -> None:
        self.weight_VD = weight_VD.to(dtype)
        self._bias_V = None if bias_V is None else bias_V.to(dtype)
        self._hidden_MD, self._dtype, self._chunk_tokens = hidden_MD, dtype, chunk_tokens

    def __iter__(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        hidden_MD, vocabulary = self._hidden_MD, len(self.weight_VD)
        num_held = min(len(hidden_MD), self._chunk_tokens)
        held_CV = hidden_MD.new_empty(num_held, vocabulary, dtype=self._dtype)
        for start in range(0, len(hidden_MD), self._chunk_tokens):
            hidden_CD = hidden_MD[start : start + self._chunk_tokens].to(self._dtype)
            logits_CV = held_CV[: len(hidden_CD)]
            if self._bias_V is None:
                torch.mm(hidden_CD, self.weight_VD.T, out=logits_CV)
            else:
                torch.addmm(self._bias_V, hidden_CD, self.weight_VD.T, out=logits_CV)
            yield slice(start, start + len(hidden_CD)), hidden_CD, logits_CV


def _blocks(
    rows: slice, logits_CV: Tensor, temperature: float, dtype: torch.dtype
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields (rows, held_SV, z_SV): part of the chunk, and its scaled logits in the wide type.

    `z_SV` is `held_SV` itself where the types agree.
    """
    limit = BLOCK_ELEMENTS.get(logits_CV.device.type, BLOCK_ELEMENTS_ELSEWHERE)
    size = max(1, limit // logits_CV.shape[1])
    for start in range(0, len(logits_CV), size):
        held_SV = logits_CV[start : start + size]
        z_SV = held_SV.to(dtype)
        if temperature != 1.0:
            z_SV.div_(temperature)
        begin = rows.start + start
        yield slice(begin, begin + len(held_SV)), held_SV, z_SV


class _TokenLogp(torch.autograd.Function):
    """Saves, beside its inputs, each token's largest logit and sum_v exp(logit - largest)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_MD: Tensor,
        weight_VD: Tensor,
        bias_V: Tensor | None,
        target_M: Tensor,
        temperature: float,
        entropy: bool,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor | None]:
        narrow, wide = _types(hidden_MD)
        top_M, sum_M, logp_M = (hidden_MD.new_empty(len(hidden_MD), dtype=wide) for _ in range(3))
        entropy_M = torch.empty_like(logp_M) if entropy else None
        with torch.autocast(hidden_MD.device.type, enabled=False):
            for rows, _, logits_CV in _Logits(hidden_MD, weight_VD, bias_V, narrow, chunk_tokens):
                for at, _, z_SV in _blocks(rows, logits_CV, temperature, wide):
                    top_M[at] = z_SV.amax(-1)
                    z_SV.sub_(top_M[at, None])
                    logp_M[at] = z_SV.gather(-1, target_M[at, None])[:, 0]
                    exp_SV = z_SV.exp() if entropy else z_SV.exp_()
                    sum_M[at] = exp_SV.sum(-1)
                    if entropy_M is not None:
                        entropy_M[at] = -exp_SV.mul_(z_SV).sum(-1)
        # with the largest logit taken out first, log p near 0 keeps its digits
        logp_M -= sum_M.log()
        if entropy_M is not None:
            entropy_M.div_(sum_M).add_(sum_M.log())
        ctx.save_for_backward(hidden_MD, weight_VD, bias_V, target_M, top_M, sum_M, entropy_M)
        ctx.settings = narrow, wide, temperature, chunk_tokens
        ctx.set_materialize_grads(False)
        return logp_M, entropy_M

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_logp_M: Tensor | None, g_entropy_M: Tensor | None) -> Any:
        hidden_MD, weight_VD, bias_V, target_M, top_M, sum_M, entropy_M = ctx.saved_tensors
        narrow, wide, temperature, chunk_tokens = ctx.settings
        needs_hidden, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grad_MD = torch.empty_like(hidden_MD) if needs_hidden else None
        # summed over chunks in the wide type: every chunk would round the sum of all before it
        grad_VD = torch.zeros_like(weight_VD, dtype=wide) if needs_weight else None
        grad_V = torch.zeros_like(bias_V, dtype=wide) if needs_bias else None
        g_M, c0_M, c1_M = _coefficients(g_logp_M, g_entropy_M, sum_M, entropy_M, temperature)
        with torch.autocast(hidden_MD.device.type, enabled=False):
            logits = _Logits(hidden_MD, weight_VD, bias_V, narrow, chunk_tokens)
            for rows, hidden_CD, logits_CV in logits:
                for at, held_SV, z_SV in _blocks(rows, logits_CV, temperature, wide):
                    z_SV.sub_(top_M[at, None])
                    if c1_M is None:
                        z_SV.exp_().mul_(c0_M[at, None])
                    else:
                        exp_SV = z_SV.exp()
                        z_SV.mul_(c1_M[at, None]).add_(c0_M[at, None]).mul_(exp_SV)
                    z_SV.scatter_add_(-1, target_M[at, None], g_M[at, None])
                    if z_SV is not held_SV:
                        held_SV.copy_(z_SV)
                    if grad_V is not None:
                        grad_V += z_SV.sum(0)
                if grad_MD is not None:
                    grad_MD[rows] = logits_CV @ logits.weight_VD
                if grad_VD is not None:
                    _add_product(grad_VD, logits_CV, hidden_CD)
        if grad_VD is not None:
            grad_VD = grad_VD.to(weight_VD.dtype)
        if grad_V is not None:
            grad_V = grad_V.to(bias_V.dtype)
        return grad_MD, grad_VD, grad_V, None, None, None, None


def _types(hidden_MD: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """What matrix products are computed in, and what sums over the vocabulary are."""
    narrow, device = hidden_MD.dtype, hidden_MD.device.type
    if torch.is_autocast_enabled(device) and narrow != torch.float64:
        narrow = torch.get_autocast_dtype(device)
    return narrow, torch.promote_types(narrow, torch.float32)


def _coefficients(
    g_logp_M: Tensor | None,
    g_entropy_M: Tensor | None,
    sum_M: Tensor,
    entropy_M: Tensor | None,
    temperature: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """g, c0, c1: the logits' gradient is exp(z) (c0 + c1 z), and g more at the target.

    It is g_logp (onehot - p) - g_entropy p (log p + H), over the temperature, and z, the logits
    less their largest, give p = exp(z) / sum and log p = z - log sum.
    """
    g_M = torch.zeros_like(sum_M) if g_logp_M is None else g_logp_M / temperature
    c0_M = -g_M / sum_M
    if g_entropy_M is None:
        return g_M, c0_M, None
    assert entropy_M is not None
    c1_M = -g_entropy_M / (temperature * sum_M)
    return g_M, c0_M + c1_M * (entropy_M - sum_M.log()), c1_M


def _add_product(total_VD: Tensor, g_CV: Tensor, hidden_CD: Tensor) -> None:
    """total += g^T hidden, where the total's type may be wider."""
    if total_VD.dtype == g_CV.dtype:
        total_VD.addmm_(g_CV.T, hidden_CD)
        return
    for start in range(0, len(total_VD), PRODUCT_ROWS):
        part = slice(start, start + PRODUCT_ROWS)
        total_VD[part] += g_CV[:, part].T @ hidden_CD
