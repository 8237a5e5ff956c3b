"""The hosts' memory and the disk: by hand, and beside real checkpoints and real copies."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from rlvr_zoo.models.load import LoadedModel, load
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.plan.checkpoints import Contents, most_at_once
from rlvr_zoo.plan.devices import parse
from rlvr_zoo.plan.host import HostPlan, host, planned_contents
from rlvr_zoo.plan.parameters import Parameters
from rlvr_zoo.plan.shape import ModelShape, load_shape, shape_of
from rlvr_zoo.plan.work import Work, spec_of
from rlvr_zoo.rollout.base import Compute
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.checkpoint import State

from .measure import PeakBytes, configured, learner_of, made_up, random_model, weights
from .test_memory import HEAD, VALUE_HEAD, N, config

WORK = Work(prompt_tokens=8, completion_tokens=8, rows=8)
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "vocab_size": 2048,
}
ADAPTERS = 28 * 32 * (2 * 2 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944))
SHARDED, WHOLE = "train.parallel=fsdp", "train.parallel=ddp"


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return load_shape(config("grpo").model)


def planned(shape: ModelShape, algo: str, *settings: str, gpus: str = "h100x8") -> HostPlan:
    return host(config(algo, *settings), shape, parse(gpus))


# --------------------------------------------------------------------------- by hand


def test_a_checkpoint_is_12_bytes_a_parameter_and_4_for_a_companion(shape: ModelShape) -> None:
    found = planned(shape, "popo", SHARDED)
    want = {"policy": 4 * N, "beside": 4 * (N + HEAD), "optimizer": 8 * (N + HEAD)}
    assert found.checkpoint == want
    assert found.num_checkpoints == 3 and found.disk_bytes == 3 * sum(want.values())
    ppo = planned(shape, "ppo", SHARDED).checkpoint
    assert ppo["beside"] == 4 * (N + VALUE_HEAD)  # the critic, its head for tokens too
    assert ppo["optimizer"] == 8 * (2 * N - 152_064 * 3584 + VALUE_HEAD)
    adapted = planned(shape, "popo", SHARDED, "lora.rank=32").checkpoint
    assert adapted == {
        "policy": 4 * N,
        "beside": 4 * (2 * ADAPTERS + HEAD),
        "optimizer": 8 * (ADAPTERS + HEAD),
    }


def test_the_main_rank_gathers_moments_only_where_they_are_sharded(shape: ModelShape) -> None:
    weights, moments = 4 * (2 * N + HEAD), 8 * (N + HEAD)
    assert planned(shape, "popo", SHARDED).saving_bytes == weights + moments
    assert planned(shape, "popo", WHOLE).saving_bytes == weights
    eight = planned(shape, "popo", SHARDED, "optimizer.moments=8bit").saving_bytes
    assert eight == weights + (2 + 1 / 32) * (N + HEAD)


def test_moments_on_the_host_are_there_once_a_rank_or_once_in_all(shape: ModelShape) -> None:
    moments, offload = 8 * (N + HEAD), "optimizer.moments=offload"
    pinned = 2 * moments  # at most: rounded up to powers of two
    whole = planned(shape, "popo", WHOLE, offload)
    assert whole.training_bytes == 8 * pinned
    assert whole.saving_bytes == 8 * pinned + 4 * (2 * N + HEAD)
    sharded = planned(shape, "popo", SHARDED, offload, gpus="h100x4x2")
    assert sharded.training_bytes == pinned / 2  # two machines
    assert sharded.saving_bytes == pinned / 2 + moments + 4 * (2 * N + HEAD)
    assert planned(shape, "popo", SHARDED).training_bytes == 0


def test_every_rank_of_a_machine_starts_with_whole_models(shape: ModelShape) -> None:
    assert planned(shape, "popo", SHARDED).start_bytes == 8 * 4 * (2 * N + HEAD)
    assert planned(shape, "popo", SHARDED, gpus="h100x4x2").start_bytes == 4 * 4 * (2 * N + HEAD)
    one = ("algorithm.kl_coef=0",)  # no companion, but a copy to sample from where sharded
    assert planned(shape, "grpo", SHARDED, *one).start_bytes == 8 * 4 * 2 * N
    assert planned(shape, "grpo", WHOLE, *one).start_bytes == 8 * 4 * N
    vllm = (*one, "rollout.engine=vllm")
    assert planned(shape, "grpo", SHARDED, *vllm).start_bytes == 8 * 4 * N
    adapted = planned(shape, "popo", WHOLE, "lora.rank=32").start_bytes
    assert adapted == 8 * 4 * (N + 2 * ADAPTERS + HEAD)  # frozen weights are shared


@pytest.mark.parametrize(
    ("settings", "step", "there", "most"),
    [
        (("checkpoint.every=25",), 0, 0, 3),
        (("checkpoint.every=25", "checkpoint.keep=5"), 0, 0, 5),  # 25, 50, 75, 100 and 110
        (("checkpoint.every=50", "checkpoint.keep=5"), 0, 0, 3),  # 50, 100 and 110
        (("checkpoint.every=55", "checkpoint.keep=5"), 0, 0, 2),  # 55 and 110
        (("checkpoint.every=0", "checkpoint.keep=5"), 0, 0, 1),
        (("checkpoint.every=25",), 50, 2, 3),
        (("checkpoint.every=25", "checkpoint.keep=5"), 50, 2, 5),
        (("checkpoint.every=25", "checkpoint.keep=1"), 50, 3, 4),  # kept fewer after a while
        (("checkpoint.every=25",), 110, 2, 2),  # done
    ],
)
def test_how_many_there_are_at_once(
    settings: Sequence[str], step: int, there: int, most: int
) -> None:
    assert most_at_once(config("grpo", "train.max_steps=110", *settings), step, there) == most


# --------------------------------------------------------------------------- beside reality

REAL = [
    ("popo", ()),
    ("popo", ("optimizer.moments=8bit",)),
    ("popo", ("lora.rank=32",)),
    ("ppo", ()),
    ("ppo", ("algorithm.critic=shared",)),
    ("ppo", ("lora.rank=32",)),
    ("grpo", ()),
]


@pytest.mark.parametrize(("algo", "settings"), REAL)
@pytest.mark.parametrize("tied", [True, False])
def test_files_of_a_real_checkpoint(
    algo: str, settings: Sequence[str], tied: bool, tmp_path: Path
) -> None:
    """After a step, since moments come with it."""
    run = configured(algo, WORK, 2, settings)
    lm = random_model({**SIZES, "tie_word_embeddings": tied})
    shape = shape_of(lm)
    learner = learner_of(lm, run)
    rows = made_up(WORK, 2, shape.vocab_size)
    learner.step(rows, learner.prepare(rows), torch.arange(WORK.rows))
    tokenizer = build_tokenizer(Recipe())
    parts = checkpoint.snapshot(learner)
    path = checkpoint.save(tmp_path, learner, parts, tokenizer, State(step=1), keep=1)
    sizes = {
        "policy": sum(file.stat().st_size for file in (path / "policy").glob("*.safetensors")),
        "beside": sum(file.stat().st_size for file in path.glob("*.safetensors")),
        "optimizer": (path / "optimizer.pt").stat().st_size,
    }
    want = host(run, shape, parse("h100")).checkpoint
    for name, size in sizes.items():
        assert want[name] == pytest.approx(size, rel=0.03, abs=1024), name  # names
    assert sum(want.values()) == pytest.approx(sum(sizes.values()), rel=0.01)
    counted = checkpoint.contents(learner)  # what a run asks, of any model
    assert counted == planned_contents(Parameters(run, shape, spec_of(run)))


@pytest.mark.parametrize("algo", ["popo", "ppo", "grpo"])
@pytest.mark.parametrize("settings", [(), ("lora.rank=32",)])
def test_tensors_of_a_real_start(algo: str, settings: Sequence[str], tmp_path: Path) -> None:
    """From the model's files to the learner."""
    run = configured(algo, WORK, 2, settings)
    start = random_model(SIZES)
    start.save_pretrained(tmp_path)
    build_tokenizer(Recipe()).save_pretrained(tmp_path)
    model = replace(run.model, name="random", path=str(tmp_path))
    with PeakBytes([]) as memory:
        learner = learner_of(load(model).lm, run)
    assert set(learner.companions) == set(spec_of(run).companions)
    want = host(run, shape_of(start), parse("h100")).start_bytes
    assert want == pytest.approx(memory.peak, rel=0.03)


