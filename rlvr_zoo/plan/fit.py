"""What to change where a run does not fit, and the refusal of one that cannot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.plan.devices import GIB, Devices
from rlvr_zoo.plan.memory import MemoryPlan, as_table, estimate
from rlvr_zoo.plan.shape import ModelShape
from rlvr_zoo.plan.work import work_of

LORA_RANK = 32
"""What is tried where full training fits nowhere."""
MOST_GPUS = 64
SMALLEST_CACHE = 8192
"""Cache positions below which sampling is too slow to offer."""

Change = tuple[str, object]
"""A setting's dotted name and its value; `--gpus` is named so."""


@dataclass(frozen=True)
class Fit:
    """Changes that make the run fit, in the order in which they were tried."""

    changes: tuple[Change, ...]
    config: RunConfig
    """The configuration with these changes."""
    world_size: int
    memory: MemoryPlan

    def arguments(self, devices: Devices) -> list[str]:
        """As the command line takes them."""
        found = []
        for name, value in self.changes:
            if name == "--gpus":
                found.append(f"--gpus {devices.doubled_to(self.world_size)}")
            else:
                shown = str(value).lower() if isinstance(value, bool) else value
                found.append(f"--set {name}={shown}")
        return found


def with_setting(config: RunConfig, name: str, value: object) -> RunConfig:
    """The configuration with one setting of a section changed."""
    section, key = name.split(".")
    changed = replace(getattr(config, section), **{key: value})
    return replace(config, **{section: changed})


def way_out(
    config: RunConfig, shape: ModelShape, world_size: int, gpu_memory_bytes: float
) -> Fit | None:
    """The first combination that fits, less what it turns out not to need; None if none does.

    Tried in order, each on top of those before: gradient checkpointing, smaller micro-batches (and
    a smaller cache), FSDP, moments in 8 bits, moments in the host's memory, LoRA, twice the GPUs
    again and again.
    """

    def memory(changes: Sequence[Change]) -> MemoryPlan:
        changed, ranks = _changed(config, world_size, changes)
        return estimate(changed, shape, ranks, gpu_memory_bytes)

    def fits(changes: Sequence[Change]) -> bool:
        return memory(changes).total_bytes <= gpu_memory_bytes

    changes: list[Change] = []
    for change in _moves(config, shape, world_size):
        changes = [each for each in changes if each[0] != change[0]] + [change]
        if fits(changes):
            changes = _needed(changes, fits)
            changed, ranks = _changed(config, world_size, changes)
            return Fit(tuple(changes), changed, ranks, memory(changes))
    return None


def _changed(
    config: RunConfig, world_size: int, changes: Sequence[Change]
) -> tuple[RunConfig, int]:
    for name, value in changes:
        if name == "--gpus":
            assert isinstance(value, int)
            world_size = value
        else:
            config = with_setting(config, name, value)
    return config, world_size


def _moves(config: RunConfig, shape: ModelShape, world_size: int) -> Iterator[Change]:
    if not config.train.gradient_checkpointing:
        yield "train.gradient_checkpointing", True
    work = work_of(config, shape)
    tokens = config.train.micro_batch_tokens
    while tokens // 2 >= work.row_tokens:
        tokens //= 2
        yield "train.micro_batch_tokens", tokens
    cache = config.rollout.batch_tokens
    while config.rollout.engine == "transformers" and cache // 2 >= SMALLEST_CACHE:
        cache //= 2
        yield "rollout.batch_tokens", cache
    if world_size > 1 and config.train.parallel != "fsdp":
        yield "train.parallel", "fsdp"
    if config.optimizer.moments == "fp32":
        yield "optimizer.moments", "8bit"
    if config.optimizer.moments != "offload":
        yield "optimizer.moments", "offload"
    if not config.lora.rank:
        yield "lora.rank", LORA_RANK
    gpus = 2 * world_size
    while gpus <= min(MOST_GPUS, config.rollout.rollouts_per_step):
        if config.train.parallel != "fsdp":
            yield "train.parallel", "fsdp"
        yield "--gpus", gpus
        gpus *= 2


def _needed(changes: Sequence[Change], fits: Callable[[Sequence[Change]], bool]) -> list[Change]:
    """The changes without those that are not needed; the costliest come last, and go first."""
    needed = list(changes)
    for change in reversed(changes):
        fewer = [each for each in needed if each != change]
        if fits(fewer):
            needed = fewer
    return needed


def settled(
    config: RunConfig, shape: ModelShape, world_size: int, gpu_memory_bytes: int
) -> tuple[RunConfig, str]:
    """The configuration with `train.parallel=auto` decided, and a line that says why, if any.

    Models stay whole where these would not be refused, since ranks then meet once a step only;
    else they are sharded.  A pure function, so that all ranks decide alike from the same memory,
    in bytes, of their smallest GPU.
    """
    whole = with_setting(config, "train.parallel", "ddp")
    if world_size == 1:
        return whole, ""
    if config.train.parallel != "auto":
        return config, ""
    needed = _least(whole, shape, world_size, gpu_memory_bytes).total_bytes
    if needed <= gpu_memory_bytes:
        return whole, ""
    return with_setting(config, "train.parallel", "fsdp"), (
        f"train.parallel=fsdp: whole models would need {needed / GIB:.1f} GiB of each GPU, the"
        f" smallest of which has {gpu_memory_bytes / GIB:.1f}"
    )


def _least(
    config: RunConfig, shape: ModelShape, world_size: int, gpu_memory_bytes: float
) -> MemoryPlan:
    """Of a run that halves its micro-batches where memory runs out: with those that it begins with,
    or with the smallest, which keep gradients from one to the next."""
    smallest = min(config.train.micro_batch_tokens, work_of(config, shape).row_tokens)
    plans = [
        estimate(each, shape, world_size, gpu_memory_bytes)
        for each in (config, with_setting(config, "train.micro_batch_tokens", smallest))
    ]
    return min(plans, key=lambda plan: plan.total_bytes)


def refuse_if_too_big(
    config: RunConfig,
    shape: ModelShape,
    world_size: int,
    gpu_memory_bytes: int,
    *,
    halves: bool = True,
) -> None:
    """Raises ConfigError, in one line with the plan's numbers, where the run cannot fit.

    For GPUs only, and before weights are loaded.  `gpu_memory_bytes` is one GPU's total memory;
    `halves` says whether the run goes on with smaller micro-batches where memory runs out.
    """
    estimated = _least if halves else estimate
    plan = estimated(config, shape, world_size, gpu_memory_bytes)
    if plan.total_bytes <= gpu_memory_bytes:
        return
    parts = sorted(as_table(plan), key=lambda part: -part[1])
    largest = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts[:4])
    found = way_out(config, shape, world_size, gpu_memory_bytes)
    if found is None:
        help_ = "no combination of settings was found that fits; take a smaller model"
    else:
        ways = [f"{name}={value}" for name, value in found.changes if name != "--gpus"]
        more = [f"{value} GPUs" for name, value in found.changes if name == "--gpus"]
        help_ = f"set {' '.join(ways).replace('True', 'true')}" if ways else "take"
        help_ += f"{' and take' if ways and more else ''} {more[0]}" if more else ""
    raise ConfigError(
        f"{config.algo} on {config.model.name!r} needs {plan.total_bytes / GIB:.1f} GiB of each"
        f" GPU, which has {gpu_memory_bytes / GIB:.1f} ({largest} GiB); {help_}"
    )
