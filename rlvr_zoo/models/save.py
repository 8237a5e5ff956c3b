"""A language model to a folder, on whichever rank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def save_on_any_rank(model: PreTrainedModel, folder: Path) -> None:
    """The files of `save_pretrained`, which writes none on ranks other than the first
    (its `should_save_on_this_rank`).  For models of one file."""
    from safetensors.torch import save_file

    # as save_pretrained notes them; vLLM reads the architecture
    model.config.architectures, model.config.dtype = [type(model).__name__], "float32"
    model.config.save_pretrained(folder)
    assert model.generation_config is not None
    model.generation_config.save_pretrained(folder)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