def test_the_copy_to_sample_from_is_made_beside_the_model() -> None:
    """Where ranks hold parts, each has a whole copy, in fp32 before it goes to the GPU."""
    lm = random_model(SIZES)
    model = LoadedModel(lm, cast(Any, None), 64, frozenset({0}), "", "")
    run = configured("grpo", WORK, 2, [SHARDED, "algorithm.kl_coef=0"])
    compute = Compute(autocast=nullcontext, dtype=torch.bfloat16, is_sharded=True)
    with PeakBytes(weights([lm])) as memory:
        TransformersEngine(model, run.rollout, compute)
    want = host(run, shape_of(lm), parse("h100x2")).start_bytes / 2
    assert want == pytest.approx(memory.peak, rel=0.1)  # and bf16 of one weight


def test_the_tiny_model_is_known_without_its_files() -> None:
    run = configured("popo", WORK, 2, ())
    lm = build_model(Recipe(), build_tokenizer(Recipe()))
    found = host(run, load_shape(run.model), parse("h100")).checkpoint
    assert found["policy"] == 4 * sum(p.numel() for p in lm.parameters())


def test_contents_are_fp32() -> None:
    found = Contents(policy=10, beside=7, trained=256).parts("8bit")
    assert found == {"policy": 40, "beside": 28, "optimizer": 2 * 256 + 2 * 4}
