"""Tokens and hours of a run, at most: every completion is taken to run to its limit.

Update: floating-point operations over the GPUs' peak rate at a stated utilisation.  A parameter
that a token passes costs 2 forward, 2 for the activation's gradient and 2 for the weight's.
Sampling: each decoded token reads weights and cache once from memory, at a stated share of the
bandwidth, and costs 2 operations a parameter; the transformers engine is bound by the time to
start its kernels, which is assumed, where that is longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlvr_zoo import registry
from rlvr_zoo.api import Output, Spec
from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.devices import Devices
from rlvr_zoo.plan.memory import cache_bytes
from rlvr_zoo.plan.parameters import BF16, FP32
from rlvr_zoo.plan.shape import ModelShape
from rlvr_zoo.plan.suites import SuiteSize
from rlvr_zoo.plan.work import Work, resamples, spec_of, trained_models, work_of

VLLM_MAX_NUM_SEQS = 1024
"""vLLM's own number of completions at once, on GPUs of 70 GiB and more."""
UPDATE_UTILISATION = 0.4
"""Share of the peak rate that an update reaches: what is aimed for at 7B on one GPU."""
DECODE_UTILISATION = 0.4
"""Share of the peak rate in sampling many rows."""
BANDWIDTH_SHARE = 0.6
"""Share of the memory's bandwidth that decoding reaches."""
LAYER_SECONDS = 1e-3
"""What the transformers engine takes a layer and token at least, whatever the layer's size;
assumed, not measured."""
HOUR = 3600.0

Bound = Literal["", "memory", "arithmetic", "kernels"]
"""What decides how long a decoded token takes: the memory's bandwidth, the rate of operations, or
LAYER_SECONDS; nothing where nothing is decoded."""


@dataclass(frozen=True)
class Cost:
    """Of a whole run, at most."""

    generated_tokens: int
    """Completion tokens sampled for training."""
    generated_tokens_most: int
    """The same, if the algorithm asks for other groups as often as it may."""
    trained_tokens: int
    """Completion tokens that the loss sees, once for each pass."""
    rollout_hours: float
    update_hours: float
    evaluate_hours: float
    """Held-out problems, and suites whose size is known."""
    rollout_bound: Bound
    """Of sampling for training."""

    @property
    def hours(self) -> float:
        return self.rollout_hours + self.update_hours + self.evaluate_hours


def cost(
    config: RunConfig,
    shape: ModelShape,
    devices: Devices,
    suites: Sequence[SuiteSize] = (),
    utilisation: float = UPDATE_UTILISATION,
) -> Cost:
    """What a run costs on those devices."""
    work, spec, steps = work_of(config, shape), spec_of(config), config.train.max_steps
    generated = steps * work.rows * work.completion_tokens
    rounds = 1 + (config.train.max_resamples if resamples(config) else 0)
    rate = 1e12 * (
        devices.gpu.bf16_tflops if config.train.precision == "bf16" else devices.gpu.fp32_tflops
    )
    operations = steps * step_operations(config, shape, spec, work)
    update = operations / (rate * utilisation * devices.world_size)
    decoder = _Decoder(config, shape, devices, rate)
    rollout_s, bound = decoder.decode(work.rows, work.prompt_tokens, work.completion_tokens)
    return Cost(
        generated_tokens=generated,
        generated_tokens_most=rounds * generated,
        trained_tokens=config.train.epochs * generated,
        rollout_hours=steps * rollout_s / HOUR,
        update_hours=update / HOUR,
        evaluate_hours=_evaluation_seconds(config, decoder, work, suites) / HOUR,
        rollout_bound=bound,
    )


def step_operations(config: RunConfig, shape: ModelShape, spec: Spec, work: Work) -> float:
    """Floating-point operations of one step's update, over all ranks."""
    lora = bool(config.lora.rank)
    passes = 4 if lora else 6  # frozen weights have no gradient
    recomputed = 2 if config.train.gradient_checkpointing else 0
    total = 0.0
    for outputs in trained_models(spec).values():
        speaks = bool(outputs & {"logp", "entropy"})
        body = passes + recomputed
        head = (passes + 2) * speaks  # logits are computed anew in the backward pass
        total += config.train.epochs * _operations(shape, work, body, head)
    for _, outputs in forward_passes(config, spec):
        total += _operations(shape, work, 2, 2 * bool(outputs & {"logp", "entropy"}))
    return total


