"""What to change where a run does not fit."""

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.plan.devices import GIB, parse
from rlvr_zoo.plan.fit import refuse_if_too_big, settled, way_out, with_setting
from rlvr_zoo.plan.memory import estimate
from rlvr_zoo.plan.shape import ModelShape, load_shape
from rlvr_zoo.plan.work import work_of

from .test_memory import config


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return load_shape(config("grpo").model)


@pytest.mark.parametrize("algo", ["popo", "grpo", "ppo"])
@pytest.mark.parametrize("gpus", ["h200", "h100x8", "a100-40x8", "rtx4090x4"])
def test_what_is_offered_fits_and_none_of_it_is_idle(
    algo: str, gpus: str, shape: ModelShape
) -> None:
    devices = parse(gpus)
    memory = devices.gpu.memory_bytes
    start = config(algo)
    found = way_out(start, shape, devices.world_size, memory)
    assert found is not None
    for left_out in (None, *found.changes):
        changed, ranks = start, devices.world_size
        for name, value in found.changes:
            if (name, value) == left_out:
                continue
            if name == "--gpus":
                assert isinstance(value, int)
                ranks = value
            else:
                changed = with_setting(changed, name, value)
        if left_out is None:
            assert (changed, ranks) == (found.config, found.world_size)
        needed = estimate(changed, shape, ranks, memory).total_bytes
        assert (needed <= memory) == (left_out is None)


def test_the_cheapest_change_comes_first(shape: ModelShape) -> None:
    plain = config("popo", "train.gradient_checkpointing=false")
    alone = way_out(plain, shape, 1, parse("h200").gpu.memory_bytes)
    assert alone is not None
    assert alone.arguments(parse("h200")) == [
        "--set train.gradient_checkpointing=true",
        "--set optimizer.moments=8bit",
    ]


def test_more_gpus_are_named_as_the_command_takes_them(shape: ModelShape) -> None:
    devices = parse("rtx4090")
    found = way_out(config("ppo"), shape, 1, devices.gpu.memory_bytes)
    assert found is not None and found.world_size > 1
    (gpus,) = [each for each in found.arguments(devices) if each.startswith("--gpus ")]
    assert parse(gpus.removeprefix("--gpus ")).world_size == found.world_size


def test_nothing_fits_on_a_toy(shape: ModelShape) -> None:
    assert way_out(config("popo"), shape, 1, 1 * GIB) is None


def test_a_run_that_cannot_fit_is_refused_with_numbers(shape: ModelShape) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_if_too_big(config("popo"), shape, 1, parse("h100").gpu.memory_bytes)
    text = str(caught.value)
    assert "\n" not in text and "79.1" in text and "moments 57.0" in text
    assert "lora.rank=32" in text or "GPUs" in text


def test_a_run_that_fits_is_not_refused(shape: ModelShape) -> None:
    settings = ("train.gradient_checkpointing=true", "optimizer.moments=8bit")
    refuse_if_too_big(config("popo", *settings), shape, 1, parse("h200").gpu.memory_bytes)


@pytest.mark.parametrize(("gpu", "number", "parallel"), [("h200", 1, "ddp"), ("h100", 8, "fsdp")])
def test_micro_batches_that_can_be_halved_are_no_reason(
    shape: ModelShape, gpu: str, number: int, parallel: str
) -> None:
    """Out of memory halves them, so that only what is left then is refused."""
    plain = ("optimizer.moments=8bit", "train.gradient_checkpointing=false")
    popo = config("popo", *plain, f"train.parallel={parallel}")
    memory = parse(gpu).gpu.memory_bytes
    assert estimate(popo, shape, number).total_bytes > memory
    refuse_if_too_big(popo, shape, number, memory)
    with pytest.raises(ConfigError, match=r"gradient_checkpointing=true"):
        refuse_if_too_big(popo, shape, number, memory, halves=False)


def test_a_single_micro_batch_may_fit_where_many_do_not(shape: ModelShape) -> None:
    """Many keep whole gradients beside what each one takes."""
    popo = config("popo", "train.parallel=ddp", "train.gradient_checkpointing=true")
    one = estimate(popo, shape, 8).total_bytes
    row = work_of(popo, shape).row_tokens
    many = with_setting(popo, "train.micro_batch_tokens", row)
    assert one < estimate(many, shape, 8).total_bytes
    refuse_if_too_big(popo, shape, 8, int(one) + 1)


def test_no_way_out_is_said(shape: ModelShape) -> None:
    with pytest.raises(ConfigError, match="smaller model"):
        refuse_if_too_big(config("popo"), shape, 1, GIB)


@pytest.mark.parametrize(
    ("algo", "settings", "gpus", "parallel"),
    [
        ("popo", (), "h100x8", "fsdp"),
        ("popo", (), "h100x1", "ddp"),  # nobody to share with
        ("popo", (), "b200x8", "ddp"),
        ("popo", ("optimizer.moments=8bit",), "h200x8", "ddp"),
        ("popo", ("train.parallel=ddp",), "h100x8", "ddp"),
        ("grpo", ("train.parallel=fsdp",), "b200x8", "fsdp"),
        ("ppo", (), "a100-40x2", "fsdp"),  # fits neither way
    ],
)
def test_auto_shards_what_does_not_fit_whole(
    algo: str, settings: tuple[str, ...], gpus: str, parallel: str, shape: ModelShape
) -> None:
    devices = parse(gpus)
    asked = config(algo, *settings)
    decided, note = settled(asked, shape, devices.world_size, devices.gpu.memory_bytes)
    assert decided == with_setting(asked, "train.parallel", parallel)
    assert ("train.parallel=fsdp: whole" in note) == (asked.train.parallel != parallel == "fsdp")
    assert "\n" not in note


def test_what_auto_decides_on_is_what_fits(shape: ModelShape) -> None:
    memory = parse("h100").gpu.memory_bytes
    decided, note = settled(config("popo"), shape, 8, memory)
    refuse_if_too_big(decided, shape, 8, memory)
    assert "each GPU" in note and "79.1" in note
    with pytest.raises(ConfigError, match=r"79\.1.*train\.parallel=fsdp"):
        refuse_if_too_big(config("popo", "train.parallel=ddp"), shape, 8, memory)


def test_whole_models_that_fit_with_smaller_micro_batches_stay_whole(shape: ModelShape) -> None:
    popo = config("popo", "optimizer.moments=8bit", "train.gradient_checkpointing=false")
    memory = parse("h200").gpu.memory_bytes
    assert estimate(popo, shape, 8).total_bytes > memory
    assert settled(popo, shape, 8, memory)[0].train.parallel == "ddp"
