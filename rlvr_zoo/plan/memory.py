"""Memory of one GPU, by part and phase; docs/performance.md compares it with measured peaks.

Parts that stay: weights, companions, head, moments, in fp32 but for the moments.  What comes and
goes differs by phase, and the run needs the largest: `rollout` (a cache, and copies of the
weights), `forward` (its end: all activations), and in the backward pass `logits`, `last layer`,
`first layer` and `embedding` (its end: no activations, all gradients).
Gradients of one micro-batch grow while its activations go; from the second one on, all of them are
there from the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.parameters import BF16, FP32, Parameters
from rlvr_zoo.plan.shape import ModelShape
from rlvr_zoo.plan.sharded import Parts, Pass, Shards
from rlvr_zoo.plan.work import Share, Work, share_of, spec_of, work_of

MOMENT_BYTES = {"fp32": 8.0, "8bit": 2.0 + 8 / 256, "offload": 0.0}
"""A parameter's two moments; 8 bits have an fp32 scale for each block of 256."""
BLOCK_BYTES = 2 * (1 << 24) * FP32
"""Logits that the trainer turns into probabilities at once, on a GPU."""
CONTEXT_BYTES = 1 << 30
"""CUDA's context and libraries."""
FRAGMENTATION = 0.05
"""Share of the tensors' peak that the allocator cannot use."""


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of one GPU, by part, in each phase of a step."""

    phases: Mapping[str, Parts]
    on_gpu: bool = True

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: sum(self.phases[phase].values()))

    @property
    def peak(self) -> Parts:
        """The parts of the phase that needs most."""
        return self.phases[self.peak_phase]

    @property
    def tensor_bytes(self) -> float:
        """The most that tensors take at once."""
        return sum(self.peak.values())

    @property
    def reserve_bytes(self) -> float:
        """What a GPU needs beside its tensors; assumed, not computed."""
        return CONTEXT_BYTES + FRAGMENTATION * self.tensor_bytes if self.on_gpu else 0.0

    @property
    def total_bytes(self) -> float:
        """What the GPU must have."""
        return self.tensor_bytes + self.reserve_bytes


def estimate(
    config: RunConfig,
    shape: ModelShape,
    world_size: int,
    gpu_memory_bytes: float = 0.0,
    *,
    work: Work | None = None,
    on_gpu: bool = True,
) -> MemoryPlan:
    """What a run takes of each GPU.

    `gpu_memory_bytes` counts where vLLM shares the trainer's GPUs, since it takes a share of them.
    `work` gives rows and tokens where they are known better than from the settings.  Raises
    ConfigError for LoRA targets that the model does not have.
    """
    held = Parameters(config, shape, spec_of(config))
    estimate_ = _Estimate(held, work or work_of(config, shape), world_size, on_gpu)
    static = estimate_.static()
    phases = {name: static | parts for name, parts in estimate_.update().items()}
    phases["rollout"] = static | estimate_.rollout(gpu_memory_bytes)
    return MemoryPlan(phases, on_gpu)


@dataclass(frozen=True)
class _Estimate:
    held: Parameters
    work: Work
    world_size: int
    on_gpu: bool

    # ------------------------------------------------------------- how the run is set up

    @property
    def config(self) -> RunConfig:
        return self.held.config

    @property
    def shape(self) -> ModelShape:
        return self.held.shape

    @cached_property
    def sharded(self) -> bool:
        return self.config.train.parallel == "fsdp"

    @cached_property
    def share(self) -> Share:
        return share_of(self.config, self.work, self.world_size)

    @cached_property
    def narrow(self) -> bool:
        return self.config.train.precision == "bf16"

    @property
    def width(self) -> int:
        """Bytes of a number that matrix products take."""
        return BF16 if self.narrow else FP32

    # ------------------------------------------------------------- what stays

    def static(self) -> Parts:
        split = self.world_size if self.sharded else 1
        held = self.held
        # sharded companions have a base of their own beside adapters
        companions = held.companions(own_bases=self.sharded)
        return {
            "weights": FP32 * held.policy / split,
            "companions": FP32 * companions / split,
            "head": FP32 * held.head / split,
            "moments": MOMENT_BYTES[self.config.optimizer.moments] * held.trained / split,
        }

    # ------------------------------------------------------------- an optimizer step

    def update(self) -> dict[str, Parts]:
        """The phases of a micro-batch, the last of its optimizer step."""
        passes = {name: self._pass(name) for name in self.held.trained_models}
        accumulates = self.share.micro_batches > 1
        if self.sharded:
            return Shards(self.held, self.world_size, self.width, accumulates).phases(passes)
        shape, spoken = self.shape, passes["policy"]
        models = len(passes)
        kept = sum(each.kept for each in passes.values())
        ends = sum(each.ends for each in passes.values())
        speaks = bool(self.held.trained_models["policy"] & {"logp", "entropy"})
        full = not self.held.adapters
        grads = FP32 * self.held.trained
        earlier = grads if accumulates else 0.0
        vocabulary = FP32 * shape.num_embedding_parameters  # the gradient of head or embedding
        head_gradient = vocabulary * (speaks and full)
        # of a tied head it waits for the embedding's
        waiting = vocabulary * (speaks and full and shape.tied)
        # the largest matrix' gradient, before it is added to what there is
        largest = max((d_in * d_out for _, d_in, d_out in shape.linear_maps), default=0)
        fresh = FP32 * largest * full * accumulates
        copies, copies_later = self._copies(self.config.train.gradient_checkpointing)
        return {
            "forward": {
                "activations": kept + ends,
                "logits": spoken.logits,
                "compute copies": copies,
                "gradients": earlier,
            },
            "logits": {
                "activations": kept + ends + spoken.features,
                "logits": spoken.logits + head_gradient,
                "compute copies": copies_later,
                "gradients": earlier,
            },
            "last layer": {
                "activations": kept + spoken.again + spoken.flow + ends * (models - 1) / models,
                "logits": waiting,
                "compute copies": copies_later,
                "gradients": earlier + fresh,
            },
            "first layer": {
                "activations": spoken.layer + spoken.flow,
                "logits": waiting,
                "compute copies": copies_later,
                "gradients": earlier + fresh if earlier else grads - vocabulary * full,
            },
            "embedding": {
                "activations": spoken.embedded,
                "logits": waiting,
                "compute copies": copies_later,
                "gradients": grads + vocabulary * full * (earlier > 0 or waiting > 0),
            },
        }

    def _pass(self, name: str) -> Pass:
        shape, share = self.shape, self.share
        outputs = self.held.trained_models[name]
        checkpointed = self.config.train.gradient_checkpointing
        speaks = bool(outputs & {"logp", "entropy"})
        layer = share.tokens * self._layer_bytes()
        # completion tokens' features are taken out of all, for logits and values
        features = share.completion_tokens * shape.hidden_size * FP32
        norm = share.tokens * 3 * shape.hidden_size * FP32
        chunk = min(self.config.train.logits_tokens, share.completion_tokens)
        return Pass(
            kept=share.tokens * shape.num_layers * self._kept_bytes(),
            ends=norm + features * bool(outputs - {"hidden"}),
            features=features,
            layer=layer,
            again=layer * checkpointed,
            flow=share.tokens * self._flow_bytes(),
            embedded=float(share.tokens * shape.hidden_size * FP32),
            logits=(chunk * shape.vocab_size * self.width + self._block_bytes()) * speaks,
        )

    def _layer_bytes(self) -> float:
        """What a layer keeps of one token for its backward pass.

        Norms keep their input, the normed and (in fp32) their output; attention its queries, keys,
        values, output and a sum for each head; the MLP four widths.  Autocast casts a norm's output
        anew for each of the five linear maps behind it; FSDP's modules are in bf16 throughout, but
        for the norms' inputs.
        """
        shape = self.shape
        hidden, inner = shape.hidden_size, shape.intermediate_size
        heads = 2 * shape.head_dim * (shape.num_heads + shape.num_kv_heads)
        ranks = self.config.lora.rank * len(shape.linear_maps) if self.held.adapters else 0
        if not self.narrow:
            numbers = 6 * hidden + heads + shape.num_heads + 4 * inner + ranks
            return FP32 * numbers
        norms = 16 * hidden if self.sharded else 26 * hidden
        return norms + BF16 * (heads + 4 * inner + ranks) + FP32 * shape.num_heads

    def _flow_bytes(self) -> float:
        """Gradients by activations, of one token, in a layer's MLP."""
        return self.width * 2 * self.shape.intermediate_size + FP32 * self.shape.hidden_size

    def _kept_bytes(self) -> float:
        """What stays of a layer and a token from the forward pass to the backward pass."""
        if not self.config.train.gradient_checkpointing:
            return self._layer_bytes()
        return self.shape.hidden_size * (BF16 if self.narrow and self.sharded else FP32)

    def _block_bytes(self) -> float:
        return BLOCK_BYTES if self.on_gpu else 0.0

    def _copies(self, checkpointed: bool) -> tuple[float, float]:
        """Weights in the type of computation, at the forward pass' end and in the backward pass."""
        shape = self.shape
        models = len(self.held.trained_models)
        body = shape.num_layers * shape.num_layer_parameters
        if not self.narrow:
            return 0.0, 0.0
        head = BF16 * shape.num_embedding_parameters
        if not checkpointed:  # autocast's copies are kept for the backward pass
            every = BF16 * models * body + head
            return every, every
        return BF16 * body + head, BF16 * models * shape.num_layer_parameters + head

    # ------------------------------------------------------------- sampling

    def rollout(self, gpu_memory_bytes: float) -> Parts:
        engine, vllm = self.config.rollout.engine, self.config.rollout.vllm
        if engine == "vllm":
            share = 0.0 if vllm.servers else vllm.gpu_memory_share * gpu_memory_bytes
            return {"vllm": share}
        if engine == "replay":
            return {}
        shape, work = self.shape, self.work
        rows = -(-work.rows // self.world_size)
        least = self.config.rollout.group_size * work.row_tokens
        positions = min(rows * work.row_tokens, max(self.config.rollout.batch_tokens, least))
        held = positions // work.row_tokens
        prompts = -(-held // self.config.rollout.group_size)
        prefill = prompts * work.prompt_tokens * self.width
        prefill *= 3 * shape.intermediate_size + 4 * shape.hidden_size
        cache = positions * cache_bytes(self.config, shape)
        return {
            "compute copies": self._rollout_copy(),
            "cache": cache,
            "logits": 4.0 * held * shape.vocab_size * FP32,
            # of the prompts; later, a layer's cache is copied as it grows
            "activations": max(float(prefill), cache / shape.num_layers),
        }

    def _rollout_copy(self) -> float:
        shape = self.shape
        if self.sharded:  # one model that is whole
            return float(self.width * shape.num_parameters)
        if not self.narrow:
            return 0.0
        if self.held.adapters:  # autocast keeps no copies of frozen weights
            return float(BF16 * shape.num_embedding_parameters)
        inside = shape.num_layers * shape.num_layer_parameters
        return float(BF16 * (inside + shape.num_embedding_parameters))


def cache_bytes(config: RunConfig, shape: ModelShape) -> float:
    """Keys and values of one position, in all layers."""
    # under autocast rotated keys are in fp32, and the cache takes the type of its first key
    autocast = config.rollout.engine == "transformers" and config.train.parallel != "fsdp"
    narrow = config.train.precision == "bf16" and not autocast
    pair = 2 * (BF16 if narrow else FP32)
    return float(shape.num_layers * shape.num_kv_heads * shape.head_dim * pair)


def as_table(plan: MemoryPlan) -> list[tuple[str, float]]:
    """Parts of the peak phase that take anything, in bytes, and what is reserved."""
    parts = [(name, size) for name, size in plan.peak.items() if size]
    reserve = [("reserve", plan.reserve_bytes)] if plan.reserve_bytes else []
    return parts + reserve
