"""What both sides of `gpu_check.py` measure with: shapes, random models, clock and report."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "accelerate", "torchao", "trl", "numpy")
KL_COEF = 0.04  # GRPO's own, on both sides: a reference model and no row without signal


@dataclass(frozen=True, kw_only=True)
class Size:
    """A shape, and the work of a step."""

    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool
    moments: str = "fp32"
    """What AdamW's moments are kept in; 8bit where fp32 ones would not fit beside two models."""
    critic: str = "separate"
    """PPO's."""
    rows: int = 32
    group_size: int = 8
    rows_at_once: int = 16
    """In one forward pass, on both sides."""
    prompt_tokens: int = 128
    completion_tokens: int = 1024
    rollout_tokens: int = 1024
    """Completion tokens of the timed rollout; fewer where time is short."""
    timed_steps: int = 2


SIZES = {
    "1.5b": Size(
        hidden=1536, inner=8960, layers=28, heads=12, kv_heads=2, vocabulary=151_936, tied=True
    ),
    "7b": Size(
        hidden=3584,
        inner=18_944,
        layers=28,
        heads=28,
        kv_heads=4,
        vocabulary=152_064,
        tied=False,
        moments="8bit",
        critic="shared",
        rollout_tokens=512,
        timed_steps=1,
    ),
}
TOY: Mapping[str, Any] = {
    "hidden": 64,
    "inner": 128,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "vocabulary": 512,
    "rows": 8,
    "group_size": 4,
    "rows_at_once": 4,
    "prompt_tokens": 8,
    "completion_tokens": 12,
    "rollout_tokens": 12,
    "timed_steps": 1,
}
SIZES["toy"] = Size(**TOY, tied=True)
SIZES["toy-8bit"] = Size(**TOY, tied=False, moments="8bit", critic="shared")


class Report:
    """What is known until now, in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._found: dict[str, Any] = {"status": "failed", "stage": "start"}

    def add(self, stage: str, **found: Any) -> None:
        self._found |= {"stage": stage} | found
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps(self._found), encoding="utf-8")
        partial.replace(self._path)

    def skip(self, reason: str) -> None:
        self.add("skipped", status="skipped", reason=reason)


class Clock:
    """Adds up seconds by part; waits for the device at both ends."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        wait()
        start = time.perf_counter()
        yield
        wait()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def watch(self, owner: Any, method: str, name: str) -> None:
        """Times every call of one object's method."""
        call = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return call(*args, **kwargs)

        setattr(owner, method, timed)


def wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


# ------------------------------------------------------------------------------------ what is there


def machine() -> dict[str, Any]:
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return {
        "gpu": gpu.name if gpu else None,
        "gpu_gib": round(gpu.total_memory / 2**30, 1) if gpu else None,
        "peak_bf16_tflops": peak_tflops(gpu.name) if gpu else None,
        "python": platform.python_version(),
        "versions": {package: installed(package) for package in PACKAGES},
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def peak_tflops(gpu: str) -> float | None:
    """Dense bf16 rate of a GPU by torch's name for it; None where the plan's table lacks it."""
    try:
        from rlvr_zoo.plan.devices import GPUS
    except ImportError:
        return None
    plain = gpu.lower().replace(" ", "")
    rates = {one.bf16_tflops for name, one in GPUS.items() if name.split("-")[0] in plain}
    return rates.pop() if len(rates) == 1 else None


def peak_gib() -> float:
    from rlvr_zoo.train.loop import peak_memory_bytes

    return round(peak_memory_bytes() / 2**30, 2)


def build_lm(size: Size) -> Any:
    """A Qwen2 with random fp32 weights, made where it stays."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        vocab_size=size.vocabulary,
        tie_word_embeddings=size.tied,
        max_position_embeddings=32_768,
        eos_token_id=None,
        bos_token_id=None,
    )
    torch.manual_seed(0)
    with device():
        lm = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    lm.tie_weights()
    return lm.eval()


def build_tokenizer() -> Any:
    """One token a byte: a prompt has as many tokens as characters."""
    from rlvr_zoo.models.tiny import Recipe, build_tokenizer

    return build_tokenizer(Recipe())


def prompts(size: Size) -> list[str]:
    number = size.rows // size.group_size
    return [(f"{n:03d} " * size.prompt_tokens)[: size.prompt_tokens] for n in range(number)]


def per_token(lm: Any) -> tuple[int, int]:
    """Parameters that a token is multiplied by: in the trunk, and in the output layer."""
    table = lm.get_input_embeddings().weight
    trunk = sum(p.numel() for p in lm.base_model.parameters() if p is not table)
    return trunk, lm.get_output_embeddings().weight.numel()


def updates(update_s: float, tokens: int) -> dict[str, Any]:
    return {
        "update_s": round(update_s, 4),
        "tokens": tokens,
        "update_tokens_per_s": round(tokens / update_s, 1),
    }


def rollouts_of(size: Size, seconds: float, tokens: int) -> dict[str, Any]:
    """A rollout's numbers; a shorter one is drawn out to full length, its pace taken as even."""
    return {
        "rollout_s": round(seconds, 3),
        "tokens": tokens,
        "rollout_tokens_per_s": round(tokens / seconds, 1),
        "completion_tokens": size.rollout_tokens,
        "seconds_for_full_length": round(seconds * size.completion_tokens / size.rollout_tokens, 3),
    }
