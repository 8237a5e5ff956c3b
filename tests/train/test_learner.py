"""Optimizer steps: what may not change a gradient, and what must happen around one."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from rlvr_zoo.errors import DeviceMemoryError, DivergedError
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.rows import Rows, rows_of

from .conftest import group

GROUPS = [
    group(0, [1, 0, 1, 0], [7, 2, 5, 3]),
    group(1, [0, 0, 0, 0], [1, 9, 4, 4]),
    group(2, [1, 1, 1, 1], [2, 2, 8, 6]),
    group(3, [0, 0, 0, 1], [3, 5, 5, 1]),
]
ALGORITHMS = ["grpo", "popo", "popo-kl", "popo-neg", "popo-nopred"]


def rows() -> Rows:
    seeds = list(range(16))
    return rows_of(GROUPS, seeds, max_completion_tokens=9, device=torch.device("cpu"))


def everything(rows: Rows) -> torch.Tensor:
    return torch.arange(len(rows.ids_NL))


def gradient(learner: Learner, importance: float | None = None) -> dict[str, torch.Tensor]:
    """The gradient of one step, all tokens weighted alike; its optimizer does nothing."""
    grads: dict[str, torch.Tensor] = {}

    def keep(*_: Any, **__: Any) -> None:
        named = [*learner.policy.named_parameters()]
        named += [*learner.head.named_parameters()] if learner.head is not None else []
        grads.update({n: p.grad.clone() for n, p in named if p.grad is not None})

    learner.optimizer.step = keep  # type: ignore[method-assign]
    batch = rows()
    if importance is not None:
        weight_NT = torch.full_like(batch.sampler_logp_NT, importance)
        batch = replace(batch, importance_NT=weight_NT)
    learner.step(batch, learner.prepare(batch), everything(batch))
    return grads


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_micro_batches_do_not_change_the_gradient(
    learner_of: Callable[..., Learner], algo: str
) -> None:
    clip = "optimizer.max_grad_norm=0"
    whole = gradient(learner_of(algo, clip))
    assert whole and max(g.abs().max().item() for g in whole.values()) > 1e-4
    for tokens in (1, 20, 45):
        split = gradient(learner_of(algo, clip, f"train.micro_batch_tokens={tokens}"))
        assert split.keys() == whole.keys()
        for name, want in whole.items():
            torch.testing.assert_close(split[name], want, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.parametrize("algo", ["grpo", "ppo", "raft", "popo-nosim"])
def test_importance_weighs_the_gradient_of_any_policy_loss(
    learner_of: Callable[..., Learner], algo: str
) -> None:
    """PPO's value head has no part in it, nor has an entropy bonus."""
    settings = ["optimizer.max_grad_norm=0"]
    settings += ["algorithm.entropy_coef=0"] if algo == "popo-nosim" else []
    whole, half = (gradient(learner_of(algo, *settings), weight) for weight in (1.0, 0.5))
    plain = gradient(learner_of(algo, *settings))
    for name, want in whole.items():
        torch.testing.assert_close(plain[name], want, rtol=0, atol=0)
        torch.testing.assert_close(half[name], 0.5 * want, rtol=1e-5, atol=1e-8, msg=name)


def test_rows_without_signal_cost_no_forward_pass(learner_of: Callable[..., Learner]) -> None:
    seen: list[int] = []
    for kl_coef in (0, 0.04):
        learner = learner_of("grpo", f"algorithm.kl_coef={kl_coef}")
        batch = rows()
        targets = learner.prepare(batch, batch.sampler_logp_NT)
        learner.policy.register_forward_hook(lambda m, args, out: seen.append(len(args[0])))
        learner.step(batch, targets, everything(batch))
    assert seen == [8, 16], "only two of the four groups have both kinds of reward"


def test_the_copy_follows_after_the_step_and_by_momentum(
    learner_of: Callable[..., Learner],
) -> None:
    learner = learner_of("popo", "algorithm.momentum=0.9", "optimizer.lr=0.01")
    name = "lm.model.layers.0.mlp.up_proj.weight"
    start = learner.policy.get_parameter(name).detach().clone()
    batch = rows()
    learner.step(batch, learner.prepare(batch), everything(batch))
    moved = learner.policy.get_parameter(name).detach()
    assert not torch.equal(moved, start)
    copy = learner.companions["siamese"].network.get_parameter(name)
    torch.testing.assert_close(copy, 0.9 * start + 0.1 * moved, rtol=1e-6, atol=1e-7)
    assert copy.grad is None and not copy.requires_grad and copy.dtype == torch.float32


