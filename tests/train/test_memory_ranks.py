"""Ranks of sharded models that run out of memory in the middle of a pass, where the others wait:
the step is taken in smaller pieces, with the gradient that it would have had."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed.fsdp import FSDPModule

from rlvr_zoo.config import TrainConfig
from rlvr_zoo.errors import DeviceMemoryError
from rlvr_zoo.train.meetings import Meetings
from rlvr_zoo.train.passes import Passes
from rlvr_zoo.train.rows import rows_of

from .conftest import group
from .memory_ranks import CASES, TOKENS, full

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(
    not hasattr(FSDPModule, "reset_iter_state"), reason="torch before 2.13 cannot begin a pass anew"
)
def test_no_rank_waits_for_one_without_memory(model_dir: Path) -> None:
    """At every meeting of a step, on one rank and on both at different ones, and within a layer."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "tests.train.memory_ranks", str(model_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    assert found.keys() == CASES.keys()
    for case, tried in found.items():
        assert len(tried) >= 14, case
        for where, gap, tokens in tried:
            assert gap < 1e-6 and tokens == TOKENS // 2, (case, where)


def without_a_way_on(**settings: Any) -> Passes:
    """Of a sharded model whose meetings nobody counts, as DeepSpeed's."""
    backend: Any = SimpleNamespace(
        rank=3, world_size=4, is_sharded=True, meetings=Meetings(), any=lambda value: value
    )
    return Passes(TrainConfig(**settings), backend, forget=lambda: None)


def test_where_ranks_cannot_go_on_the_run_ends_and_says_how() -> None:
    rows = rows_of([group(0, [1, 0, 1, 0], [7, 2, 5, 3])], [0, 1, 2, 3], 9, torch.device("cpu"))

    def one(cut: torch.Tensor, weight: float) -> None:
        full()

    passes = without_a_way_on(micro_batch_tokens=40)
    with pytest.raises(DeviceMemoryError, match=r"rank 3 .*1 GiB.*micro_batch_tokens=20") as said:
        passes.over(torch.arange(4), rows, one)
    assert "\n" not in str(said.value)
