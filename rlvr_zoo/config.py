"""What a run is told, as sections of settings.  `resolve.py` says where the values come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which language model starts, and how a problem becomes its prompt."""

    name: str = "tiny"
    """What the user called it: a preset, a folder, or a hub name."""
    path: str = ""
    """A local folder in Hugging Face's layout, or a hub name; empty: a built-in tiny model."""
    recipe: str = "tiny"
    """Which built-in model, where there is no path."""
    revision: str = ""
    """The hub's commit; empty takes the newest, and the record says which that was."""
    prompt: str = (
        "{problem}\nPlease reason step by step, and put your final answer within \\boxed{}."
    )
    """The user turn; `{problem}` is replaced by the problem's text."""
    chat: Literal["auto", "always", "never"] = "auto"
    """Wrap the prompt by the tokenizer's chat template; `auto`: where it has one."""
    system: str = ""
    """The system turn of the chat; empty leaves it to the template."""
    max_context_tokens: int = 0
    """Prompt and completion together; 0 takes the model's own limit."""


@dataclass(frozen=True, kw_only=True)
class ProblemsConfig:
    """Where problems come from.  `path` wins over `hub`, and `hub` over `generator`."""

    generator: str = "addition"
    """A built-in source of generated problems."""
    path: str = ""
    """A JSONL file, or a folder of them, one object a line with `problem` and `answer`."""
    hub: str = ""
    """A dataset on the Hugging Face hub."""
    revision: str = ""
    """The hub dataset's commit; empty takes the newest, and every problem's source says which."""
    split: str = "train"
    """The hub dataset's split."""
    num_held_out: int = 256
    """Problems kept out of training, on which accuracy is measured."""
    held_out: Literal["test", "validation"] = "test"
    """Which problems are held out: those of the test, or as many others, to choose settings by; the
    test's are then left out altogether."""
    split_seed: int = 0
    """Decides which problems are held out; the same for every run of a comparison."""
    overlong: Literal["error", "drop"] = "error"
    """What happens when a problem's prompt is longer than the context leaves room for."""


