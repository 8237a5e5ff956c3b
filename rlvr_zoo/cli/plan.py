"""`rlvr-zoo plan`: what a run takes, before it is paid for."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table

from rlvr_zoo.cli.run import Flags
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.power import MEASURED, TYPICAL, detectable_difference
from rlvr_zoo.models.quiet import quiet_transformers
from rlvr_zoo.plan import devices as gpus
from rlvr_zoo.plan.cost import LAYER_SECONDS, UPDATE_UTILISATION, Cost, cost
from rlvr_zoo.plan.devices import GIB, Devices
from rlvr_zoo.plan.fit import Fit, settled, way_out, with_setting
from rlvr_zoo.plan.host import HostPlan, host
from rlvr_zoo.plan.memory import MemoryPlan, as_table, estimate
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.plan.suites import SuiteSize, sizes
from rlvr_zoo.resolve import resolve


@dataclass(frozen=True)
class Requirements:
    """What some settings take on some GPUs, beside these GPUs' memory."""

    config: RunConfig
    devices: Devices
    cost: Cost
    cost_with_vllm: Cost
    """If vLLM sampled, whatever samples now."""
    host: HostPlan


@dataclass(frozen=True)
class WayOut:
    """Where a run does not fit as it is: the settings that do."""

    fit: Fit
    needs: Requirements


@dataclass(frozen=True)
class Plan:
    """Everything that is printed."""

    shape: ModelShape
    given: Requirements
    """With the settings as they are."""
    memory: MemoryPlan
    suites: list[SuiteSize]
    seeds: int
    utilisation: float
    why_sharded: str
    """Where `train.parallel=auto` shards: a line that says so."""
    way_out: WayOut | None

    @property
    def config(self) -> RunConfig:
        return self.given.config

    @property
    def devices(self) -> Devices:
        return self.given.devices

    @property
    def fits(self) -> bool:
        return self.memory.total_bytes <= self.devices.gpu.memory_bytes

    def gpu_hours(self, cost: Cost, devices: Devices) -> float:
        """Of all seeds."""
        return self.seeds * cost.hours * devices.world_size


def plan_command(flags: Flags, gpu_text: str, seeds: int, utilisation: float, as_json: bool) -> int:
    """Prints the plan; 1 where the run does not fit as it is, else 0."""
    devices = gpus.parse(gpu_text)
    if seeds < 1:
        raise ConfigError(f"--seeds {seeds}: set 1 or more")
    if not 0 < utilisation <= 1:
        raise ConfigError(f"--utilisation {utilisation}: set more than 0, and 1 or less")
    config = resolve(flags.file_tree(), flags.tree())
    if devices.world_size > config.rollout.rollouts_per_step:
        raise ConfigError(
            f"{devices} has {devices.world_size} GPUs for {config.rollout.rollouts_per_step}"
            " rollouts a step: some would idle; take fewer, or raise rollout.rollouts_per_step"
        )
    quiet_transformers()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the error is ours
    plan = make_plan(config, devices, seeds, utilisation)
    if as_json:
        print(json.dumps(_as_json(plan), indent=1))
    else:
        _show(plan)
    return 0 if plan.fits else 1


def make_plan(
    config: RunConfig, devices: Devices, seeds: int, utilisation: float = UPDATE_UTILISATION
) -> Plan:
    """The plan of a run on those devices.  Raises ModelError where the shape cannot be had."""
    shape, memory_bytes = load_shape(config.model), devices.gpu.memory_bytes
    if config.train.parallel == "deepspeed":  # to the plan it is one with FSDP2
        config = with_setting(config, "train.parallel", "fsdp")
    config, why = settled(config, shape, devices.world_size, memory_bytes)  # as a run decides
    memory = estimate(config, shape, devices.world_size, memory_bytes)
    suites = sizes(config.suites)

    def requirements(of: RunConfig, on: Devices) -> Requirements:
        vllm = with_setting(of, "rollout.engine", "vllm")
        return Requirements(
            config=of,
            devices=on,
            cost=cost(of, shape, on, suites, utilisation),
            cost_with_vllm=cost(vllm, shape, on, suites, utilisation),
            host=host(of, shape, on),
        )

    plan = Plan(
        shape=shape,
        given=requirements(config, devices),
        memory=memory,
        suites=suites,
        seeds=seeds,
        utilisation=utilisation,
        why_sharded=why,
        way_out=None,
    )
    fit = None if plan.fits else way_out(config, shape, devices.world_size, memory_bytes)
    if fit is None:
        return plan
    needs = requirements(fit.config, devices.doubled_to(fit.world_size))
    return replace(plan, way_out=WayOut(fit, needs))


