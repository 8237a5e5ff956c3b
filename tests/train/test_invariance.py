"""Any number of ranks, whole or sharded, and any size of micro-batch: the same gradient, from every
algorithm.  Ranks without a row, or without a positive one, keep nobody waiting: a collective that
lasts a minute fails."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from .forked import ROOT, command
from .ranks import BATCHES, algorithms, gradients

needs_it = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
WHOLE, SPLIT = 16_384, 20
"""Tokens of a micro-batch: all rows, or a few."""
Gradient = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def alone(model_dir: Path) -> dict[str, dict[str, Gradient]]:
    """The gradients of one process, each batch in one micro-batch, by algorithm and batch."""
    return {algo: gradients(model_dir, algo, WHOLE, "ddp") for algo in algorithms()}


def gap(got: Gradient, want: Gradient) -> float:
    """Norm of the difference, relative to the norm; the same weights must be moved."""
    moved = [{name for name, tensor in each.items() if tensor.any()} for each in (got, want)]
    assert moved[0] == moved[1]
    if not moved[1]:
        return 0.0
    norm = torch.stack([tensor.norm() for tensor in want.values()]).norm()
    return (torch.stack([(got[n] - want[n]).norm() for n in want]).norm() / norm).item()


def test_micro_batches_change_nothing(
    model_dir: Path, alone: dict[str, dict[str, Gradient]]
) -> None:
    for algo, batches in alone.items():
        split = gradients(model_dir, algo, SPLIT, "ddp")
        for batch, want in batches.items():
            assert gap(split[batch], want) < 1e-6, (algo, batch)
    assert all(any(t.any() for t in batches["mixed"].values()) for batches in alone.values())


@pytest.mark.parametrize("parallel", ["ddp", "fsdp", pytest.param("deepspeed", marks=needs_it)])
@pytest.mark.parametrize(("ranks", "tokens"), [(2, SPLIT), (4, WHOLE)])
def test_ranks_change_nothing(
    model_dir: Path,
    tmp_path: Path,
    alone: dict[str, dict[str, Gradient]],
    parallel: str,
    ranks: int,
    tokens: int,
) -> None:
    asked = command(ranks, "tests.train.ranks", model_dir, parallel, tokens, tmp_path)
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    for algo, batches in alone.items():
        for batch in BATCHES:
            got = load_file(tmp_path / f"{algo}, {batch}.safetensors")
            assert gap(got, batches[batch]) < 1e-6, (algo, batch)
