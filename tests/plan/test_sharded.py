"""Planned memory of sharded updates, beside measured peaks and by hand."""

import os
import subprocess

import pytest

from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.memory import MemoryPlan, estimate
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.resolve import parse_set, resolve
from tests.train.forked import ROOT, command

LAYER, VOCABULARY, NORM = 233_057_792, 152_064 * 3584, 3584
"""Parameters of Qwen2.5-Math-7B: of a layer, of the embedding or the head, of the last norm."""
LONG = "train.micro_batch_tokens=100000"
"""One micro-batch."""
CASES = ["ppo/bf16/2/untied/layers"]
"""The other cases are in docs/performance.md."""


def config(algo: str, *settings: str, model: str = "qwen-math-7b") -> RunConfig:
    chosen = ["train.parallel=fsdp", *settings]
    return resolve({}, {"algo": algo, "model": model, **parse_set(chosen)})


@pytest.fixture(scope="module")
def shapes() -> dict[str, ModelShape]:
    names = ("tiny", "qwen-math-7b")
    return {name: load_shape(config("grpo", model=name).model) for name in names}


def plan(shape: ModelShape, ranks: int, *settings: str, algo: str = "grpo") -> MemoryPlan:
    return estimate(config(algo, *settings), shape, ranks, on_gpu=False)


def test_planned_peaks_are_those_of_two_ranks() -> None:
    ran = subprocess.run(
        command(2, "tests.plan.sharded_memory", *CASES),
        capture_output=True, text=True, cwd=ROOT, timeout=300, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    lines = [line.split() for line in ran.stdout.splitlines()]
    ratios = {line[0]: float(line[3]) for line in lines if line and line[0] in CASES}
    assert ratios == {case: pytest.approx(1, abs=0.15) for case in CASES}


@pytest.mark.parametrize("ranks", [8, 16])
def test_gradients_of_the_first_layer(shapes: dict[str, ModelShape], ranks: int) -> None:
    """27 layers' shares; the last one's whole in bf16, and the fp32 buffer of the one before;
    the head's, whole in bf16."""
    found = plan(shapes["qwen-math-7b"], ranks, LONG).phases["first layer"]
    want = 27 * LAYER * 4 / ranks + (2 + 4) * LAYER + 2 * VOCABULARY
    assert found["gradients"] == pytest.approx(want, rel=1e-9)


def test_the_root_s_gradients_meet_their_buffer(shapes: dict[str, ModelShape]) -> None:
    found = plan(shapes["qwen-math-7b"], 8, LONG).phases["scatter"]
    root = 2 * VOCABULARY + NORM
    assert found["gradients"] == pytest.approx(28 * LAYER * 4 / 8 + (2 + 4) * root, rel=1e-9)
    assert found["compute copies"] == 0
    # fewer ranks: while sums move there are the head's gradient and this rank's share
    found = plan(shapes["qwen-math-7b"], 2, LONG, "rollout.rollouts_per_step=16").phases["scatter"]
    moving = 4 * root + 2 * VOCABULARY + 4 * root / 2
    assert found["gradients"] == pytest.approx(28 * LAYER * 4 / 2 + moving, rel=1e-9)
    found = plan(shapes["qwen-math-7b"], 8, LONG, algo="ppo").phases["scatter"]
    assert found["compute copies"] == 2 * root  # the other model's waits


def test_adapters_have_small_gradients_and_whole_weights(shapes: dict[str, ModelShape]) -> None:
    found = plan(shapes["qwen-math-7b"], 8, LONG, "lora.rank=8").phases
    assert all(parts["gradients"] < 2**26 for name, parts in found.items() if name != "rollout")
    assert found["gather"]["compute copies"] == 2 * 2 * (2 * VOCABULARY + NORM)


def test_a_critic_goes_backward_first(shapes: dict[str, ModelShape]) -> None:
    """Its root's gradients are whole until the policy's are there; its head has none."""
    found = plan(shapes["qwen-math-7b"], 8, LONG, algo="ppo").phases
    own, others = found["critic: gather"], found["gather"]
    shares = 28 * LAYER * 4 / 8
    assert own["gradients"] == 0
    assert others["gradients"] == pytest.approx(shares + 2 * (VOCABULARY + NORM), rel=1e-9)
    assert own["activations"] > 1.9 * others["activations"]


@pytest.mark.parametrize("algo", ["popo", "ppo", "raft"])
@pytest.mark.parametrize("name", ["tiny", "qwen-math-7b"])
def test_no_part_is_negative(shapes: dict[str, ModelShape], algo: str, name: str) -> None:
    for chosen in [("lora.rank=8",), ("train.precision=fp32",), (LONG,)]:
        for parallel in ("ddp", "fsdp"):
            made = config(algo, *chosen, f"train.parallel={parallel}")
            for ranks in (2, 16):
                for phase, parts in estimate(made, shapes[name], ranks).phases.items():
                    assert min(parts.values()) >= 0, (phase, parts, chosen, parallel, ranks)
