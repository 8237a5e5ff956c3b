"""The most bytes that tensors held during a real optimizer step, and what was planned for it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, UntypedStorage, distributed, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.checks import build
from rlvr_zoo.config import RunConfig
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.plan.memory import MemoryPlan, estimate
from rlvr_zoo.plan.shape import shape_of
from rlvr_zoo.plan.work import Work
from rlvr_zoo.registry import algorithm
from rlvr_zoo.resolve import parse_set, resolve
from rlvr_zoo.rollout.base import Compute, Request, Sampling
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.train import collectives
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.rows import Rows, rows_of
from rlvr_zoo.train.sharding import local

QWEN_05B = {
    "hidden_size": 896,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
}
"""Qwen2.5-0.5B."""


class PeakBytes(TorchDispatchMode):
    """Bytes of all storages that are alive, and the most there were, while it is on.

    Of sharded tensors, this rank's part.

    What kernels allocate inside themselves is not seen.
    """

    def __init__(self, before: Iterable[Tensor]) -> None:
        """`before` are tensors that were made earlier and count, too."""
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}
        self._looks = True
        for tensor in before:
            self._add(tensor)

    def restart(self) -> None:
        """Forgets the peak."""
        self.peak = self.now

    def __enter__(self) -> PeakBytes:
        # FSDP2 frees gathered weights, and makes room for them anew, inside storages that stay
        self._patches = [
            patch.object(UntypedStorage, "resize_", self._resized(UntypedStorage.resize_))
        ]
        for name in ("all_gather", "reduce_scatter"):  # gloo has copies of its own, NCCL has none
            unseen = self._unseen(getattr(collectives, name))
            self._patches.append(patch.object(collectives, name, unseen))
        for each in self._patches:
            each.start()
        super().__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for each in self._patches:
            each.stop()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found) if self._looks else ():
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return found

    def _unseen(self, collective: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._looks = False
            try:
                return collective(*args, **kwargs)
            finally:
                self._looks = True

        return call

    def _resized(self, resize: Callable[..., Any]) -> Callable[..., Any]:
        def call(storage: UntypedStorage, size: int) -> Any:
            found = resize(storage, size)
            if (key := storage._cdata) in self._known:
                self._change(size - self._known[key])
                self._known[key] = size
            return found

        return call

    def _add(self, tensor: Tensor) -> None:
        storage = local(tensor).untyped_storage()
        key = storage._cdata
        if key not in self._known:
            self._known[key] = storage.nbytes()
            self._change(storage.nbytes())
            weakref.finalize(storage, self._remove, key)

    def _remove(self, key: int) -> None:
        self._change(-self._known.pop(key))

    def _change(self, size: int) -> None:
        self.now += size
        self.peak = max(self.peak, self.now)


@dataclass(frozen=True)
class Measured:
    """One algorithm on one model."""

    peak_bytes: int
    planned: MemoryPlan

    @property
    def ratio(self) -> float:
        """Planned over measured."""
        return self.planned.tensor_bytes / self.peak_bytes


def random_model(sizes: Mapping[str, Any]) -> PreTrainedModel:
    """A Qwen2 model with random weights, in fp32."""
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**sizes)).eval()


def measured(
    algo: str, lm: PreTrainedModel, work: Work, *settings: str, group_size: int = 2
) -> Measured:
    """The second of two optimizer steps on made-up rollouts: moments are there by then."""
    config = configured(algo, work, group_size, settings)
    shape = shape_of(lm)
    learner = learner_of(lm, config)
    held = [learner.policy, *(c.network for c in learner.companions.values())]
    held += [learner.head] if learner.head is not None else []
    with PeakBytes(weights(held)) as memory:
        rows = made_up(work, group_size, shape.vocab_size)
        for _ in range(2):
            memory.restart()
            targets = learner.prepare(rows)
            report = learner.step(rows, targets, torch.arange(work.rows))
            assert report.trained_tokens == work.rows * work.completion_tokens
    ranks = distributed.get_world_size() if distributed.is_initialized() else 1
    planned = estimate(config, shape, ranks, work=work, on_gpu=False)
    return Measured(memory.peak, MemoryPlan(without_rollout(planned), on_gpu=False))


def learner_of(lm: PreTrainedModel, config: RunConfig) -> Learner:
    """As a run makes it; `lm` becomes the policy."""
    chosen = algorithm(config.algo)
    knobs: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    backend = Backend(config.train.precision, config.train.parallel)
    return Learner(lm, chosen.cls(knobs), chosen.cls.spec(knobs), config, backend)


def measured_rollout(lm: PreTrainedModel, work: Work, precision: str) -> Measured:
    """Sampling of one step's rollouts by the transformers engine."""
    config = configured("raft", work, 8, [f"train.precision={precision}"])
    model = LoadedModel(
        lm=lm,
        tokenizer=cast(Any, _Silent()),
        max_context_tokens=work.row_tokens,
        eos_ids=frozenset({-1}),
        digest="",
        revision="",
    )
    narrow = partial(torch.autocast, "cpu", torch.bfloat16)
    compute = Compute(autocast=narrow if precision == "bf16" else nullcontext)
    engine = TransformersEngine(model, config.rollout, compute)
    prompt = tuple(range(2, 2 + work.prompt_tokens))
    requests = [Request(prompt, tuple(range(n, n + 8))) for n in range(0, work.rows, 8)]
    with PeakBytes(weights([lm])) as memory:
        engine.generate(
            requests, Sampling(temperature=1.0, max_completion_tokens=work.completion_tokens)
        )
    planned = estimate(config, shape_of(lm), world_size=1, work=work, on_gpu=False)
    parts = {name: size for name, size in planned.phases["rollout"].items() if name != "moments"}
    return Measured(memory.peak, MemoryPlan({"rollout": parts}, on_gpu=False))


