"""Any number of ranks, whole or sharded, and any size of micro-batch: the same gradient."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .ranks import BATCHES, MICRO_BATCH_TOKENS, algorithms, gradient

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def alone(model_dir: Path) -> dict[tuple[str, str], dict[str, torch.Tensor]]:
    """The gradients of one process, each batch in one micro-batch."""
    return {
        (algo, batch): gradient(model_dir, algo, groups, MICRO_BATCH_TOKENS[0], "ddp")
        for algo in algorithms()
        for batch, groups in BATCHES.items()
    }


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_gradient_is_that_of_one_process(
    model_dir: Path,
    tmp_path: Path,
    alone: dict[tuple[str, str], dict[str, torch.Tensor]],
    parallel: str,
    ranks: int,
) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}"]
    command += ["--standalone", "-m", "tests.train.ranks", str(model_dir), parallel, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    worst = 0.0
    for (algo, batch), want in alone.items():
        norm = torch.stack([tensor.norm() for tensor in want.values()]).norm() if want else 0.0
        for tokens in MICRO_BATCH_TOKENS:
            got = load_file(tmp_path / f"{algo}, {batch}, {tokens}.safetensors")
            moved = {name for name, tensor in got.items() if tensor.any()}
            assert moved == {name for name, tensor in want.items() if tensor.any()}, algo
            gaps = [(got[name] - want[name]).norm() for name in want]
            gap = (torch.stack(gaps).norm() / norm).item() if gaps else 0.0
            assert gap < 1e-6, (algo, batch, tokens, gap)
            worst = max(worst, gap)
    print(f"{parallel}, {ranks} ranks: largest relative difference {worst:.1e}")
