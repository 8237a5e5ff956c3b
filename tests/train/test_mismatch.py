"""The gap between sampler and trainer: measured, limited, and corrected for in any loss."""

from typing import Any

import pytest
import torch
from torch.testing import assert_close

from rlvr_zoo.errors import EngineError, SyncError
from rlvr_zoo.train.mismatch import mismatch

from .conftest import configured


class Engine:
    exact = False
    follows = True


MASK = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
GROUP = torch.tensor([3, 8])
OLD = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]])
SAMPLER = OLD + torch.tensor([[0.0005, -0.0005, 9.0], [0.0, 0.0, 0.0015]])  # padding does not count


def test_the_gap_is_a_mean_over_tokens() -> None:
    found = mismatch(OLD, SAMPLER, MASK, GROUP, Engine(), configured("grpo"))  # type: ignore[arg-type]
    assert found.metrics["sync/logp_gap_mean"] == pytest.approx(0.0025 / 5, rel=1e-3)
    assert found.metrics["sync/logp_gap_max"] == pytest.approx(0.0015, rel=1e-3)
    assert found.metrics["sync/importance_capped"] == 0
    assert found.importance_NT is not None
    assert_close(found.importance_NT[0], torch.tensor([0.9995, 1.0005, 1.0]))


@pytest.mark.parametrize(
    ("settings", "limit"),
    [((), 0.001), (("train.precision=bf16",), 0.05), (("rollout.max_logp_gap=0.5",), 0.5)],
)
def test_beyond_the_limit_the_run_stops_with_the_numbers(
    settings: tuple[str, ...], limit: float
) -> None:
    config = configured("grpo", *settings)
    mismatch(OLD, OLD + 0.9 * limit, MASK, GROUP, Engine(), config)  # type: ignore[arg-type]
    with pytest.raises(SyncError, match=r"differ by .* nats .* look whether weights") as caught:
        mismatch(OLD, OLD + 1.1 * limit, MASK, GROUP, Engine(), config)  # type: ignore[arg-type]
    assert f"{1.1 * limit:.2g} nats" in str(caught.value)
    with pytest.raises(SyncError):
        mismatch(OLD, OLD * float("nan"), MASK, GROUP, Engine(), config)  # type: ignore[arg-type]


def test_another_policys_rollouts_are_weighted_not_refused() -> None:
    engine = Engine()
    engine.follows = False
    far = OLD - torch.log(torch.tensor(5.0))  # to the trainer, they are five times as likely
    found = mismatch(OLD, far, MASK, GROUP, engine, configured("grpo"))  # type: ignore[arg-type]
    assert found.importance_NT is not None
    assert_close(found.importance_NT, torch.tensor([[2.0, 2.0, 1.0], [2.0, 2.0, 2.0]]))
    assert found.metrics["sync/importance_capped"] == 1
    config = configured("grpo", "train.importance=mask")
    assert mismatch(OLD, far, MASK, GROUP, engine, config).importance_NT.sum() == 1  # type: ignore
    config = configured("grpo", "train.importance=none")
    assert mismatch(OLD, far, MASK, GROUP, engine, config).importance_NT is None  # type: ignore


def test_the_trainers_own_model_needs_no_weights() -> None:
    engine = Engine()
    engine.exact = True
    found = mismatch(OLD, SAMPLER, MASK, GROUP, engine, configured("grpo"))  # type: ignore[arg-type]
    assert found.importance_NT is None


def test_a_stale_group_does_not_hide_in_the_mean() -> None:
    """One of two servers is off by 0.005 in one of ten groups: 0.0005 in the mean."""
    old_NT, group_N = torch.zeros(20, 4), torch.arange(20) // 2
    sampler_NT = old_NT.clone()
    sampler_NT[4:6] += 0.003
    mismatch(old_NT, sampler_NT, torch.ones(20, 4), group_N, Engine(), configured("grpo"))  # type: ignore[arg-type]
    sampler_NT[4:6] += 0.002
    with pytest.raises(SyncError, match=r"0\.0005 nats in the mean, 0\.005 in the worst part"):
        mismatch(old_NT, sampler_NT, torch.ones(20, 4), group_N, Engine(), configured("grpo"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dtype", "settings", "limit"),
    [
        (torch.bfloat16, (), 0.05),
        (torch.float16, (), 0.05),
        (torch.float32, ("train.precision=bf16",), 0.05),
        (torch.float32, ("rollout.engine=vllm", "rollout.vllm.dtype=bfloat16"), 0.001),
        (None, ("rollout.engine=vllm", "rollout.vllm.dtype=bfloat16"), 0.05),
        (None, ("rollout.vllm.dtype=bfloat16",), 0.001),
    ],
)
def test_the_limit_follows_the_coarser_type(
    dtype: torch.dtype | None, settings: tuple[str, ...], limit: float
) -> None:
    engine: Any = Engine()
    engine.dtype = dtype
    config = configured("grpo", *settings)
    mismatch(OLD, OLD + 0.9 * limit, MASK, GROUP, engine, config)
    with pytest.raises(SyncError, match=rf"max_logp_gap is {limit:g}") as caught:
        mismatch(OLD, OLD + 1.1 * limit, MASK, GROUP, engine, config)
    if dtype:
        trainer = "bfloat16" if "train.precision=bf16" in settings else "float32"
        named = f"computes in {str(dtype).split('.')[1]}, the trainer {trainer}"
        assert named in str(caught.value)


def test_played_back_log_probs_that_are_no_numbers_are_named() -> None:
    engine: Any = Engine()
    engine.follows = False
    broken = OLD.clone()
    broken[1, 2] = float("nan")
    with pytest.raises(EngineError, match="not finite"):
        mismatch(OLD, broken, MASK, GROUP, engine, configured("grpo"))
    broken = SAMPLER.clone()
    broken[0, 2] = float("nan")  # padding
    mismatch(OLD, broken, MASK, GROUP, engine, configured("grpo"))