class _Silent:
    def batch_decode(self, ids: list[list[int]], **_: Any) -> list[str]:
        return [""] * len(ids)


def without_rollout(plan: MemoryPlan) -> dict[str, dict[str, float]]:
    """The phases of an update: nothing is sampled here."""
    return {name: parts for name, parts in plan.phases.items() if name != "rollout"}


def configured(algo: str, work: Work, group_size: int, settings: Iterable[str]) -> RunConfig:
    """A run's configuration with that work a step."""
    ours = (
        f"rollout.rollouts_per_step={work.rows}",
        f"rollout.group_size={group_size}",
        f"rollout.max_prompt_tokens={work.prompt_tokens}",
        f"rollout.max_completion_tokens={work.completion_tokens}",
        "suites.names=[]",
    )
    return resolve({}, {"algo": algo, **parse_set([*ours, *settings])})


def weights(modules: Iterable[nn.Module]) -> list[Tensor]:
    """Parameters and buffers."""
    return [t for module in modules for t in (*module.parameters(), *module.buffers())]


def made_up(work: Work, group_size: int, vocab_size: int) -> Rows:
    """Rollouts of full length, half of each group right."""
    draw = torch.Generator().manual_seed(0)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, vocab_size, (number,), generator=draw).tolist())

    logp = (-5.0,) * work.completion_tokens
    groups = [
        Group(
            problem=Problem(id=str(number), prompt="?", answer="!"),
            prompt_ids=ids(work.prompt_tokens),
            rollouts=tuple(
                Rollout(ids=ids(work.completion_tokens), logp=logp, text="", truncated=False)
                for _ in range(group_size)
            ),
            verdicts=tuple(
                Verdict(correct=n % 2 == 0, extracted="", method="string")
                for n in range(group_size)
            ),
        )
        for number in range(work.rows // group_size)
    ]
    return rows_of(groups, range(work.rows), work.completion_tokens, torch.device("cpu"))
