"""Whole or sharded, on GPUs that are made up."""

from dataclasses import dataclass
from typing import Any

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.plan.devices import parse
from rlvr_zoo.train.collectives import CAN_RESTART
from rlvr_zoo.train.fitting import fit

from .conftest import configured


@dataclass
class Ranks:
    """What `fit` asks of a Backend."""

    parallel: str
    world_size: int
    memory: int

    def gpu_memory_bytes(self) -> int:
        return self.memory

    def broadcast(self, value: Any) -> Any:
        return value


def fitted(
    parallel: str, gpus: str, model: str = "qwen-math-7b", *settings: str
) -> tuple[str, list[str]]:
    devices = parse(gpus)
    ranks: Any = Ranks(parallel, devices.world_size, devices.gpu.memory_bytes)
    preset = () if model == "tiny" else (f"model={model}",)
    notes = fit(configured("popo", *preset, *settings), ranks)
    return ranks.parallel, notes


def test_eight_gpus_that_a_7b_model_does_not_fit_whole_share_it() -> None:
    parallel, notes = fitted("auto", "h100x8")
    assert parallel == "fsdp"
    assert len(notes) == 1 and "train.parallel=fsdp" in notes[0] and "79.1" in notes[0]
    assert fitted("fsdp", "h100x8") == ("fsdp", [])  # as accelerate was told, or the user said


def test_small_models_stay_whole_without_a_word() -> None:
    assert fitted("auto", "rtx3090x2", "tiny") == ("ddp", [])


@pytest.mark.parametrize("parallel", ["ddp", "auto"])
def test_what_fits_no_way_is_refused(parallel: str) -> None:
    with pytest.raises(ConfigError, match=r"of each GPU, which has 23\.6 .*; set"):
        fitted(parallel, "rtx3090x2")


def test_whole_models_that_were_asked_for_stay_refused() -> None:
    with pytest.raises(ConfigError, match=r"79\.1.*train\.parallel=fsdp"):
        fitted("ddp", "h100x8")


def test_without_gpus_nothing_is_decided() -> None:
    ranks: Any = Ranks("auto", 2, 0)
    assert fit(configured("popo"), ranks) == [] and ranks.parallel == "auto"


def test_the_plan_takes_deepspeed_for_fsdp() -> None:
    assert fitted("deepspeed", "h100x8") == ("deepspeed", [])
    with pytest.raises(ConfigError, match="of each GPU"):
        fitted("deepspeed", "rtx3090x2")


def test_deepspeed_is_refused_what_fsdp_makes_fit_by_halving() -> None:
    plain = ("qwen-math-7b", "train.gradient_checkpointing=false")
    with pytest.raises(ConfigError, match=r"gradient_checkpointing=true"):
        fitted("deepspeed", "h100x8", *plain)
    if CAN_RESTART:
        assert fitted("fsdp", "h100x8", *plain) == ("fsdp", [])


def test_deepspeed_with_8_bit_moments_is_refused() -> None:
    config = configured("popo", "optimizer.moments=8bit")
    two: Any = Ranks("deepspeed", 2, 0)
    with pytest.raises(ConfigError, match=r"train\.parallel=fsdp, or optimizer\.moments=fp32"):
        fit(config, two)
    one: Any = Ranks("deepspeed", 1, 0)
    assert fit(config, one) == []
