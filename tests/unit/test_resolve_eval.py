"""Settings of evaluations, suites and engines: how they come about, what is in a protocol."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlvr_zoo import checks
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import ConfigError, NotFoundError
from rlvr_zoo.protocol import Tree, protocol_of
from rlvr_zoo.resolve import merge, model_preset, parse_set, resolve, resolve_eval

BOUNDS = (*checks._POSITIVE, *checks._NOT_NEGATIVE, *checks._AT_MOST_ONE, *checks._BELOW_ONE)


def run(*settings: str) -> RunConfig:
    return resolve({}, merge(parse_set(settings), {"algo": "grpo"}))


def test_a_checkpoint_is_measured_as_its_run_was(tmp_path: Path) -> None:
    policy = tmp_path / "run/checkpoints/step-00000001/policy"
    policy.mkdir(parents=True)
    stored = asdict(run("train.precision=bf16", "verify.timeout_s=3", "model.prompt=Q: {problem}"))
    (tmp_path / "run/config.yaml").write_text(yaml.safe_dump(stored))
    suites: Tree = {"suites": {"names": ["micro"]}}
    config = resolve_eval(str(policy), suites)
    assert (config.precision, config.verify.timeout_s) == ("bf16", 3)
    assert (config.model.prompt, config.model.path) == ("Q: {problem}", str(policy))
    assert resolve_eval(str(policy), {**suites, "precision": "fp32"}).precision == "fp32"
    assert resolve_eval(str(policy.parent), suites).precision == "fp32"  # another folder is not it
    assert model_preset(str(policy))["model"]["prompt"] == "Q: {problem}"


def test_how_suites_are_sampled_is_no_part_of_the_configurations_protocol() -> None:
    """The record holds it instead, as it came out: names and overrides may say the same."""
    assert "suites" not in protocol_of(run("suites.names=[aime24]", "suites.num_samples=32"))
    for bad in ("suites.names=[amie24]", "suites.limit=-1", "suites.top_p=2", "suites.pass_at=[0]"):
        with pytest.raises((ConfigError, NotFoundError)):
            run(bad)


def test_every_bound_has_its_field() -> None:
    flat = asdict(run())
    for path in BOUNDS:
        value: Any = flat
        for key in path.split("."):
            assert key in value, path
            value = value[key]


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("rollout.vllm.max_num_seqs=-1", "rollout.vllm.max_num_seqs=-1: set 0 or more"),
        ("rollout.vllm.gpu_memory_share=2", "rollout.vllm.gpu_memory_share=2.0: set 1 or less"),
        ("rollout.vllm.dtype=fp8", "rollout.vllm.dtype='fp8': "),
        ("rollout.vllm=3", "rollout.vllm=3: a section of settings is wanted here"),
    ],
)
def test_bounds_of_nested_settings(setting: str, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        run(setting)
    assert str(caught.value).startswith(says)
