"""One measurement of `gpu_check.py`, in its own process: SIZE WHAT RESULT; WHAT: an algorithm, trl.

RESULT is written anew at every stage, so that a process that is ended leaves what it has.  The
models have random weights, made on the device, and predict every token about alike, so that next to
no completion ends before its limit.  The update is timed on made-up tokens of full length, which
cost what sampled ones cost; half of each group counts as right, so that every row is trained on.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from gpu_common import (
    KL_COEF,
    SIZES,
    Clock,
    Report,
    Size,
    build_lm,
    build_tokenizer,
    machine,
    peak_gib,
    peak_tflops,
    per_token,
    prompts,
    rollouts_of,
    updates,
)
from gpu_trl import trl


def ours(algo: str, size: Size, report: Report) -> None:
    from rlvr_zoo.models.load import LoadedModel
    from rlvr_zoo.rollout.transformers import TransformersEngine
    from rlvr_zoo.train.backend import Backend
    from rlvr_zoo.train.learner import Learner
    from rlvr_zoo.train.loop import Run
    from rlvr_zoo.train.rows import rows_of

    config, algorithm, spec = configured(algo, size)
    backend, clock, draw = Backend("bf16"), Clock(), torch.Generator().manual_seed(0)
    with clock.part("build"):
        lm, tokenizer = build_lm(size), build_tokenizer()
        trunk, output = per_token(lm)
        model = LoadedModel(lm, tokenizer, 32_768, frozenset({tokenizer.eos_token_id}), "", "")
        engine = TransformersEngine(model, config.rollout, backend.compute)
        learner = Learner(lm, algorithm, spec, config, backend)
    run: Any = Run(
        config=config,
        folder=None,
        record=None,  # type: ignore[arg-type]
        model=model,
        engine=engine,
        collector=None,  # type: ignore[arg-type]
        evaluators=(),
        learner=learner,
        backend=backend,
        observer=None,  # type: ignore[arg-type]
        should_stop=lambda: 0,
    )
    report.add("warm-up", parameters=learner.num_parameters(), moments=size.moments)
    seeds = list(range(size.rows))
    rows = rows_of(made_up(size, draw), seeds, size.completion_tokens, backend.device)
    with clock.part("warm_up"):
        run._update(rows)

    parts = watch_update(learner, backend)
    metrics, tokens = {}, 0
    with clock.part("update"):
        for _ in range(size.timed_steps):
            metrics, tokens = run._update(rows)
    update_s = clock.seconds["update"] / size.timed_steps
    flops = tokens * flops_per_token(spec, trunk, output)
    all_flops = int(rows.total_tokens_N.sum()) * flops_per_token(spec, trunk, output)
    report.add(
        "rollout" if algo == "grpo" else "end",
        status="ok",
        build_s=round(clock.seconds["build"], 2),
        warm_up_s=round(clock.seconds["warm_up"], 2),
        peak_gib=peak_gib(),
        update=updates(update_s, tokens)
        | {
            "flops": flops,
            "mfu": utilisation(flops, update_s),
            "mfu_with_prompts": utilisation(all_flops, update_s),
            "parts_s": part_seconds(parts, size.timed_steps),
            "micro_batch_tokens": learner.micro_batch_tokens,  # smaller than told after an OOM
            "skipped": metrics["train/skipped"],
        },
    )
    if algo == "grpo":  # the engine knows no algorithm
        sampled = sample(engine, size, tokenizer, clock)
        tokens = sum(len(rollout.ids) for rollouts in sampled for rollout in rollouts)
        rollout = rollouts_of(size, clock.seconds["rollout"], tokens)
        report.add("gap", rollout=rollout, peak_gib_with_rollout=peak_gib())
        gap = logp_gap(run, size, sampled, model)
        report.add("end", rollout=rollout | {"logp_gap_mean": gap})


def configured(algo: str, size: Size) -> tuple[Any, Any, Any]:
    """The run's configuration, the algorithm and what it declares."""
    from rlvr_zoo.checks import build
    from rlvr_zoo.registry import algorithm
    from rlvr_zoo.resolve import parse_set, resolve

    row_tokens = size.prompt_tokens + size.completion_tokens
    settings = [
        f"rollout.rollouts_per_step={size.rows}",
        f"rollout.group_size={size.group_size}",
        f"rollout.max_completion_tokens={size.completion_tokens}",
        "rollout.max_logp_gap=1000",  # made-up tokens were sampled by nobody
        f"optimizer.moments={size.moments}",
        "train.precision=bf16",
        "train.gradient_checkpointing=true",
        f"train.micro_batch_tokens={size.rows_at_once * row_tokens}",
    ]
    settings += [f"algorithm.critic={size.critic}"] if algo == "ppo" else []
    settings += [f"algorithm.kl_coef={KL_COEF}"] if algo == "grpo" else []
    config = resolve({}, {"algo": algo, **parse_set(settings)})
    chosen = algorithm(algo)
    knobs: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    return config, chosen.cls(knobs), chosen.cls.spec(knobs)


