"""GPUs by name."""

import pytest

from rlvr_zoo.errors import ConfigError, NotFoundError
from rlvr_zoo.plan.devices import GPUS, parse


@pytest.mark.parametrize(
    ("text", "name", "world_size"),
    [
        ("h100", "h100", 1),
        ("h100x8", "h100", 8),
        ("H100x8x2", "h100", 16),
        ("a100-40x4", "a100-40", 4),
        ("rtx4090", "rtx4090", 1),  # an x in its name
        ("rtx3090x2", "rtx3090", 2),
    ],
)
def test_names_and_counts(text: str, name: str, world_size: int) -> None:
    found = parse(text)
    assert (found.gpu.name, found.world_size) == (name, world_size)
    assert parse(str(found)) == found


def test_two_machines_share_the_count() -> None:
    found = parse("h100x8x2")
    assert (found.gpus_per_machine, found.num_machines) == (8, 2)


@pytest.mark.parametrize(
    ("given", "world_size", "found"),
    [
        ("h100", 1, "h100x1"),
        ("h100", 4, "h100x4"),
        ("h100", 32, "h100x8x4"),  # machines have eight
        ("rtx4090x3", 12, "rtx4090x6x2"),
        ("b200x16", 32, "b200x16x2"),  # this one has more
        ("h100x2x2", 8, "h100x2x4"),
    ],
)
def test_more_of_the_kind(given: str, world_size: int, found: str) -> None:
    more = parse(given).doubled_to(world_size)
    assert str(more) == found and more.world_size == world_size


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("h10x8", "did you mean 'h100'"),
        ("tpu", "known: a100-40"),
        ("h100x0", "set 1 or more"),
        ("h100x8x2x2", "did you mean 'h100'"),
        ("", "NAMExCOUNT"),
        ("x8", "known: "),
    ],
)
def test_what_cannot_be_read(text: str, says: str) -> None:
    with pytest.raises((ConfigError, NotFoundError), match="--gpus") as caught:
        parse(text)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_the_table_is_of_the_right_size() -> None:
    for gpu in GPUS.values():
        assert 20 < gpu.memory_gib < 200
        assert gpu.fp32_tflops < gpu.bf16_tflops < 3000
        assert 500 < gpu.bandwidth_gb_s < 10_000
