"""Peak memory of sharded optimizer steps (FSDP2, gloo, CPU) beside what is planned for it.

    python -m tests.train.forked 2 tests.plan.sharded_memory [CASE ...]

A case is algorithm/precision/micro-batches/tied or untied/layers or vocabulary, or `checkpointed`
or `lora` in addition; without any, all are run.  Prints one line a case: the case, measured and
planned MiB, their ratio, and the phase that decides.
"""

from __future__ import annotations

import os
import sys
from itertools import product

import torch

from rlvr_zoo.plan.work import Work

from .measure import measured, random_model

SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 448,
}
VOCABULARY = {"layers": 1024, "vocabulary": 8192}
ROWS = {"layers": 16, "vocabulary": 8}
"""Of two ranks."""
MORE = {
    "checkpointed": ("train.gradient_checkpointing=true",),
    "lora": ("lora.rank=8",),
}
ALL = [
    "/".join(case)
    for case in product(
        ("popo", "grpo", "ppo"), ("fp32", "bf16"), "14", ("untied", "tied"), VOCABULARY
    )
]
MIB = 1 << 20


def run(case: str) -> None:
    algo, precision, number, tied, kind, *more = case.split("/")
    work = Work(prompt_tokens=8, completion_tokens=24, rows=ROWS[kind])
    tokens = work.rows // 2 * work.row_tokens // int(number)
    sizes = {"vocab_size": VOCABULARY[kind], "tie_word_embeddings": tied == "tied"}
    found = measured(
        algo,
        random_model({**SIZES, **sizes}),
        work,
        "train.parallel=fsdp",
        "train.logits_tokens=16",
        f"train.precision={precision}",
        f"train.micro_batch_tokens={tokens}",
        *(setting for name in more for setting in MORE[name]),
    )
    if os.environ["RANK"] == "0":
        planned = found.planned.tensor_bytes
        sides = f"{found.peak_bytes / MIB:.1f} {planned / MIB:.1f} {found.ratio:.3f}"
        print(case, sides, found.planned.peak_phase, flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for each in sys.argv[1:] or ALL:
        run(each)