def made_up(size: Size, draw: torch.Generator) -> list[Any]:
    """Groups of random tokens, every second completion right."""
    from rlvr_zoo.api import Group, Problem, Rollout, Verdict

    def tokens(number: int) -> tuple[int, ...]:
        return tuple(torch.randint(2, size.vocabulary, (number,), generator=draw).tolist())

    logp = (0.0,) * size.completion_tokens
    verdicts = tuple(Verdict(n % 2 == 0, "", "string") for n in range(size.group_size))
    return [
        Group(
            problem=Problem(id=str(number), prompt="?", answer="!"),
            prompt_ids=tokens(size.prompt_tokens),
            rollouts=tuple(
                Rollout(ids=tokens(size.completion_tokens), logp=logp, text="", truncated=True)
                for _ in range(size.group_size)
            ),
            verdicts=verdicts,
        )
        for number in range(size.rows // size.group_size)
    ]


def watch_update(learner: Any, backend: Any) -> Clock:
    clock = Clock()
    for method in ("old_logp", "prepare", "step"):
        clock.watch(learner, method, method)
    clock.watch(backend, "clip", "clip")
    clock.watch(learner.optimizer, "step", "optimizer")
    for companion in learner.companions.values():
        clock.watch(companion, "follow", "companions")
    return clock


def part_seconds(clock: Clock, steps: int) -> dict[str, float]:
    """Of one step; what of `Learner.step` is in no other part is forward and backward."""
    found = {name: seconds / steps for name, seconds in clock.seconds.items()}
    inside = sum(found.get(name, 0.0) for name in ("clip", "optimizer", "companions"))
    found["forward_backward"] = found.pop("step") - inside
    return {name: round(seconds, 4) for name, seconds in found.items()}


def flops_per_token(spec: Any, trunk: int, output: int) -> int:
    """By `FORMULAS["flops"]`."""

    def parameters(wanted: frozenset[str]) -> int:
        return trunk + (output if wanted & {"logp", "entropy"} else 0)

    return sum(6 * parameters(wanted) for wanted in spec.loss.values()) + sum(
        2 * parameters(wanted) for wanted in spec.prepare.values()
    )


def utilisation(flops: float, seconds: float) -> float | None:
    peak = peak_tflops(torch.cuda.get_device_name(0)) if torch.cuda.is_available() else None
    return None if peak is None else round(flops / seconds / peak / 1e12, 4)


def requests(size: Size, tokenizer: Any) -> list[Any]:
    from rlvr_zoo.rollout.base import Request

    apart = size.rows // size.group_size
    return [
        Request(tuple(tokenizer(text)["input_ids"]), tuple(range(n, size.rows, apart)))
        for n, text in enumerate(prompts(size))
    ]


def sample(engine: Any, size: Size, tokenizer: Any, clock: Clock) -> list[list[Any]]:
    """The timed rollout, after a short one."""
    from rlvr_zoo.rollout.base import Sampling

    wanted = requests(size, tokenizer)
    short = Sampling(temperature=1.0, max_completion_tokens=min(16, size.rollout_tokens))
    engine.generate(wanted, short)
    full = Sampling(temperature=1.0, max_completion_tokens=size.rollout_tokens)
    with clock.part("rollout"):
        found: list[list[Any]] = engine.generate(wanted, full)
    return found


def logp_gap(run: Any, size: Size, sampled: list[list[Any]], model: Any) -> float:
    """Mean over tokens of |trainer's - sampler's log-prob|, nats: do both compute one policy?"""
    from rlvr_zoo.train.rows import rows_of

    groups = [
        replace(group, prompt_ids=request.prompt_ids, rollouts=tuple(rollouts))
        for group, request, rollouts in zip(
            made_up(size, torch.Generator()), requests(size, model.tokenizer), sampled, strict=True
        )
    ]
    seeds = list(range(size.rows))
    rows = rows_of(groups, seeds, size.rollout_tokens, run.backend.device)
    _, _, metrics = run._corrected(rows)
    return round(metrics["sync/logp_gap_mean"], 6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("what", choices=["popo", "grpo", "ppo", "trl"])
    parser.add_argument("result", type=Path)
    parser.add_argument("--rows", type=int, default=0)
    given = parser.parse_args()
    size = SIZES[given.size]
    if given.rows:
        if given.rows % size.group_size:
            sys.exit(f"--rows {given.rows}: set a multiple of {size.group_size}, a group's size")
        at_once = min(size.rows_at_once, given.rows)
        size = Size(**asdict(size) | {"rows": given.rows, "rows_at_once": at_once})
    report = Report(given.result)
    report.add("import", machine=machine(), shape=asdict(size))
    if size.moments == "8bit" and find_spec("torchao") is None:
        report.skip(
            "torchao is missing for moments in 8 bits; fp32 ones do not fit beside two models"
        )
    elif given.what == "trl":
        trl(size, report)
    else:
        ours(given.what, size, report)


if __name__ == "__main__":
    main()
