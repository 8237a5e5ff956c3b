"""Peak memory of an optimizer step, measured on the CPU in fp32, beside what is planned for it.

    python tests/perf/memory.py [--shape tiny|0.5b ...] [--algo popo grpo ppo]

Counts bytes of living tensors, not the process's.  PPO at 0.5 B takes 17 GiB, some minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.plan.work import Work
from tests.plan.measure import QWEN_05B, measured, random_model

WORK = {
    "tiny": Work(prompt_tokens=6, completion_tokens=12, rows=128),
    "0.5b": Work(prompt_tokens=32, completion_tokens=96, rows=4),
}
MICRO_BATCHES = {"tiny": (18 * 128, 18 * 32), "0.5b": (512, 256)}
"""Tokens of a micro-batch: the whole step, and a part of it."""
CHUNK = {"tiny": 256, "0.5b": 64}
LIMIT = 0.15
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs="+", default=list(WORK), choices=list(WORK))
    parser.add_argument("--algo", nargs="+", default=["popo", "grpo", "ppo"])
    parser.add_argument("--set", nargs="*", default=[], dest="settings")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worst = 0.0
    print("| shape | algorithm | micro-batches | measured MiB | planned MiB | ratio (phase) |")
    print("| --- | --- | --- | --- | --- | --- |")
    for shape in arguments.shape:
        for algo in arguments.algo:
            for tokens in MICRO_BATCHES[shape]:
                start = time.perf_counter()
                lm = (
                    build_model(Recipe(), build_tokenizer(Recipe())).eval()
                    if shape == "tiny"
                    else random_model(QWEN_05B)
                )
                found = measured(
                    algo, lm, WORK[shape], f"train.micro_batch_tokens={tokens}",
                    f"train.logits_tokens={CHUNK[shape]}", *arguments.settings,
                )  # fmt: skip
                number = WORK[shape].rows * WORK[shape].row_tokens // tokens
                print(
                    f"| {shape} | {algo} | {number} | {found.peak_bytes / MIB:.1f} |"
                    f" {found.planned.tensor_bytes / MIB:.1f} | {found.ratio:.3f}"
                    f" ({found.planned.peak_phase}) |",
                    flush=True,
                )
                print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
                worst = max(worst, abs(found.ratio - 1))
                del lm
    print(f"worst: {100 * worst:.0f} %, goal {100 * LIMIT:.0f} %")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