@dataclass(frozen=True, kw_only=True)
class VllmConfig:
    """The engine `vllm`: inside the trainer's process, or on servers."""

    servers: list[str] = field(default_factory=list)
    """URLs of vLLM servers, which share the prompts; empty: vLLM shares the trainer's devices."""
    transfer: Literal["auto", "nccl", "files"] = "auto"
    """How servers get new weights: by NCCL, or as a file that they read; `auto`: NCCL where the
    trainer has a GPU."""
    folder: str = ""
    """A folder that trainer and servers share, for weights as a file; empty: a temporary one."""
    timeout_s: float = 3600.0
    """A server that is silent for longer counts as down; a response is sent when it is complete,
    so that the longest one has to fit."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """What vLLM computes in, in the trainer's process, and what servers are sent; `auto`: as the
    trainer's forward pass."""
    gpu_memory_share: float = 0.3
    """Share of a GPU's memory for vLLM's weights and cache, in the trainer's process."""
    tensor_parallel_size: int = 1
    """Ranks of the trainer that hold one model together, in the trainer's process."""
    max_num_seqs: int = 0
    """Completions that are sampled at once, of each server where there are servers; 0: as many as
    vLLM takes by itself."""
    enforce_eager: bool = False
    """Start faster and sample slower, without compiled code and CUDA graphs."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How completions are sampled."""

    engine: str = "transformers"
    """Which rollout engine."""
    rollouts_per_step: int = 128
    """Completions in one step's batch, over all ranks; the same for every algorithm."""
    group_size: int = 8
    """Completions of one problem."""
    temperature: float = 1.0
    """Logits are divided by it, when sampling and when training."""
    max_prompt_tokens: int = 0
    """A longer prompt is an error, or dropped (`problems.overlong`); 0: what the context allows."""
    max_completion_tokens: int = 1024
    """A completion is cut here."""
    batch_tokens: int = 131_072
    """Cache positions held at once; rows beyond it wait for the next round."""
    max_logp_gap: float = 0.0
    """The run stops where sampling log-probs are this far from the trainer's, nats, mean over the
    tokens of a step or an evaluation, or four times as far in a group; 0 takes 0.001 where both
    compute in fp32, and else 0.05."""
    replay: str = ""
    """The run whose recorded rollouts the engine `replay` gives back."""
    vllm: VllmConfig = field(default_factory=VllmConfig)


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """How answers are judged."""

    name: str = "math"
    """Which verifier."""
    timeout_s: float = 5.0
    """A judgement that takes longer is ended and counted as `timeout`."""
    memory_mb: int = 1024
    """Address space that a judgement may take beyond the worker's own."""
    num_workers: int = 2
    """Processes that judge what a string or number comparison cannot."""
    max_answer_chars: int = 512
    """An extracted answer longer than this is not parsed."""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    lr: float = 1e-6
    """Peak learning rate."""
    schedule: Literal["constant", "cosine"] = "constant"
    """After the warm-up: stay, or fall to zero at the last step."""
    warmup_fraction: float = 0.0
    """Share of the steps in which the rate climbs from zero."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this 2-norm, over all that is trained; 0 leaves it."""
    moments: Literal["fp32", "8bit", "offload"] = "fp32"
    """AdamW's two moments: in fp32, in 8 bits (torchao), or in fp32 in the host's memory, which
    takes the GPU's bus at every step, and 8 to 16 bytes a trained parameter there: torch rounds
    what it pins up to powers of two."""


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Low-rank adapters (peft) in place of training every weight; companions have their own."""

    rank: int = 0
    """Inner width of an adapter; 0: every weight is trained."""
    alpha: float = 32.0
    """An adapter's output is scaled by alpha / rank."""
    targets: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the linear maps that get an adapter; `all-linear`: all but the head."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop."""

    max_steps: int = 100
    """Rollout batches to train on, at most."""
    max_generated_tokens: int = 0
    """Training ends after the step in which it has sampled that many completion tokens, so that an
    algorithm that refuses groups has no more of them than others; 0: no such limit."""
    minibatches: int = 1
    """Optimizer steps that a rollout batch is split into, by whole groups."""
    epochs: int = 1
    """Times that a rollout batch is gone through."""
    parallel: Literal["auto", "ddp", "fsdp", "deepspeed"] = "auto"
    """How processes share the models: each holds all of them (`ddp`), or a part of every layer
    (`fsdp`, FSDP2; `deepspeed`, ZeRO-3); `auto`: as `accelerate launch` was told, else `fsdp` on
    GPUs that whole models do not fit, and `ddp`.  Rounding only."""
    micro_batch_tokens: int = 16_384
    """Tokens, padding included, in one forward pass of one process; changes results by rounding
    only.  Halved, and the step repeated, where a GPU's memory does not suffice for whole models."""
    logits_tokens: int = 1024
    """Tokens whose logits over the vocabulary are held at once; rounding only."""
    gradient_checkpointing: bool = False
    """Compute activations anew in the backward pass, layer by layer: a third more time for a
    fraction of the memory; changes nothing else."""
    max_bad_steps: int = 3
    """An optimizer step whose loss or gradient is not finite is left out; at this many in a row the
    run stops."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """What forward and backward compute in; weights and optimizer are always fp32."""
    cpu_threads: int = 0
    """Threads of one operation on the CPU; 0 leaves it to torch.  A tiny model wants 1: threads
    that wait for each other on a busy machine cost more than they give."""
    importance: Literal["auto", "none", "truncate", "mask"] = "auto"
    """How a token is weighted for the gap between sampler and trainer, exp(old - sampler log-prob):
    not at all, at most `importance_cap`, or left out beyond it; `auto`: truncated where the engine
    does not sample the trainer's own model."""
    importance_cap: float = 2.0
    """The cap of these weights."""
    control: Literal["none", "untrained", "random_reward", "format_reward", "supervised"] = "none"
    """What shows how much of a gain is the algorithm's: no update at all, a coin's toss for a
    reward, a reward for any answer, or the problems' own solutions in place of rollouts."""
    max_resamples: int = 4
    """Rounds of fresh problems that an algorithm may ask for in one step (dynamic sampling)."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Accuracy on held-out problems."""

    every: int = 25
    """Steps between evaluations; the first and the last are always made.  0: only these."""
    num_samples: int = 1
    """Samples of each problem."""
    temperature: float = 0.0
    """0 is greedy."""
    top_p: float = 1.0
    """Nucleus sampling; 1 is off."""
    max_completion_tokens: int = 0
    """A response is cut here; 0 takes the rollouts' limit."""


