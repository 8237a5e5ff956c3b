"""From a tree of settings to a dataclass, and whether its values can work together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast, get_type_hints

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo import registry
from rlvr_zoo.config import EvalConfig, RolloutConfig, RunConfig
from rlvr_zoo.errors import ConfigError, nearest

T = TypeVar("T")


def build(cls: type[T], tree: Mapping[str, Any], where: str = "") -> T:
    """A dataclass from a tree, its types checked.

    Raises ConfigError, one line: an unknown key with the nearest name, or a value that is wrong.
    """
    _refuse_unknown(cls, tree, where)
    try:
        adapter: TypeAdapter[Any] = _adapter(cls)  # type: ignore[arg-type]
        built = adapter.validate_python(dict(tree))
        _refuse_non_finite(asdict(built), where)
        return cast(T, built)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first.get("ctx", {}).get("error")
        if isinstance(reason, ConfigError):
            raise reason from error
        key = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])])
        raise ConfigError(f"{key}={first['input']!r}: {first['msg'].lower()}") from error


@cache
def _adapter(cls: Any) -> TypeAdapter[Any]:
    return TypeAdapter(cls)


def _refuse_non_finite(tree: Mapping[str, Any], where: str) -> None:
    for key, value in tree.items():
        path = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping):
            _refuse_non_finite(value, path)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{path}={value}: set a finite number")


def _refuse_unknown(cls: type, tree: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in fields(cls)}
    hints = get_type_hints(cls)
    for key, value in tree.items():
        path = f"{where}.{key}" if where else str(key)
        if key not in known:
            raise ConfigError(f"unknown setting {path!r}: {nearest(str(key), known)}")
        if is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(f"{path}={value!r}: a section of settings is wanted here")
            _refuse_unknown(cast(type, hints[key]), value, path)


_POSITIVE = (
    "rollout.rollouts_per_step",
    "rollout.group_size",
    "rollout.temperature",
    "rollout.max_completion_tokens",
    "rollout.batch_tokens",
    "rollout.vllm.timeout_s",
    "rollout.vllm.gpu_memory_share",
    "rollout.vllm.tensor_parallel_size",
    "train.importance_cap",
    "optimizer.lr",
    "optimizer.eps",
    "train.max_steps",
    "train.minibatches",
    "train.epochs",
    "train.micro_batch_tokens",
    "train.logits_tokens",
    "train.max_bad_steps",
    "lora.alpha",
    "evaluate.num_samples",
    "evaluate.top_p",
    "problems.num_held_out",
    "verify.timeout_s",
    "verify.memory_mb",
    "verify.num_workers",
    "verify.max_answer_chars",
    "checkpoint.keep",
    "suites.top_p",
)
_AT_MOST_ONE = (
    "evaluate.top_p",
    "suites.top_p",
    "optimizer.warmup_fraction",
    "rollout.vllm.gpu_memory_share",
)
_BELOW_ONE = ("optimizer.beta1", "optimizer.beta2")
_NOT_NEGATIVE = (
    "rollout.max_prompt_tokens",
    "optimizer.weight_decay",
    "optimizer.max_grad_norm",
    "train.max_resamples",
    "lora.rank",
    "train.max_generated_tokens",
    "rollout.max_logp_gap",
    "rollout.vllm.max_num_seqs",
    "train.cpu_threads",
    "evaluate.every",
    "evaluate.temperature",
    "evaluate.max_completion_tokens",
    "checkpoint.every",
    "track.num_samples",
    "model.max_context_tokens",
    "suites.temperature",
    "suites.num_samples",
    "suites.max_completion_tokens",
    "suites.limit",
)


_MAX_TIMEOUT_S = 1e6
_VLLM_MAX_TEMPERATURE = 2.0


def check_eval(config: EvalConfig) -> None:
    """Refuses what an evaluation cannot do.  Raises ConfigError, NotFoundError."""
    if not config.suites.names:
        raise ConfigError("which suites? add --suite NAME; `rlvr-zoo list suites` shows them")
    _check_bounds(config)
    _check_sampling(config)
    if config.rollout.engine == "replay":
        raise ConfigError(
            "rollout.engine=replay: an evaluation samples the model that it measures; set"
            " rollout.engine=transformers, or vllm"
        )
    _check_vllm(config.rollout, "suites.temperature", config.suites.temperature)
    plain = asdict(RolloutConfig())
    for key, value in asdict(config.rollout).items():
        if key not in ("engine", "batch_tokens", "max_logp_gap", "vllm") and value != plain[key]:
            raise ConfigError(
                f"rollout.{key}={value!r}: an evaluation does not look at it; set suites.{key} if"
                " there is one, or leave it out"
            )


def check(config: RunConfig) -> None:
    """Refuses values, and combinations of values, that cannot work.  Raises ConfigError."""
    _check_bounds(config)
    _check_sampling(config)
    _check_groups(config)
    if config.train.importance == "mask" and config.train.importance_cap <= 1:
        raise ConfigError(
            f"train.importance_cap={config.train.importance_cap}: train.importance=mask would leave"
            " out tokens that sampler and trainer agree on; set it above 1"
        )
    if config.train.max_generated_tokens and config.optimizer.schedule != "constant":
        raise ConfigError(
            f"optimizer.schedule={config.optimizer.schedule}: falls by steps, and with"
            " train.max_generated_tokens nobody knows how many there will be; set it to constant"
        )
    _check_vllm(config.rollout, "rollout.temperature", config.rollout.temperature)
    _check_vllm(config.rollout, "evaluate.temperature", config.evaluate.temperature)
    _check_vllm(config.rollout, "suites.temperature", config.suites.temperature)
    if config.evaluate.temperature == 0 and config.evaluate.num_samples > 1:
        raise ConfigError(
            f"evaluate.num_samples={config.evaluate.num_samples}: greedy samples of a problem are"
            " all the same; set evaluate.temperature above 0, or evaluate.num_samples=1"
        )
    if config.evaluate.temperature == 0 and config.evaluate.top_p < 1:
        raise ConfigError(
            f"evaluate.top_p={config.evaluate.top_p}: greedy sampling does not look at it; set"
            " evaluate.temperature above 0, or evaluate.top_p=1"
        )


def _check_sampling(config: RunConfig | EvalConfig) -> None:
    """What training and evaluation have in common."""
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed={config.seed}: set 0 or more, and less than 2**63")
    registry.find(registry.ROLLOUTS, config.rollout.engine)
    registry.find(registry.VERIFIERS, config.verify.name)
    if "{problem}" not in config.model.prompt:
        raise ConfigError("model.prompt: holds no {problem}, so that no problem would be seen")
    for name in config.suites.names:
        registry.find(registry.SUITES, name)
    if min(config.suites.pass_at, default=1) < 1:
        raise ConfigError(f"suites.pass_at={config.suites.pass_at}: set 1 or more")


def _check_vllm(rollout: RolloutConfig, name: str, temperature: float | None) -> None:
    if rollout.engine == "vllm" and (temperature or 0) > _VLLM_MAX_TEMPERATURE:
        raise ConfigError(
            f"{name}={temperature}: vLLM takes {_VLLM_MAX_TEMPERATURE:g} at most; set that or less,"
            " or rollout.engine=transformers"
        )


def _check_bounds(config: RunConfig | EvalConfig) -> None:
    for path in (*_POSITIVE, *_NOT_NEGATIVE, *_AT_MOST_ONE, *_BELOW_ONE):
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key, None)
        if value is None:  # left open, or no matter of an evaluation
            continue
        if value < 0 or (value == 0 and path in _POSITIVE):
            bound = "more than 0" if path in _POSITIVE else "0 or more"
            raise ConfigError(f"{path}={value}: set {bound}")
        if value > 1 and path in _AT_MOST_ONE:
            raise ConfigError(f"{path}={value}: set 1 or less")
        if value >= 1 and path in _BELOW_ONE:
            raise ConfigError(f"{path}={value}: set less than 1")
    if (timeout_s := config.rollout.vllm.timeout_s) > _MAX_TIMEOUT_S:  # sockets know no more
        raise ConfigError(f"rollout.vllm.timeout_s={timeout_s:g}: set {_MAX_TIMEOUT_S:g} or less")


def _check_groups(config: RunConfig) -> None:
    rollout, train = config.rollout, config.train
    chosen = registry.algorithm(config.algo)
    spec = chosen.cls.spec(build(chosen.cls.Config, config.algorithm, "algorithm"))
    if rollout.group_size < spec.min_group_size:
        raise ConfigError(
            f"rollout.group_size={rollout.group_size}: {config.algo} needs at least"
            f" {spec.min_group_size} rollouts of a problem, for {spec.why_min_group_size};"
            f" set rollout.group_size={spec.min_group_size} or more"
        )
    if train.control == "supervised" and spec.prepare:
        raise ConfigError(
            f"train.control=supervised: {config.algo} looks at how completions were sampled, and"
            " solutions were not; take --algo raft, which learns the likelihood of what is right"
        )
    num_groups, rest = divmod(rollout.rollouts_per_step, rollout.group_size)
    if rest or not num_groups:
        raise ConfigError(
            f"rollout.rollouts_per_step={rollout.rollouts_per_step} is not a multiple of"
            f" rollout.group_size={rollout.group_size};"
            f" set it to {max(num_groups, 1) * rollout.group_size}"
        )
    if train.minibatches > num_groups:
        raise ConfigError(
            f"train.minibatches={train.minibatches}: a step has only {num_groups} groups to share"
            " out; set fewer"
        )
