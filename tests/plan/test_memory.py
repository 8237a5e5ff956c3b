"""Memory by part: what settings change, by hand."""

from dataclasses import replace

import pytest

from rlvr_zoo.config import RunConfig
from rlvr_zoo.plan.devices import GIB
from rlvr_zoo.plan.memory import MemoryPlan, estimate
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.plan.work import Work, share_of, work_of
from rlvr_zoo.resolve import parse_set, resolve

N = 7_615_616_512
"""Parameters of Qwen2.5-Math-7B."""
HEAD = 2 * 3584 * 4096 + 3584 + 3 * 4096
"""Of POPO's predictor in the 7B run: two linear maps with biases, a norm."""
VALUE_HEAD = 3584 + 1


def config(algo: str, *settings: str, model: str = "qwen-math-7b") -> RunConfig:
    return resolve({}, {"algo": algo, "model": model, **parse_set(settings)})


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return load_shape(config("grpo").model)


def parts(plan: MemoryPlan, phase: str = "embedding") -> dict[str, float]:
    return {name: size for name, size in plan.phases[phase].items() if size}


def test_a_policy_alone_is_16_bytes_a_parameter(shape: ModelShape) -> None:
    found = parts(estimate(config("grpo", "algorithm.kl_coef=0"), shape, 1), "first layer")
    assert found["weights"] == 4 * N and found["moments"] == 8 * N and "companions" not in found
    found = parts(estimate(config("grpo", "algorithm.kl_coef=0"), shape, 1), "last layer")
    assert found["gradients"] >= 4 * N  # more than one micro-batch


def test_companions_come_from_the_declaration(shape: ModelShape) -> None:
    popo = parts(estimate(config("popo"), shape, 1))
    assert popo["companions"] == 4 * N and popo["head"] == 4 * HEAD
    assert popo["moments"] == 8 * (N + HEAD)
    for name in ("popo-nosim", "popo-noema"):
        assert "companions" not in parts(estimate(config(name), shape, 1))
    assert "head" not in parts(estimate(config("popo-nopred"), shape, 1))


def test_a_critic_is_trained_and_speaks_no_tokens(shape: ModelShape) -> None:
    found = parts(estimate(config("ppo"), shape, 1))
    trained = 2 * N - 152_064 * 3584 + VALUE_HEAD
    assert found["companions"] == 4 * (N + VALUE_HEAD) and found["moments"] == 8 * trained
    shared = parts(estimate(config("ppo", "algorithm.critic=shared"), shape, 1))
    assert "companions" not in shared and shared["moments"] == 8 * (N + VALUE_HEAD)


