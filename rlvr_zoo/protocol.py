"""What must be equal in a comparison, and the digest of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rlvr_zoo.config import RunConfig

Tree = dict[str, Any]

HARMLESS = (
    ("rollout", "batch_tokens"),
    ("rollout", "max_logp_gap"),
    ("rollout", "vllm", "servers"),
    ("rollout", "vllm", "transfer"),
    ("rollout", "vllm", "folder"),
    ("rollout", "vllm", "timeout_s"),
    ("rollout", "vllm", "gpu_memory_share"),
    ("rollout", "vllm", "tensor_parallel_size"),
    ("rollout", "vllm", "max_num_seqs"),
    ("rollout", "vllm", "enforce_eager"),
    ("train", "parallel"),
    ("train", "micro_batch_tokens"),
    ("train", "logits_tokens"),
    ("train", "gradient_checkpointing"),
    ("train", "max_bad_steps"),
    ("checkpoint",),
    ("track",),
    ("suites", "pass_at"),
    ("verify", "num_workers"),
)
"""What cannot change a result, so that a resumed run may have it otherwise."""

FREE = (
    *HARMLESS,
    ("algo",),
    ("algorithm",),
    ("seed",),
    ("protocol",),
    ("model", "name"),
    ("model", "path"),
    ("rollout", "replay"),
    ("problems", "path"),
    ("suites",),
    ("optimizer", "lr"),
    ("rollout", "group_size"),
    ("train", "cpu_threads"),
    ("train", "control"),
)
"""What runs of one protocol may differ in besides: the algorithm, what it is free to choose, and
where files lie and what suites are called (the record holds digests of what is in them, of
recorded rollouts, too, how suites were sampled, and what the engine computed in)."""


def protocol_of(config: RunConfig) -> Tree:
    """What must be equal in a comparison, of the configuration's part."""
    unused = [] if config.rollout.engine == "vllm" else [("rollout", "vllm")]
    return without(asdict(config), [*FREE, *unused])


def without(tree: Tree, paths: Iterable[tuple[str, ...]]) -> Tree:
    """The tree less some sections, or keys of sections; a section that is left empty goes, too."""
    left = dict(tree)
    for key, *rest in paths:
        below = left.get(key)
        if rest and isinstance(below, dict):
            left[key] = without(below, [tuple(rest)])
        if not rest or left.get(key) == {}:
            left.pop(key, None)
    return left


def digest(tree: Mapping[str, Any]) -> str:
    """SHA-256 of a tree's canonical JSON, 16 hex digits."""
    text = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def differences(a: Mapping[str, Any], b: Mapping[str, Any], where: str = "") -> list[str]:
    """Dotted keys in which two trees differ, in order."""
    found: list[str] = []
    for key in sorted({*a, *b}):
        path = f"{where}.{key}" if where else key
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) or isinstance(right, Mapping):
            left = left if isinstance(left, Mapping) else {}
            found += differences(left, right if isinstance(right, Mapping) else {}, path)
        elif left != right:
            found.append(path)
    return found