def _detectable(plan: Plan) -> Iterator[tuple[SuiteSize, float | None, bool]]:
    """(suite, smallest difference in points, whether its noise was measured); None: not known."""
    for suite in plan.suites:
        if suite.num_problems is None:
            yield suite, None, False
            continue
        found = detectable_difference(
            MEASURED.get(suite.name, TYPICAL), suite.num_problems, suite.num_samples, plan.seeds
        )
        yield suite, None if math.isnan(found) else 100 * found, suite.name in MEASURED


# --------------------------------------------------------------------------- JSON


def _as_json(plan: Plan) -> dict[str, Any]:
    memory = plan.memory
    return {
        "algorithm": plan.config.algo,
        "model": plan.config.model.name,
        "parameters": plan.shape.num_parameters,
        "gpus": {"name": str(plan.devices), **asdict(plan.devices.gpu)},
        "world_size": plan.devices.world_size,
        "parallel": plan.config.train.parallel,
        "fits": plan.fits,
        "memory_bytes": {
            "total": round(memory.total_bytes),
            "peak_phase": memory.peak_phase,
            "parts": {name: round(size) for name, size in as_table(memory)},
            "phases": {
                phase: {name: round(size) for name, size in parts.items() if size}
                for phase, parts in memory.phases.items()
            },
        },
        "change": _way_out_as_json(plan, plan.way_out) if plan.way_out else None,
        **_requirements_as_json(plan, plan.given),
        "seeds": plan.seeds,
        "suites": [
            {**asdict(suite), "detectable_points": points, "measured_noise": measured}
            for suite, points, measured in _detectable(plan)
        ],
    }


def _way_out_as_json(plan: Plan, found: WayOut) -> dict[str, Any]:
    return {
        "arguments": found.fit.arguments(plan.devices),
        "total_bytes": round(found.fit.memory.total_bytes),
        "world_size": found.fit.world_size,
        **_requirements_as_json(plan, found.needs),
    }


def _requirements_as_json(plan: Plan, needs: Requirements) -> dict[str, Any]:
    cost, host = needs.cost, needs.host
    return {
        "cost": {
            **asdict(cost),
            "hours": cost.hours,
            "gpu_hours": plan.gpu_hours(cost, needs.devices),
            "utilisation": plan.utilisation,
        },
        "host_bytes": {
            "start": round(host.start_bytes),
            "training": round(host.training_bytes),
            "saving": round(host.saving_bytes),
        },
        "disk_bytes": {
            "checkpoint": {name: round(size) for name, size in host.checkpoint.items()},
            "checkpoints": host.num_checkpoints,
            "total": round(host.disk_bytes),
            "saves": host.num_saves,
        },
    }


# --------------------------------------------------------------------------- text


def _show(plan: Plan) -> None:
    console = Console(highlight=False)
    config, shape = plan.config, plan.shape
    console.print(
        f"[bold]{config.algo}[/bold] on {config.model.name} ({shape.num_parameters / 1e9:.2f} B"
        f" parameters), protocol {config.protocol}, {plan.devices}"
    )
    if plan.why_sharded:
        console.print(plan.why_sharded)
    elif plan.devices.world_size > 1:
        console.print(f"train.parallel={config.train.parallel}")
    console.print(_memory_table(plan.memory))
    _say_fit(console, plan)
    needs = plan.way_out.needs if plan.way_out else plan.given
    heading = "with these settings:" if plan.way_out else "if it did fit:"
    console.print("" if plan.fits else f"\n{heading}")
    _say_cost(console, plan, needs)
    _say_host(console, needs)
    if plan.suites:
        console.print()
        console.print(_suite_table(plan))


def _memory_table(memory: MemoryPlan) -> Table:
    """A column a phase, the largest one first."""
    phases = sorted(memory.phases, key=lambda phase: -sum(memory.phases[phase].values()))
    phases = phases[:6]  # a terminal is no wider; `--json` has all of them
    names = list(dict.fromkeys(name for phase in phases for name in memory.phases[phase]))
    table = Table("GiB of one GPU", *phases)
    table.columns[1].style = "bold"
    for column in table.columns[1:]:
        column.justify = "right"
    for name in names:
        row = [memory.phases[phase].get(name, 0.0) / GIB for phase in phases]
        if any(row):
            table.add_row(name, *(f"{size:.2f}" if size else "" for size in row))
    sums = [sum(memory.phases[phase].values()) / GIB for phase in phases]
    table.add_section()
    table.add_row("tensors", *(f"{size:.2f}" for size in sums))
    return table


