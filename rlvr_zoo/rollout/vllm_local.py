"""What vLLM in the trainer's process needs beside it: a place for the model's configuration, and
proof that it got all of the model."""

from __future__ import annotations

import hashlib
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from rlvr_zoo.models.tiny import cache_dir
from rlvr_zoo.track.storage import storage, write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_RELOADING = "vllm.model_executor.model_loader.reload"
"""The logger of vLLM that tells of parameters that it did not get, and goes on."""
_MISSING = "weights were not loaded"


def config_folder(lm: PreTrainedModel) -> Path:
    """A folder that has the model's configuration, the same at every start: vLLM's cache of
    compiled code is keyed by its name.  Raises StorageError."""
    cache = cache_dir() / "vllm"
    with storage(cache, elsewhere="name a folder that can be written: RLVR_ZOO_CACHE=DIR"):
        with tempfile.TemporaryDirectory() as folder:
            lm.config.save_pretrained(folder)
            text = (Path(folder) / "config.json").read_bytes()
        path = cache / hashlib.sha256(text).hexdigest()[:16] / "config.json"
        if not path.is_file() or path.read_bytes() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text)
    return path.parent


def buffers(lm: PreTrainedModel) -> list[tuple[str, Tensor]]:
    """What a checkpoint has beside parameters, as the bias of a router of experts: training leaves
    it as it is, and vLLM, which starts from random weights, would never get it."""
    saved = lm.state_dict().keys()
    return [(name, buffer.clone()) for name, buffer in lm.named_buffers() if name in saved]


@contextmanager
def weights_missing() -> Iterator[list[str]]:
    """What vLLM says, while the block runs, of parameters that it did not get; it only warns."""
    missing: list[str] = []

    def note(record: logging.LogRecord) -> None:
        if _MISSING in (said := record.getMessage()):
            missing.append(said)

    handler = logging.Handler(logging.WARNING)
    handler.emit = note  # type: ignore[method-assign]
    logger = logging.getLogger(_RELOADING)
    level = logger.level
    logger.setLevel(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield missing
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