def test_the_frozen_copy_stays(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of("grpo", "optimizer.lr=0.01")
    name = "lm.model.layers.0.mlp.up_proj.weight"
    start = learner.policy.get_parameter(name).detach().clone()
    batch = rows()
    learner.step(batch, learner.prepare(batch), everything(batch))
    assert torch.equal(learner.companions["reference"].network.get_parameter(name), start)


def test_a_batch_without_positives_takes_no_step(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of("popo")
    before = {n: p.detach().clone() for n, p in learner.policy.named_parameters()}
    wrong = [group(n, [0, 0, 0, 0], [2, 3, 4, 5]) for n in range(2)]
    batch = rows_of(wrong, list(range(8)), 9, torch.device("cpu"))
    report = learner.step(batch, learner.prepare(batch), everything(batch))
    assert report.metrics["train/skipped"] == 1.0 and report.trained_tokens == 0
    for name, parameter in learner.policy.named_parameters():
        assert torch.equal(parameter, before[name])


def test_a_gradient_that_is_not_finite_leaves_the_weights(
    learner_of: Callable[..., Learner],
) -> None:
    """The step is left out and counted, and one that can be taken begins the count anew."""
    learner = learner_of("grpo", "algorithm.kl_coef=0", "train.max_bad_steps=2")
    before = {n: p.detach().clone() for n, p in learner.policy.named_parameters()}
    batch = rows()
    good, bad = (learner.prepare(batch, batch.sampler_logp_NT) for _ in range(2))
    bad.rows["advantage_N"].fill_(float("nan"))
    report = learner.step(batch, bad, everything(batch))
    assert report.metrics["train/skipped"] == report.metrics["train/not_finite"] == 1.0
    assert all(math.isfinite(value) for value in report.metrics.values())
    for name, parameter in learner.policy.named_parameters():
        assert torch.equal(parameter, before[name])
    assert learner.step(batch, good, everything(batch)).metrics["train/not_finite"] == 0.0
    learner.step(batch, bad, everything(batch))
    now = {n: p.detach().clone() for n, p in learner.policy.named_parameters()}
    with pytest.raises(DivergedError, match=r"nan .* 2 times in a row"):
        learner.step(batch, bad, everything(batch))
    for name, parameter in learner.policy.named_parameters():
        assert torch.equal(parameter, now[name])


FULL = "CUDA out of memory. Tried to allocate 1 GiB"
FULL_FOR_CUBLAS = "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"


def full() -> RuntimeError:
    """A new one each time: a traceback would keep the tensors of the pass."""
    return torch.OutOfMemoryError(FULL)


def full_for_cublas() -> RuntimeError:
    return RuntimeError(FULL_FOR_CUBLAS)


def full_outside_of_the_allocator() -> RuntimeError:
    return torch.AcceleratorError("CUDA error: out of memory")


@pytest.mark.parametrize(
    ("fails_at", "error"),
    [(0, full), (3, full), (3, full_for_cublas), (3, full_outside_of_the_allocator)],
)
def test_a_step_that_runs_out_of_memory_is_taken_in_smaller_pieces(
    learner_of: Callable[..., Learner], fails_at: int, error: Callable[[], RuntimeError]
) -> None:
    """With the gradient that it would have had, wherever it had come to."""
    settings = ("optimizer.max_grad_norm=0", "train.micro_batch_tokens=40")
    want = gradient(learner_of("popo", *settings))
    learner = learner_of("popo", *settings)
    widths: list[int] = []

    def forward(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        widths.append(inputs[0].numel())
        if len(widths) > fails_at and inputs[0].numel() > 20:
            raise error()

    learner.policy.register_forward_pre_hook(forward)
    got = gradient(learner)
    assert max(widths) > 20 >= max(widths[-4:])
    for name, tensor in want.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-7, msg=name)


def test_a_row_that_does_not_fit_ends_the_run(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of("grpo")

    def forward(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise full()

    learner.policy.register_forward_pre_hook(forward)
    with pytest.raises(DeviceMemoryError, match=r"rank 0 .*1 GiB.*gradient_checkpointing") as said:
        learner.prepare(rows())
    assert "\n" not in str(said.value)


def test_another_fault_of_the_gpu_shows_its_traceback(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of("grpo")

    def broken(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    learner.policy.register_forward_pre_hook(broken)
    with pytest.raises(RuntimeError, match="illegal"):
        learner.prepare(rows())


def test_a_step_moves_along_the_advantage(learner_of: Callable[..., Learner]) -> None:
    """After a step, what was rewarded is likelier and what was not is less so."""
    learner = learner_of("grpo", "optimizer.lr=0.0005", "algorithm.kl_coef=0")
    batch = rows()
    targets = learner.prepare(batch)
    old_logp_NT = targets.rows["old_logp_NT"].clone()
    learner.step(batch, targets, everything(batch))
    new_logp_NT = learner.prepare(batch).rows["old_logp_NT"]
    change_N = (new_logp_NT - old_logp_NT).sum(1) / batch.batch.mask_NT.sum(1)
    advantage_N = targets.rows["advantage_N"]
    assert (change_N * advantage_N).sum() > 0
    assert change_N[advantage_N > 0].mean() > change_N[advantage_N < 0].mean()


def test_the_sampler_s_log_probs_serve_only_where_they_are_exact(
    learner_of: Callable[..., Learner],
) -> None:
    learner = learner_of("grpo")
    batch = rows()
    exact = learner.prepare(batch, batch.sampler_logp_NT).rows["old_logp_NT"]
    computed = learner.prepare(batch).rows["old_logp_NT"]
    assert torch.equal(exact, batch.sampler_logp_NT)
    assert not torch.allclose(computed, exact, atol=0.1)


def test_optimizer_sees_head_and_policy_once_each(learner_of: Callable[..., Learner]) -> None:
    learner = learner_of("popo", "algorithm.predictor_hidden_size=32")
    held = [p for group_ in learner.optimizer.param_groups for p in group_["params"]]
    assert len(held) == len({id(p) for p in held}) == len(learner.parameters)
    assert learner.num_parameters()["head"] == 128 * 32 + 32 + 2 * 32 + 32 * 128 + 128
