"""A language model as an algorithm sees it: log-probs, entropies and features of completions."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from rlvr_zoo.api import Output
from rlvr_zoo.errors import ModelError
from rlvr_zoo.functional.vocabulary import logp_and_entropy, token_logp_and_entropy
from rlvr_zoo.train.recompute import recomputed


class Network(nn.Module):
    """Wraps a causal language model; its forward pass gives what a `Spec` may ask for."""

    def __init__(
        self, lm: PreTrainedModel, value_head: bool = False, logits_tokens: int = 1024
    ) -> None:
        """A value head starts at zero, so that its first values are 0.

        Logits over the vocabulary are held of at most `logits_tokens` tokens at once.
        """
        super().__init__()
        self.lm = lm
        self.logits_tokens = logits_tokens
        self.value_head = nn.Linear(width_of(lm), 1) if value_head else None
        if self.value_head is not None:
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def forward(
        self,
        ids_NL: Int64[Tensor, "n l"],
        prompt_tokens_N: Int64[Tensor, "n"],
        mask_NT: Float[Tensor, "n t"],
        outputs: Iterable[Output],
        temperature: float,
    ) -> dict[Output, Tensor]:
        """Rows are prompt and completion in one, right padded; the mask counts completion tokens.

        Log-probs and entropies are at the temperature, 0 on padding, fp32.
        """
        wanted = set(outputs)
        # a row's last token predicts nothing: only its features need it to be read
        read_NL = ids_NL if "hidden" in wanted else ids_NL[:, :-1]
        with recomputed(self.lm):
            hidden_NLD = self.lm.base_model(input_ids=read_NL, use_cache=False).last_hidden_state
        found: dict[Output, Tensor] = {}
        if "hidden" in wanted:
            found["hidden"] = pooled(hidden_NLD, prompt_tokens_N, mask_NT)
        # only completion tokens go on, M of them over all rows; the token at place p is
        # predicted, and its value estimated, at place p - 1
        row_M, t_M = mask_NT.nonzero(as_tuple=True)
        place_M = prompt_tokens_N[row_M] + t_M
        flat_M = row_M * hidden_NLD.shape[1] + place_M - 1
        hidden_MD = hidden_NLD.flatten(0, 1).index_select(0, flat_M)
        tokens: dict[Output, Tensor] = {}
        if wanted & {"logp", "entropy"}:
            target_M = ids_NL[row_M, place_M]
            tokens |= self._policy_outputs(hidden_MD, target_M, "entropy" in wanted, temperature)
        if "value" in wanted:
            assert self.value_head is not None, "values were asked of a model without a value head"
            tokens["value"] = self.value_head(hidden_MD)[:, 0].float()
        spread = {
            name: torch.zeros_like(mask_NT).index_put((row_M, t_M), value_M)
            for name, value_M in tokens.items()
        }
        return found | spread

    def _policy_outputs(
        self,
        hidden_MD: Float[Tensor, "m d"],
        target_M: Int64[Tensor, "m"],
        entropy: bool,
        temperature: float,
    ) -> dict[Output, Tensor]:
        head = self.lm.get_output_embeddings()
        if reads_weight(head):
            logp_M, entropy_M = token_logp_and_entropy(
                hidden_MD,
                head.weight,
                target_M,
                temperature,
                bias_V=head.bias,
                entropy=entropy,
                chunk_tokens=self.logits_tokens,
            )
        else:
            logp_M, entropy_M = _by_chunks(
                head, hidden_MD, target_M, temperature, entropy, self.logits_tokens
            )
        return {"logp": logp_M} if entropy_M is None else {"logp": logp_M, "entropy": entropy_M}


def reads_weight(head: nn.Module) -> bool:
    """Is the head a plain linear map, whose weight is read and which is never called?"""
    return type(head) is nn.Linear and "forward" not in vars(head)


def _by_chunks(
    head: nn.Module,
    hidden_MD: Float[Tensor, "m d"],
    target_M: Int64[Tensor, "m"],
    temperature: float,
    entropy: bool,
    logits_tokens: int,
) -> tuple[Float[Tensor, "m"], Float[Tensor, "m"] | None]:
    """From a head of any kind, which is called on one chunk of tokens after the other."""

    def chunk(hidden_CD: Tensor, target_C: Tensor) -> tuple[Tensor, Tensor | None]:
        logits_CV = head(hidden_CD).float() / temperature
        return logp_and_entropy(logits_CV, target_C, entropy=entropy)

    chunks = zip(hidden_MD.split(logits_tokens), target_M.split(logits_tokens), strict=True)
    found = [checkpoint(chunk, *part, use_reentrant=False) for part in chunks]
    logps, entropies = zip(*found, strict=True)
    return torch.cat(logps), torch.cat(entropies) if entropy else None


def width_of(lm: PreTrainedModel) -> int:
    """D, the hidden width."""
    return int(lm.config.get_text_config().hidden_size)


def pooled(
    hidden_NLD: Float[Tensor, "n l d"],
    prompt_tokens_N: Int64[Tensor, "n"],
    mask_NT: Float[Tensor, "n t"],
) -> Float[Tensor, "n d"]:
    """Mean of the last hidden state over each row's completion tokens, fp32."""
    length_N1 = mask_NT.sum(1, keepdim=True)
    place_L = torch.arange(hidden_NLD.shape[1], device=hidden_NLD.device)
    start_N1 = prompt_tokens_N[:, None]
    inside_NL = (place_L >= start_N1) & (place_L < start_N1 + length_N1)
    weight_NL = inside_NL / length_N1.clamp_min(1.0)
    with torch.autocast(hidden_NLD.device.type, enabled=False):  # it would multiply in bf16
        if hidden_NLD.dtype == torch.float32:
            pooled_N1D = torch.bmm(weight_NL[:, None, :], hidden_NLD)
            return pooled_N1D[:, 0].clone()  # sharding hangs a hook on what comes out: no view
        # row by row: of all rows at once it would be a copy twice as large as the hidden states
        rows = zip(weight_NL.unbind(), hidden_NLD.unbind(), strict=True)
        return torch.stack([weight_L @ hidden_LD.float() for weight_L, hidden_LD in rows])


@torch.no_grad()
def prove_drivable(network: Network) -> None:
    """Compares our log-probs with the model's own logits once, on a few tokens.

    A model that does more between its last hidden state and its logits than a linear map (soft
    caps, scaling) would train wrongly without a word.  Raises ModelError where they differ.
    """
    lm = network.lm
    ids = torch.arange(2, 10, device=lm.device)[None] % lm.config.get_text_config().vocab_size
    mask_NT = torch.ones(1, 7, device=lm.device)
    first = torch.ones(1, dtype=torch.int64, device=lm.device)
    own = lm(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
    ours = network(ids, first, mask_NT, ["logp"], 1.0)["logp"]
    gap = (own.gather(-1, ids[:, 1:, None])[..., 0] - ours).abs().max().item()
    if not gap < 1e-3:
        raise ModelError(
            f"{type(lm).__name__}: log-probs from its last hidden state differ from its own logits"
            f" by {gap:.2g} nats, so it would train wrongly; use a model with a plain linear head"
        )
