"""`rlvr-zoo plan`: what it prints, and its exit codes."""

import json

import pytest

from .conftest import Cli

FITS = ("--set=train.gradient_checkpointing=true", "--set=train.parallel=fsdp")


def test_a_plan_in_words(cli: Cli) -> None:
    found = cli("plan", "--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8", *FITS)
    assert found.code == 0 and not found.err
    for part in ("7.62 B", "companions", "moments", "cache", "fits", "98.3 M", "GPU hours"):
        assert part in found.out
    assert "does not fit" not in found.out
    assert "aime25" in found.out and "2.6 points" in found.out


def test_a_plan_that_does_not_fit_says_what_to_change(cli: Cli) -> None:
    whole = "--set=train.parallel=ddp"
    found = cli("plan", "--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8", whole)
    assert found.code == 1 and "does not fit" in found.out
    settings = [line.split()[1] for line in found.out.splitlines() if "  --set" in line]
    assert settings
    again = cli(
        "plan", "--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8",
        *(f"--set={setting}" for setting in settings),
    )  # fmt: skip
    assert again.code == 0


def test_hours_are_those_of_settings_that_can_run(cli: Cli) -> None:
    arguments = ("--algo=ppo", "--model=qwen-math-7b", "--gpus=rtx3090", "--seeds=3")
    found = cli("plan", *arguments)
    tree = json.loads(cli("plan", *arguments, "--json").out)
    change = tree["change"]
    assert found.code == 1 and change["world_size"] > 1
    (gpus,) = [each.split()[1] for each in change["arguments"] if each.startswith("--gpus")]
    out = " ".join(found.out.split())
    assert "with these settings:" in out and out.count("h a seed: rollout") == 1
    assert f"3 seeds on {gpus}: {change['cost']['gpu_hours']:,.0f} GPU hours" in out
    asked = [each.split()[1] for each in change["arguments"] if each.startswith("--set")]
    again = cli(
        "plan", "--algo=ppo", "--model=qwen-math-7b", f"--gpus={gpus}", "--seeds=3", "--json",
        *(f"--set={setting}" for setting in asked),
    )  # fmt: skip
    assert again.code == 0
    other = json.loads(again.out)
    for name in ("cost", "host_bytes", "disk_bytes"):
        assert other[name] == change[name]
    assert change["cost"] != tree["cost"]
    assert other["cost"]["gpu_hours"] == 3 * other["cost"]["hours"] * other["world_size"]


def test_hosts_and_disk(cli: Cli) -> None:
    """By hand: 7.6156 B parameters and a predictor of 29.4 M, a momentum copy, fp32 moments."""
    arguments = ("--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8", *FITS)
    out = " ".join(cli("plan", *arguments).out.split())
    assert "454.8 GiB at the start (8 ranks, each with whole models for a while), 113.8" in out
    assert "113.8 GiB a checkpoint, 341.4 for 3 (checkpoint.keep=2 and one more while" in out
    assert "; 30 are written in all" in out
    out = " ".join(cli("plan", *arguments, "--set=checkpoint.every=0").out.split())
    assert "113.8 GiB a checkpoint" in out and "one more" not in out
    offload = "--set=optimizer.moments=offload"
    assert "113.9 in training (moments)" in " ".join(cli("plan", *arguments, offload).out.split())


def test_an_assumed_time_is_called_so_where_it_decides(cli: Cli) -> None:
    arguments = ("plan", "--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8")
    words = "at 1 ms a layer and token, which is assumed"
    assert words in " ".join(cli(*arguments).out.split())
    assert words not in " ".join(cli(*arguments, "--set=rollout.engine=vllm").out.split())


@pytest.mark.parametrize("parallel", ["auto", "deepspeed"])
def test_a_plan_shards_as_a_run_does(cli: Cli, parallel: str) -> None:
    asked = f"--set=train.parallel={parallel}"
    assert cli("plan", "--algo=popo", "--model=qwen-math-7b", "--gpus=h100x8", asked).code == 0


def test_a_plan_as_json(cli: Cli) -> None:
    found = cli("plan", "--algo=ppo", "--model=qwen2.5-0.5b", "--gpus=h100", "--json")
    tree = json.loads(found.out)
    assert tree["parameters"] == 494_032_768 and tree["world_size"] == 1
    assert tree["fits"] == (found.code == 0)
    parts = tree["memory_bytes"]["parts"]
    assert sum(parts.values()) == pytest.approx(tree["memory_bytes"]["total"], abs=20)
    assert {"weights", "companions", "moments", "activations"} <= set(parts)
    assert tree["cost"]["hours"] > 0
    assert {suite["name"] for suite in tree["suites"]} >= {"math500", "aime25"}


def test_seeds_decide_what_is_seen(cli: Cli) -> None:
    def points(seeds: int) -> list[float | None]:
        arguments = ("--algo=grpo", "--model=qwen-math-1.5b", "--gpus=h200x8", f"--seeds={seeds}")
        tree = json.loads(cli("plan", *arguments, "--json").out)
        return [suite["detectable_points"] for suite in tree["suites"]]

    few, many = points(3), points(10)
    assert all(a is not None and b is not None and a > b for a, b in zip(few, many, strict=True))
    assert set(points(1)) == {None}


def test_the_tiny_model_is_planned_too(cli: Cli) -> None:
    found = cli("plan", "--algo=grpo", "--gpus=rtx3090")
    assert found.code == 0 and "tiny" in found.out


def test_no_weights_are_loaded(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import PreTrainedModel

    def refuse(*arguments: object, **more: object) -> None:
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", refuse)
    arguments = ("--algo=grpo", "--model=llama-3.2-3b", "--gpus=h200x8", "--json")
    assert json.loads(cli("plan", *arguments).out)["parameters"] == 3_212_749_824


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--gpus=h10x8"], ["h10", "did you mean 'h100'"]),
        (["--gpus=h100x128"], ["128 GPUs", "rollouts_per_step"]),
        (["--gpus=h100", "--seeds=0"], ["--seeds 0"]),
        (["--gpus=h100", "--utilisation=1.5"], ["--utilisation 1.5"]),
        (["--gpus=h100", "--set=train.micro_batch_tokns=3"], ["micro_batch_tokens"]),
        (["--gpus=h100", "--protocol=mat-7b"], ["math-7b"]),
        (["--gpus=h100", "--set=lora.rank=8", "--set=lora.targets=[query]"], ["q_proj"]),
    ],
)
def test_bad_input(cli: Cli, arguments: list[str], parts: list[str]) -> None:
    found = cli("plan", "--algo=grpo", "--model=qwen-math-1.5b", *arguments)
    assert found.code == 2
    for part in parts:
        assert part in found.error


def test_a_hub_model_without_a_hub(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    found = cli("plan", "--algo=grpo", "--model=someone/model", "--gpus=h100")
    assert found.code == 2
    assert "someone/model" in found.error and "local folder" in found.error
