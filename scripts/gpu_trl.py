"""The same step by TRL's GRPOTrainer, for `gpu_measure.py`."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from gpu_common import (
    KL_COEF,
    Clock,
    Report,
    Size,
    build_lm,
    build_tokenizer,
    peak_gib,
    prompts,
    rollouts_of,
    updates,
    wait,
)


class Enough(Exception):
    """Ends TRL's training once the last rollout is timed."""


def trl(size: Size, report: Report) -> None:
    """GRPOTrainer at the same shape, precision, moments and rows at once."""
    try:
        from trl.trainer import grpo_trainer
    except Exception as error:  # any fault of a stranger's package, or of one that it needs
        return report.skip(f"trl cannot be imported: {type(error).__name__}: {error}")
    from datasets import Dataset
    from transformers import TrainerCallback

    clock = Clock()
    with clock.part("build"):
        lm, tokenizer = build_lm(size), build_tokenizer()
        # it would load a reference from a folder or the hub
        grpo_trainer.create_model_from_path = lambda *_, **__: copy.deepcopy(lm)
    began: list[float] = []
    ended: list[float] = []

    class Watch(TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            wait()
            began.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            wait()
            ended.append(time.perf_counter())

    def reward(completions: list[str], **_: Any) -> list[float]:
        return [float(n % 2 == 0) for n in range(len(completions))]

    texts = prompts(size) * (size.timed_steps + 3)
    with tempfile.TemporaryDirectory() as output:
        trainer = grpo_trainer.GRPOTrainer(
            model=lm,
            processing_class=tokenizer,
            reward_funcs=reward,
            train_dataset=Dataset.from_list([{"prompt": text} for text in texts]),
            callbacks=[Watch()],
            args=trl_arguments(grpo_trainer.GRPOConfig, size, output),
        )
        real = lm.generate

        def generate(input_ids: Any, **rest: Any) -> Any:
            if len(ended) <= size.timed_steps:
                shape = (len(input_ids), size.completion_tokens)
                made = torch.randint(2, size.vocabulary, shape, device=input_ids.device)
                return torch.cat([input_ids, made], dim=1)
            seconds = [end - begin for begin, end in zip(began, ended, strict=False)]
            report_trl(report, size, clock, seconds)
            rest["generation_config"].max_new_tokens = min(16, size.rollout_tokens)
            real(input_ids=input_ids, **rest)
            rest["generation_config"].max_new_tokens = size.rollout_tokens
            with clock.part("rollout"):
                found = real(input_ids=input_ids, **rest)
            tokens = len(input_ids) * (found.shape[1] - input_ids.shape[1])
            rollout = rollouts_of(size, clock.seconds["rollout"], tokens)
            report.add("end", rollout=rollout, peak_gib_with_rollout=peak_gib())
            raise Enough

        lm.generate = generate
        report.add("warm-up", moments=size.moments)
        try:
            trainer.train()
        except Enough:
            return
    raise RuntimeError("TRL's training ended before its rollout was timed")


def report_trl(report: Report, size: Size, clock: Clock, seconds: list[float]) -> None:
    timed = seconds[1:]
    report.add(
        "rollout",
        status="ok",
        build_s=round(clock.seconds["build"], 2),
        warm_up_s=round(seconds[0], 2),
        peak_gib=peak_gib(),
        update=updates(sum(timed) / len(timed), size.rows * size.completion_tokens),
    )


def trl_arguments(config: Callable[..., Any], size: Size, output: str) -> Any:
    return config(
        output_dir=output,
        max_steps=size.timed_steps + 2,
        per_device_train_batch_size=size.rows_at_once,
        gradient_accumulation_steps=size.rows // size.rows_at_once,
        num_generations=size.group_size,
        max_completion_length=size.completion_tokens,
        num_iterations=1,
        loss_type="grpo",
        beta=KL_COEF,
        epsilon=0.2,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        optim="adamw_torch_8bit" if size.moments == "8bit" else "adamw_torch_fused",
        bf16=True,
        gradient_checkpointing=True,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="no",
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )
