"""AdamW in its three forms: the same numbers where it says so, and back from a file exactly."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rlvr_zoo.config import LoraConfig, OptimizerConfig, RunConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train import extras
from rlvr_zoo.train.optimizer import (
    OffloadedAdamW,
    load_state,
    make_optimizer,
    set_lr,
    state_of,
)

from .forked import ROOT, command

CPU = torch.device("cpu")
SHAPES = ((128, 64), (31, 256), (70, 3), (64,))
"""The first two have 8-bit moments; of two ranks, only one could have them of the second."""
KINDS = ("fp32", "8bit", "offload")
HELD = [*(("fsdp", kind) for kind in KINDS), ("parts", "fp32"), ("parts", "offload")]
"""How two ranks hold parameters, and their moments."""
HAS_TORCHAO = find_spec("torchao") is not None
CONFIG: dict[str, Any] = {"lr": 1e-2, "weight_decay": 0.1}


def parameters() -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in SHAPES]


def made(kind: str, held: list[nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
    """As `make_optimizer`, and the offloaded one, which a CPU is refused."""
    if kind == "8bit" and not HAS_TORCHAO:
        pytest.skip("torchao is not installed")
    config: Any = OptimizerConfig(**CONFIG | settings, moments=kind)  # type: ignore[arg-type]
    if kind != "offload":
        return make_optimizer(held, config, CPU)
    plain = make_optimizer(held, OptimizerConfig(**CONFIG | settings), CPU)
    groups = [{k: g[k] for k in ("params", "weight_decay", "lr")} for g in plain.param_groups]
    return OffloadedAdamW(groups)


def train(optimizer: torch.optim.Optimizer, held: list[nn.Parameter], steps: range) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in held:
            parameter.grad = torch.randn(parameter.shape, generator=draw)
        set_lr(optimizer, 1e-3 * (step + 1))
        optimizer.step()


def trained(kind: str, steps: int = 6) -> list[nn.Parameter]:
    held = parameters()
    train(made(kind, held), held, range(steps))
    return held


def test_fp32_is_torch_s_fused_adamw_and_decays_matrices_only() -> None:
    held = parameters()
    plain = torch.optim.AdamW(
        [
            {"params": held[:3], "weight_decay": 0.1},
            {"params": held[3:], "weight_decay": 0.0},
        ],
        betas=(0.9, 0.999),
        eps=1e-8,
        fused=True,
    )
    train(plain, held, range(6))
    for ours, theirs in zip(trained("fp32"), held, strict=True):
        assert torch.equal(ours, theirs)


def test_offloaded_moments_change_no_bit() -> None:
    for ours, theirs in zip(trained("offload"), trained("fp32"), strict=True):
        assert torch.equal(ours, theirs)


def test_offloading_without_a_gpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.moments=fp32"):
        make_optimizer(parameters(), OptimizerConfig(moments="offload"), CPU)


def test_eight_bits_stay_near_fp32_in_a_quarter_of_the_memory() -> None:
    held = parameters()
    optimizer = made("8bit", held)
    train(optimizer, held, range(6))
    for ours, theirs, start in zip(held, trained("fp32"), parameters(), strict=True):
        moved = (theirs - start).norm()
        assert (ours - theirs).norm() < 0.06 * moved
    moment: Any = optimizer.state[held[0]]["exp_avg"]
    kept = sum(getattr(moment, name).nbytes for name in ("codes", "scale"))
    assert kept < 0.26 * held[0].nbytes
    assert type(optimizer.state[held[3]]["exp_avg"]) is Tensor


@pytest.mark.parametrize("kind", KINDS)
def test_the_learning_rate_is_the_one_last_set(kind: str) -> None:
    """With one gradient over and over, AdamW moves every weight by the rate."""
    held = [nn.Parameter(torch.zeros(64, 64))]
    optimizer = made(kind, held, weight_decay=0.0)
    for lr in (1e-3, 5e-2, 0.0, 1e-4):
        before = held[0].detach().clone()
        held[0].grad = torch.ones(64, 64)
        set_lr(optimizer, lr)
        optimizer.step()
        torch.testing.assert_close(
            before - held[0].detach(), torch.full((64, 64), lr), rtol=1e-3, atol=1e-7
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", ["state_of", "state_dict"])
def test_a_saved_optimizer_goes_on_bit_for_bit(kind: str, way: str, tmp_path: Path) -> None:
    held = parameters()
    optimizer = made(kind, held)
    train(optimizer, held, range(3))
    state = state_of(optimizer) if way == "state_of" else optimizer.state_dict()
    torch.save(state, tmp_path / "optimizer.pt")
    others = [nn.Parameter(parameter.detach().clone()) for parameter in held]
    resumed = made(kind, others)
    read = torch.load(tmp_path / "optimizer.pt", weights_only=True)
    if way == "state_of":
        load_state(resumed, read)
    else:
        resumed.load_state_dict(read)
    train(optimizer, held, range(3, 6))
    train(resumed, others, range(3, 6))
    for ours, theirs, whole in zip(held, others, trained(kind), strict=True):
        assert torch.equal(ours, theirs) and torch.equal(ours, whole)


def test_what_was_loaded_is_a_copy() -> None:
    held, others = parameters(), parameters()
    optimizer, resumed = made("fp32", held), made("fp32", others)
    train(optimizer, held, range(1))
    load_state(resumed, state_of(optimizer))
    before = optimizer.state[held[0]]["exp_avg"].clone()
    train(resumed, others, range(1, 2))
    assert torch.equal(optimizer.state[held[0]]["exp_avg"], before)
    assert optimizer.state[held[0]]["step"] == 1


def test_a_state_of_other_parameters_is_refused() -> None:
    held = parameters()
    optimizer = made("fp32", held)
    train(optimizer, held, range(1))
    state = state_of(optimizer)["state"]
    first = state[0]
    for wrong, why in (
        ({n: state[n] for n in (0, 1, 3)}, "lacks 1 of 4 parameters and has 0 others"),
        (state | {4: first}, "lacks 0 of 4 parameters and has 1 others"),
        ({-1: state[3]} | {n: state[n] for n in range(3)}, "lacks 1 of 4 .* has 1 others"),
        ({}, "lacks 4 of 4"),
        (state | {0: state[1]}, "state 0 is of another parameter"),
        (state | {0: {"step": first["step"], "exp_avg": first["exp_avg"]}}, "state 0 has"),
        (state | {0: first | {"max_exp_avg_sq": first["exp_avg"]}}, "state 0 has"),
    ):
        others = parameters()
        resumed = made("fp32", others)
        with pytest.raises(ValueError, match=why):
            load_state(resumed, {"state": wrong})
        assert not resumed.state


@pytest.mark.parametrize("kind", KINDS)
def test_a_parameter_that_no_gradient_reached_is_saved_as_such(kind: str) -> None:
    held, others = parameters(), parameters()
    optimizer, resumed = made(kind, held), made(kind, others)
    train(optimizer, held[:2] + held[3:], range(1))
    for state in (state_of(optimizer), state_of(made(kind, held))):
        assert state["state"].keys() == {0, 1, 2, 3} and state["state"][2] == {}
        load_state(resumed, state)
        assert others[2] not in resumed.state
    resumed.load_state_dict(optimizer.state_dict())
    assert others[2] not in resumed.state and len(resumed.state) == 3


def test_a_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchao", "torchao.optim", "peft", "rlvr_zoo.train.eight_bit"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name in ("torchao", "peft"):
        monkeypatch.setitem(sys.modules, name, None)
    config = OptimizerConfig(moments="8bit")
    for ask in (
        lambda: make_optimizer(parameters(), config, CPU),
        lambda: extras.check(RunConfig(algo="grpo", optimizer=config)),
    ):
        with pytest.raises(ConfigError, match=r"pip install 'rlvr-zoo\[low-memory\]'") as caught:
            ask()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"pip install 'rlvr-zoo\[lora\]'"):
        extras.check(RunConfig(algo="grpo", lora=LoraConfig(rank=8)))
    extras.check(RunConfig(algo="grpo"))


# ------------------------------------------------------------------------------------- two ranks


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks saved after three steps, after six, and after six when resumed."""
    folder = tmp_path_factory.mktemp("ranks")
    done = subprocess.run(
        command(2, "tests.train.sharded_optimizer", folder),
        cwd=ROOT, timeout=120, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "unwaited" not in done.stderr  # collectives
    return folder


@pytest.mark.parametrize(("way", "kind"), HELD)
def test_two_ranks_go_on_where_they_were(way: str, kind: str, two_ranks: Path) -> None:
    """Bit for bit; and where one process ends, or one that goes on from what the two saved."""
    if kind == "8bit" and not HAS_TORCHAO:
        pytest.skip("torchao is not installed")
    half, straight, end = (
        torch.load(two_ranks / f"{part}-{way}-{kind}.pt", weights_only=True)
        for part in ("half", "straight", "resumed")
    )
    for through, resumed in zip(straight["weights"], end["weights"], strict=True):
        assert torch.equal(through, resumed)
    alone = [nn.Parameter(weight.clone()) for weight in half["weights"]]
    optimizer = made(kind, alone)
    load_state(optimizer, half["optimizer"])
    train(optimizer, alone, range(3, 6))
    whole = trained(kind)
    for number, (one, two) in enumerate(zip(alone, end["weights"], strict=True)):
        gaps = [(other - whole[number]).norm().item() for other in (one, two)]
        if kind == "8bit" and number == 1:  # in fp32 on two ranks, in 8 bits on one
            moved = (whole[1] - parameters()[1]).norm().item()
            assert min(gaps) > 0 and max(gaps) < 0.06 * moved
        else:  # a kernel rounds otherwise at the end of a tensor
            assert max(gaps) < 1e-6