def test_moments_and_adapters(shape: ModelShape) -> None:
    eight = parts(estimate(config("popo", "optimizer.moments=8bit"), shape, 1))
    assert eight["moments"] == pytest.approx(2.03 * (N + HEAD), rel=0.001)
    assert "moments" not in parts(estimate(config("popo", "optimizer.moments=offload"), shape, 1))
    lora = parts(estimate(config("popo", "lora.rank=32"), shape, 1))
    adapters = 28 * 32 * (2 * 2 * 3584 + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert lora["weights"] == 4 * (N + adapters) and lora["companions"] == 4 * adapters
    assert lora["moments"] == 8 * (adapters + HEAD)


def test_fsdp_splits_what_ddp_holds_whole(shape: ModelShape) -> None:
    ddp = parts(estimate(config("popo"), shape, 8))
    fsdp = parts(estimate(config("popo", "train.parallel=fsdp"), shape, 8))
    for part in ("weights", "companions", "moments"):
        assert fsdp[part] == ddp[part] / 8
    alone = parts(estimate(config("popo"), shape, 1))
    for part in ("weights", "companions", "moments"):  # and gradients add up in place
        assert ddp[part] == alone[part]
    assert ddp.keys() == alone.keys()
    adapted = [
        parts(estimate(config("popo", "lora.rank=32", f"train.parallel={kind}"), shape, 8))
        for kind in ("ddp", "fsdp")
    ]
    assert adapted[1]["companions"] == adapted[0]["companions"] / 8 + 4 * N / 8
    rollout = parts(estimate(config("popo", "train.parallel=fsdp"), shape, 8), "rollout")
    assert rollout["compute copies"] == 2 * N  # one model that is whole


def test_activations_follow_the_micro_batch(shape: ModelShape) -> None:
    def kept(*settings: str) -> float:
        return estimate(config("grpo", *settings), shape, 1).phases["forward"]["activations"]

    plain = "train.gradient_checkpointing=false"
    whole = kept("train.micro_batch_tokens=15360", plain)
    assert kept("train.micro_batch_tokens=7680", plain) == pytest.approx(whole / 2)
    checkpointed = kept("train.micro_batch_tokens=15360", "train.gradient_checkpointing=true")
    assert checkpointed < whole / 10
    # at the least, one fp32 number a token, width and layer
    assert checkpointed > 4 * 10 * 1535 * 28 * 3584


def test_logits_are_of_one_chunk(shape: ModelShape) -> None:
    def logits(*settings: str) -> float:
        plan = estimate(config("grpo", *settings), shape, 1, on_gpu=False)
        return plan.phases["forward"]["logits"]

    assert logits() == 1024 * 152_064 * 2
    assert logits("train.logits_tokens=256") == 256 * 152_064 * 2
    assert logits("train.precision=fp32") == 1024 * 152_064 * 4


def test_the_vocabulary_s_gradient_comes_beside_the_logits(shape: ModelShape) -> None:
    def logits(phase: str, *settings: str, tied: bool = False) -> float:
        plan = estimate(config("grpo", *settings), replace(shape, tied=tied), 1, on_gpu=False)
        return plan.phases[phase]["logits"]

    gradient = 4 * 152_064 * 3584
    assert logits("logits") - logits("forward") == gradient
    assert logits("last layer") == 0 and logits("last layer", tied=True) == gradient  # it waits
    assert logits("logits", "lora.rank=8") == logits("forward")


def test_who_holds_the_sampler(shape: ModelShape) -> None:
    memory = 80 * GIB
    colocated = estimate(config("grpo", "rollout.engine=vllm"), shape, 1, memory)
    assert colocated.phases["rollout"]["vllm"] == pytest.approx(0.3 * memory)
    assert not any("vllm" in colocated.phases[phase] for phase in ("logits", "embedding"))  # sleeps
    served = config("grpo", "rollout.engine=vllm", "rollout.vllm.servers=[http://x]")
    assert estimate(served, shape, 1, memory).phases["rollout"]["vllm"] == 0
    cache = estimate(config("grpo", "train.precision=fp32"), shape, 1).phases["rollout"]["cache"]
    rows = 64 * 1536
    assert cache == rows * 28 * 2 * 4 * 128 * 4


def test_7b_as_pitfalls_says(shape: ModelShape) -> None:
    """GRPO and POPO fit on one GPU of 140 GB, PPO does not without a shared trunk."""
    settings = ("optimizer.moments=8bit", "train.gradient_checkpointing=true")
    h200 = 139.8 * GIB
    for algo in ("grpo", "popo"):
        assert estimate(config(algo, *settings), shape, 1).total_bytes < h200
    assert estimate(config("ppo", *settings), shape, 1).total_bytes > h200
    shared = config("ppo", *settings, "algorithm.critic=shared")
    assert estimate(shared, shape, 1).total_bytes < h200


# --------------------------------------------------------------------------- rows and tokens


def test_the_work_of_a_step(shape: ModelShape) -> None:
    popo = config("popo")
    work = work_of(popo, shape)
    assert work == Work(prompt_tokens=512, completion_tokens=1024, rows=64)
    share = share_of(popo, work, 1)  # 16,384 tokens hold ten rows of 1,536
    assert (share.rows, share.micro_batches, share.tokens) == (10, 7, 15_360)
    share = share_of(popo, work, 8)
    assert (share.rows, share.micro_batches) == (8, 1)
    # only POPO's features need a row's last token
    assert share_of(config("grpo"), work, 8).tokens == 8 * 1535
    small = replace(popo, train=replace(popo.train, micro_batch_tokens=100))
    assert share_of(small, work, 1).rows == 1  # a row longer than the budget goes alone