def _say_fit(console: Console, plan: Plan) -> None:
    memory, devices = plan.memory, plan.devices
    console.print(
        f"{memory.total_bytes / GIB:.1f} GiB of {devices.gpu.memory_gib} with"
        f" {memory.reserve_bytes / GIB:.1f} for CUDA and fragmentation (assumed):"
        f" [bold]{'fits' if plan.fits else 'does not fit'}[/bold]"
    )
    if plan.fits:
        return
    if plan.way_out is None:
        console.print("no combination of settings was found that fits; take a smaller model")
        return
    fit = plan.way_out.fit
    console.print(f"fits with ({fit.memory.total_bytes / GIB:.1f} GiB):")
    for argument in fit.arguments(devices):
        console.print(f"  {argument}", markup=False)


def _say_cost(console: Console, plan: Plan, needs: Requirements) -> None:
    found, config = needs.cost, needs.config
    tokens = f"{found.generated_tokens / 1e6:,.1f} M tokens generated"
    if found.generated_tokens_most > found.generated_tokens:
        tokens += f" (up to {found.generated_tokens_most / 1e6:,.1f} M with resampling)"
    console.print(
        f"{config.train.max_steps} steps, at most: {tokens},"
        f" {found.trained_tokens / 1e6:,.1f} M trained"
    )
    engine = f"engine {config.rollout.engine}"
    if found.rollout_bound == "kernels":
        engine += f", at {1e3 * LAYER_SECONDS:.0f} ms a layer and token, which is assumed"
    console.print(
        f"{found.hours:.1f} h a seed: rollout {found.rollout_hours:.1f} ({engine}), update"
        f" {found.update_hours:.1f} (at {100 * plan.utilisation:.0f} % of peak), evaluation"
        f" {found.evaluate_hours:.1f}; {plan.seeds} seeds on {needs.devices}:"
        f" {plan.gpu_hours(found, needs.devices):,.0f} GPU hours"
    )
    if config.rollout.engine == "transformers":
        faster = needs.cost_with_vllm
        console.print(
            f"{faster.hours:.1f} h a seed with rollout.engine=vllm, if it reaches what is assumed"
            f" of it: {plan.gpu_hours(faster, needs.devices):,.0f} GPU hours"
        )


def _say_host(console: Console, needs: Requirements) -> None:
    found, number = needs.host, needs.host.num_checkpoints
    ranks = needs.devices.gpus_per_machine
    times = f"{found.start_bytes / GIB:.1f} GiB at the start"
    times += f" ({ranks} ranks, each with whole models for a while)" if ranks > 1 else ""
    if found.training_bytes:
        times += f", {found.training_bytes / GIB:.1f} in training (moments)"
    times += f", {found.saving_bytes / GIB:.1f} where the main rank saves"
    console.print(f"memory of a machine beside its GPUs, tensors only: {times}")
    disk = f"disk: {found.checkpoint_bytes / GIB:.1f} GiB a checkpoint"
    if number > needs.config.checkpoint.keep:
        why = f"checkpoint.keep={needs.config.checkpoint.keep} and one more while saving"
        disk += f", {found.disk_bytes / GIB:.1f} for {number} ({why})"
    elif number > 1:
        disk += f", {found.disk_bytes / GIB:.1f} for {number}, which are all"
    if found.num_saves > number:
        disk += f"; {found.num_saves} are written in all"
    console.print(disk)


def _suite_table(plan: Plan) -> Table:
    word = "seeds" if plan.seeds > 1 else "seed"
    table = Table(
        "suite", "problems", "samples", f"smallest difference seen with {plan.seeds} {word}"
    )
    for suite, points, measured in _detectable(plan):
        if points is not None:
            shown = f"{points:.1f} points{'' if measured else ' (its noise is assumed)'}"
        elif suite.num_problems is None:
            shown = "its size is not known before it is loaded"
        else:
            shown = "one seed cannot tell a difference from luck"
        problems = "?" if suite.num_problems is None else str(suite.num_problems)
        table.add_row(suite.name, problems, str(suite.num_samples), shown)
    return table
