"""Ranks of sharded models that run out of memory in the middle of a pass, where the others wait:
the step is taken in smaller pieces, with the gradient that it would have had."""

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from rlvr_zoo.config import TrainConfig
from rlvr_zoo.errors import DeviceMemoryError
from rlvr_zoo.train.collectives import CAN_RESTART, CollectiveCounter
from rlvr_zoo.train.passes import Passes
from rlvr_zoo.train.rows import rows_of

from .conftest import group
from .forked import ROOT, command
from .memory_ranks import CASES, TOKENS, full


@pytest.mark.skipif(not CAN_RESTART, reason="torch before 2.13 cannot restart a pass")
def test_no_rank_waits_for_one_without_memory(model_dir: Path) -> None:
    """Before collectives all over a step, on one rank and on both at different ones, and within a
    layer."""
    asked = command(2, "tests.train.memory_ranks", model_dir)
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found.keys() == CASES.keys()
    for case, tried in found.items():
        wheres = {where.split()[0] for where, _, _ in tried}
        assert wheres == {"collective", "a"}, case
        for where, gap, tokens in tried:
            assert gap < 1e-6 and tokens == TOKENS // 2, (case, where)


def without_a_way_on(**settings: Any) -> Passes:
    """Of a sharded model whose collectives nobody counts, as DeepSpeed's."""
    backend: Any = SimpleNamespace(
        rank=3,
        world_size=4,
        is_sharded=True,
        collectives=CollectiveCounter(),
        any=lambda value: value,
    )
    return Passes(TrainConfig(**settings), backend, discard=lambda: None)


def test_where_ranks_cannot_go_on_the_run_ends_and_says_how() -> None:
    rows = rows_of([group(0, [1, 0, 1, 0], [7, 2, 5, 3])], [0, 1, 2, 3], 9, torch.device("cpu"))

    def run_pass(cut: torch.Tensor, weight: float) -> None:
        full()

    passes = without_a_way_on(micro_batch_tokens=40)
    with pytest.raises(DeviceMemoryError, match=r"rank 3 .*1 GiB.*micro_batch_tokens=20") as said:
        passes.run(torch.arange(4), rows, run_pass)
    assert "\n" not in str(said.value)
    passes = without_a_way_on(micro_batch_tokens=10)  # a row by itself, already
    with pytest.raises(DeviceMemoryError, match=r"--resume and train.gradient_checkpointing=true"):
        passes.run(torch.arange(4), rows, run_pass)