@dataclass(frozen=True, kw_only=True)
class SuitesConfig:
    """Benchmark suites, measured before training and after it."""

    names: list[str] = field(default_factory=list)
    """Which suites, or groups of them."""
    data: str = ""
    """A folder of JSONL files to read in place of the hub; empty: RLVR_ZOO_DATA, then the hub."""
    num_samples: int = 0
    """Samples of each problem; 0 takes the suite's own number, and 1 where sampling is greedy."""
    temperature: float | None = None
    """0 is greedy; null takes the suite's own."""
    top_p: float | None = None
    """Nucleus sampling; 1 is off, null takes the suite's own."""
    max_completion_tokens: int = 0
    """A response is cut here; 0 takes the suite's own, or what the context leaves room for."""
    limit: int = 0
    """Only the first problems of each suite; 0 takes all."""
    pass_at: list[int] = field(default_factory=list)
    """Which pass@k are shown and logged; empty: the powers of two, and all samples."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept for resuming."""

    every: int = 25
    """Steps between checkpoints; the last step always makes one.  0: only that."""
    keep: int = 2
    """Checkpoints that stay on disk."""


@dataclass(frozen=True, kw_only=True)
class TrackConfig:
    """Where results are sent besides the output folder."""

    mlflow: bool = True
    """Mirror the run to MLflow (MLFLOW_TRACKING_URI, or sqlite:///mlflow.db)."""
    num_samples: int = 8
    """Rollouts of each step that are written to samples.jsonl, the first groups first."""
    rollouts: bool = False
    """Write tokens and log-probs of every rollout to rollouts.jsonl, so that the engine `replay`
    can give them back."""
    experiment: str = "rlvr-zoo"
    """MLflow experiment; MLFLOW_EXPERIMENT_NAME wins."""
    comparison: str = ""
    """The comparison or sweep that the run is a part of; `compare` and `sweep` set it."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides a run's numbers."""

    algo: str
    """The algorithm: a registered name, an ablation (`popo-uniform`), or `module:Class`."""
    algorithm: dict[str, Any] = field(default_factory=dict)
    """The algorithm's own knobs, as its `Config` declares them."""
    protocol: str = "micro"
    seed: int = 0
    """Decides sampling, problem order, noise, and a head's start; not the start policy."""
    model: ModelConfig = field(default_factory=ModelConfig)
    problems: ProblemsConfig = field(default_factory=ProblemsConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    suites: SuitesConfig = field(default_factory=SuitesConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    track: TrackConfig = field(default_factory=TrackConfig)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What `rlvr-zoo eval` is told: sections that a run has, too."""

    model: ModelConfig
    suites: SuitesConfig
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    """Its engine, batch_tokens, max_logp_gap and vllm count here."""
    verify: VerifyConfig = field(default_factory=VerifyConfig)
    precision: Literal["fp32", "bf16"] = "fp32"
    """What the forward pass computes in."""
    seed: int = 0
    """Decides sampling."""
