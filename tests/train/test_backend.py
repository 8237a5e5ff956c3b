"""What a backend makes of the way it was launched."""

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train.backend import Backend


def test_deepspeed_is_refused_with_what_does_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    with pytest.raises(ConfigError, match=r"DeepSpeed.*distributed_type: FSDP"):
        Backend("fp32")


def test_ranks_that_did_not_come_together_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `accelerate launch --cpu --num_processes 2` starts them."""
    monkeypatch.setattr(Backend, "world_size", 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("rlvr_zoo.train.backend.Accelerator", lambda **settings: None)
    with pytest.raises(ConfigError, match=r"2 processes were launched, but 1 .*--num-processes"):
        Backend("fp32")


@pytest.mark.parametrize(
    ("parallel", "told", "ranks", "sharded"),
    [
        ("auto", "true", 2, True),
        ("auto", "false", 2, False),
        ("ddp", "true", 2, False),
        ("fsdp", "false", 2, True),
        ("fsdp", "true", 1, False),  # nobody to share with
    ],
)
def test_models_are_sharded_where_asked_for_or_where_accelerate_was_told(
    monkeypatch: pytest.MonkeyPatch, parallel: str, told: str, ranks: int, sharded: bool
) -> None:
    monkeypatch.setattr(Backend, "world_size", ranks)
    monkeypatch.setenv("WORLD_SIZE", str(ranks))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", told)
    monkeypatch.setattr("rlvr_zoo.train.backend.Accelerator", lambda **settings: None)
    assert Backend("fp32", parallel).is_sharded is sharded  # type: ignore[arg-type]
