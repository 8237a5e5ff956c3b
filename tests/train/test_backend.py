"""What a backend makes of the way it was launched."""

import os
import sys
from importlib.resources import files

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train.backend import Backend


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ZERO_STAGE", "2"),
        ("OFFLOAD_PARAM_DEVICE", "cpu"),
        ("OFFLOAD_OPTIMIZER_DEVICE", "nvme"),
        ("CONFIG_FILE", "ds.json"),
    ],
)
def test_what_deepspeed_is_not_asked_to_do_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    monkeypatch.setenv(f"ACCELERATE_DEEPSPEED_{name}", value)
    with pytest.raises(ConfigError, match=rf"accelerate's .*{name.lower()}.*; set "):
        Backend("fp32")


def test_an_unset_stage_is_accelerate_s_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.delenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", raising=False)
    with pytest.raises(ConfigError, match=r"zero_stage: 2; set 3"):
        Backend("fp32")


def test_the_ready_configuration_asks_for_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env

    path = files("rlvr_zoo") / "presets/launch/8gpu-deepspeed.yaml"
    given = launch_command_parser().parse_args(["--config_file", str(path), "-m", "rlvr_zoo"])
    args, _, _ = _validate_launch_command(given)
    args.deepspeed_fields_from_accelerate_config = ""  # a list that the command makes
    _, environment = prepare_deepspeed_cmd_env(args)
    for name, value in environment.items():
        if "DEEPSPEED" in name:
            monkeypatch.setenv(name, value)
    assert environment["ACCELERATE_USE_DEEPSPEED"] == "true"
    monkeypatch.setattr("rlvr_zoo.train.backend.Accelerator", lambda **settings: None)
    monkeypatch.setattr(Backend, "world_size", 1)
    assert Backend("fp32").parallel == "deepspeed"


def test_a_missing_deepspeed_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setattr(Backend, "world_size", 2)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=r"pip install 'rlvr-zoo\[deepspeed\]'"):
        Backend("fp32", "deepspeed")


def test_accelerate_is_not_told_of_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would begin an engine of its own; we still know."""
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", "3")
    seen = []
    monkeypatch.setattr(
        "rlvr_zoo.train.backend.Accelerator",
        lambda **settings: seen.append("ACCELERATE_USE_DEEPSPEED" in os.environ),
    )
    monkeypatch.setattr(Backend, "world_size", 1)
    for _ in range(2):
        backend = Backend("fp32")
        assert backend.parallel == "deepspeed" and not backend.is_sharded
    assert seen == [False, False]


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
