"""A language model and its tokenizer, from a folder, the hub, or made here (`tiny`)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from rlvr_zoo.config import ModelConfig
from rlvr_zoo.errors import ModelError, first_line
from rlvr_zoo.models.tiny import Progress, ensure_built_in

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class LoadedModel:
    """The start policy in fp32, and what belongs to it."""

    lm: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_context_tokens: int
    """Prompt and completion together."""
    eos_ids: frozenset[int]
    """Tokens that end a completion."""
    digest: str
    """SHA-256 over the start weights."""
    revision: str
    """The hub's commit; empty for a folder."""


def load(config: ModelConfig, progress: Progress | None = None) -> LoadedModel:
    """Load the model that the configuration names; `progress` hears of a warm-up.

    Raises ModelError where it cannot be loaded or driven.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = config.path or str(ensure_built_in(config.recipe, progress))
    revision = {"revision": config.revision} if config.revision else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, **revision)
        lm = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, **revision)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {config.name!r} cannot be loaded: {first_line(error)};"
            " name a local folder in Hugging Face's layout with --model, or connect to the hub"
        ) from error
    _refuse_undrivable(config, lm)
    return LoadedModel(
        lm=lm.eval(),  # dropout would make the policy that is trained another than the one sampled
        tokenizer=tokenizer,
        max_context_tokens=_context(config, lm),
        eos_ids=_eos_ids(config, lm, tokenizer),
        digest=weights_digest(lm),
        revision=getattr(lm.config, "_commit_hash", None) or "",
    )


def _context(config: ModelConfig, lm: PreTrainedModel) -> int:
    own = int(getattr(lm.config, "max_position_embeddings", 0) or 0)
    wanted = config.max_context_tokens
    if own and wanted > own:
        raise ModelError(
            f"model.max_context_tokens={wanted}: {config.name!r} has {own} positions;"
            f" set {own} or less"
        )
    if not own and not wanted:
        raise ModelError(
            f"model {config.name!r} states no context limit; set model.max_context_tokens"
        )
    return wanted or own


def _refuse_undrivable(config: ModelConfig, lm: PreTrainedModel) -> None:
    """Models whose log-probs depend on what else is in the batch, or are not a linear map's."""
    text = lm.config.get_text_config()
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kinds = {
        str(part.get("rope_type")) for part in (rope, *rope.values()) if isinstance(part, dict)
    }
    if lengths := sorted(kinds & {"dynamic", "longrope"}):
        raise ModelError(
            f"model {config.name!r} has {lengths[0]} rotary positions: a token's log-prob depends"
            " on the longest row beside it, so that sampling and training disagree; take another"
        )
    if getattr(text, "final_logit_softcapping", None):
        raise ModelError(
            f"model {config.name!r} caps its logits softly, which the trainer's log-probs would"
            " miss; take a model with a plain linear head"
        )


def _eos_ids(
    config: ModelConfig, lm: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> frozenset[int]:
    stated = lm.generation_config.eos_token_id if lm.generation_config else None
    found = set(stated if isinstance(stated, list) else [stated]) | {tokenizer.eos_token_id}
    ids = frozenset(int(token) for token in found if token is not None)
    if not ids:
        raise ModelError(
            f"model {config.name!r} has no end-of-sequence token; set one in its tokenizer"
        )
    return ids


def weights_digest(lm: torch.nn.Module) -> str:
    """SHA-256 over the names, shapes and bytes of all weights, in hex."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(lm.state_dict().items()):
        hasher.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        hasher.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return hasher.hexdigest()


TEMPLATE_DATE = "26 Jul 2024"
"""What Llama's templates say for today: with the real day, prompts would differ by the day of a
run, which could then be neither compared nor resumed.  Their own fallback."""


class PromptTemplate:
    """A problem's text to the model's prompt tokens."""

    def __init__(self, config: ModelConfig, tokenizer: Any) -> None:
        """Raises ModelError where a chat template is wanted and the tokenizer has none."""
        self._config, self._tokenizer = config, tokenizer
        self._chat = config.chat != "never" and bool(getattr(tokenizer, "chat_template", None))
        if config.chat == "always" and not self._chat:
            raise ModelError(
                f"model {config.name!r} has no chat template; set model.chat=never, or give its"
                f" tokenizer one"
            )

    def user(self, problem: str) -> str:
        """The user turn."""
        return self._config.prompt.replace("{problem}", problem)

    def text(self, problem: str) -> str:
        """The prompt as text."""
        user = self.user(problem)
        if not self._chat:
            return "\n".join(part for part in (self._config.system, user) if part)
        turns = [{"role": "system", "content": self._config.system}] if self._config.system else []
        turns.append({"role": "user", "content": user})
        return str(
            self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=True, date_string=TEMPLATE_DATE
            )
        )

    def ids(self, problem: str) -> tuple[int, ...]:
        """The prompt as tokens; special tokens are added only where no chat template did so."""
        encoded = self._tokenizer(self.text(problem), add_special_tokens=not self._chat)
        return tuple(encoded["input_ids"])
