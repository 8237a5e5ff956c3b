"""DeepSpeed's ZeRO-3 on two ranks: the steps of one process, and a checkpoint that it can read.
tests/train/test_invariance.py has every algorithm's gradient."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.api import Group
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.rows import rows_of
from rlvr_zoo.train.sharding import whole

from .conftest import group, make_learner

ROOT = Path(__file__).parents[2]
CLIPPED = ("optimizer.lr=0.0001", "optimizer.max_grad_norm=0.01", "train.micro_batch_tokens=20")
CASES = {
    "momentum and a head": ("popo", CLIPPED),
    "a critic, recomputed": ("ppo", (*CLIPPED, "train.gradient_checkpointing=true")),
    "frozen": ("grpo", (*CLIPPED, "algorithm.kl_coef=0.04")),
    "adapters": ("popo", (*CLIPPED, "lora.rank=4", "train.gradient_checkpointing=true")),
}
STEPS: list[list[Group]] = [
    [group(0, [1, 0, 1, 0], [7, 2, 5, 3]), group(3, [0, 0, 0, 1], [3, 5, 5, 1])],
    [group(4, [0, 0, 1, 0], [2, 6, 3, 1])],
    [group(1, [0, 0, 0, 0], [1, 9, 4, 4]), group(2, [1, 1, 1, 1], [2, 2, 8, 6])],
    [group(5, [1, 0, 0, 0], [4, 4, 9, 2])],
]


def run(learner: Learner, first: int, end: int) -> dict[str, Any]:
    """Metrics of these steps, and all weights after them; called on every rank."""
    metrics = []
    for groups in STEPS[first:end]:
        number = 4 * len(groups)
        rows = rows_of(groups, list(range(number)), 9, torch.device("cpu"))
        metrics.append(learner.step(rows, learner.prepare(rows), torch.arange(number)).metrics)
    weights = {
        f"{name}.{key}": whole(parameter).detach().clone()
        for name, module in learner.modules.items()
        for key, parameter in module.named_parameters()
    }
    return {"metrics": metrics, "weights": weights}


def assert_same(got: dict[str, Any], want: dict[str, Any]) -> None:
    for ours, theirs in zip(got["metrics"], want["metrics"], strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-6)
    assert got["weights"].keys() == want["weights"].keys()
    for name, weight in want["weights"].items():
        torch.testing.assert_close(got["weights"][name], weight, rtol=0, atol=2e-5)


@pytest.fixture(scope="module")
def two_ranks(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("deepspeed") is None:
        pytest.skip("deepspeed is not installed")
    out = tmp_path_factory.mktemp("zero")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "tests.train.zero_ranks", str(model_dir), str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "FutureWarning" not in done.stderr and "DeepSpeed" not in done.stdout
    return out


def test_gradients_are_those_of_a_whole_network(two_ranks: Path) -> None:
    """Also where the head is the embedding, and where activations are computed anew."""
    distances = torch.load(two_ranks / "networks.pt")
    assert len(distances) == 4
    assert max(distances.values()) < 1e-5, distances


@pytest.mark.parametrize("case", CASES)
def test_steps_are_those_of_one_process(case: str, two_ranks: Path, model_dir: Path) -> None:
    if "adapters" in case:
        pytest.importorskip("peft")
    algo, settings = CASES[case]
    found = torch.load(two_ranks / f"{case}.pt")
    alone = make_learner(model_dir, algo, *settings)
    start = run(alone, 0, 0)["weights"]
    half, end = run(alone, 0, 2), run(alone, 2, 4)
    assert_same(found["half"], half)
    assert_same(found["end"], end)
    moved = max((end["weights"][name] - start[name]).abs().max().item() for name in start)
    assert moved > 1e-4  # more than what is forgiven

    resumed = make_learner(model_dir, algo, *settings, "seed=7")
    checkpoint.load(two_ranks / case / "step-00000002", resumed)
    assert_same(run(resumed, 2, 4), found["end"])