def forward_passes(config: RunConfig, spec: Spec) -> list[tuple[str, frozenset[Output]]]:
    """The passes without gradient of a step: the old log-probs', and what `prepare` asks for.

    Where the sampler is the trainer's model in fp32, its log-probs are the old ones.
    """
    engine = registry.load(registry.ROLLOUTS, config.rollout.engine)
    spared = bool(engine.exact) and config.train.precision == "fp32"
    logp: frozenset[Output] = frozenset({"logp"})
    passes = [] if spared else [("policy", logp)]
    for name, outputs in spec.prepare.items():
        if name != "policy" or outputs != logp:  # else the old log-probs serve
            passes.append((name, outputs))
    return passes


def _operations(shape: ModelShape, work: Work, body: int, head: int) -> float:
    """Of all rows of a step; `body` and `head` count operations a parameter and token."""
    tokens = work.rows * work.row_tokens
    inside = shape.num_layers * shape.num_layer_parameters
    # scores and values of causal attention: half of the square, as many operations as 2 parameters
    attention = shape.num_layers * shape.num_heads * shape.head_dim * work.row_tokens
    spoken = work.rows * work.completion_tokens * shape.num_embedding_parameters
    return float(tokens * body * (inside + attention) + spoken * head)


@dataclass(frozen=True)
class _Decoder:
    config: RunConfig
    shape: ModelShape
    devices: Devices
    rate: float
    """Peak operations a second of one GPU."""

    def decode(self, rows: int, prompt_tokens: int, completion_tokens: int) -> tuple[float, Bound]:
        """Seconds to sample rows, shared out to all GPUs, with every completion at its limit; and
        what bounds them."""
        if not rows or self.config.rollout.engine == "replay":
            return 0.0, ""
        mine = -(-rows // self.devices.world_size)
        at_once = self._at_once(mine, prompt_tokens + completion_tokens)
        token, bound = max(self._token_seconds(at_once, prompt_tokens, completion_tokens))
        prompts = -(-mine // self.config.rollout.group_size)
        prefill = 2 * prompts * prompt_tokens * self.shape.num_parameters
        prefill_seconds = prefill / (self.rate * DECODE_UTILISATION)
        return (mine / at_once) * completion_tokens * token + prefill_seconds, bound

    def _token_seconds(
        self, at_once: int, prompt_tokens: int, completion_tokens: int
    ) -> list[tuple[float, Bound]]:
        """Seconds of one token of each row, for each bound alone."""
        shape, bandwidth = self.shape, self.devices.gpu.bandwidth_gb_s * 1e9 * BANDWIDTH_SHARE
        width = FP32 if self.config.train.precision == "fp32" else BF16
        weights = width * shape.num_parameters
        cache = at_once * cache_bytes(self.config, shape)
        cache *= prompt_tokens + completion_tokens / 2
        operations = 2 * at_once * shape.num_parameters
        found: list[tuple[float, Bound]] = [
            ((weights + cache) / bandwidth, "memory"),
            (operations / (self.rate * DECODE_UTILISATION), "arithmetic"),
        ]
        if self.config.rollout.engine == "transformers":
            found.append((LAYER_SECONDS * shape.num_layers, "kernels"))
        return found

    def _at_once(self, rows: int, row_tokens: int) -> int:
        rollout = self.config.rollout
        if rollout.engine == "transformers":
            return max(1, min(rows, rollout.batch_tokens // row_tokens))
        return min(rows, rollout.vllm.max_num_seqs or VLLM_MAX_NUM_SEQS)


def _evaluation_seconds(
    config: RunConfig, decoder: _Decoder, work: Work, suites: Sequence[SuiteSize]
) -> float:
    every, steps = config.evaluate.every, config.train.max_steps
    times = 2 + ((steps - 1) // every if every else 0)
    limit = config.evaluate.max_completion_tokens or work.completion_tokens
    rows = config.problems.num_held_out * config.evaluate.num_samples
    total = times * decoder.decode(rows, work.prompt_tokens, limit)[0]
    for suite in suites:  # before training and after it
        rows = (suite.num_problems or 0) * suite.num_samples
        total += 2 * decoder.decode(rows, work.prompt_tokens, suite.completion_tokens)[0]
    return total
