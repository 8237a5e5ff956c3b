"""Adapters and small moments in the trainer: what companions share, and a checkpoint of it all."""

import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr_zoo.cli import main
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.adapters import adapter_parameters, merged
from rlvr_zoo.train.checkpoint import State
from rlvr_zoo.train.learner import Learner

from .test_checkpoint import save
from .test_learner import everything, rows

needs_both = pytest.mark.skipif(
    find_spec("peft") is None or find_spec("torchao") is None, reason="peft or torchao is missing"
)
SETTINGS = ("lora.rank=4", "optimizer.lr=0.01", "optimizer.moments=8bit")


def train(learner: Learner) -> None:
    batch = rows()
    learner.step(batch, learner.prepare(batch), everything(batch))


def tensors(learner: Learner) -> dict[str, torch.Tensor]:
    found: dict[str, Any] = {f"policy.{n}": p for n, p in learner.policy.named_parameters()}
    for name, companion in learner.companions.items():
        found |= {f"{name}.{n}": p for n, p in companion.network.named_parameters()}
    if learner.head is not None:
        found |= {f"head.{n}": p for n, p in learner.head.named_parameters()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


@needs_both
@pytest.mark.parametrize("algo", ["grpo", "popo", "ppo"])  # frozen, momentum, critic
def test_only_adapters_and_heads_move_and_the_base_is_held_once(
    learner_of: Callable[..., Learner], algo: str
) -> None:
    learner = learner_of(algo, *SETTINGS)
    start = tensors(learner)
    train(learner)
    train(learner)
    now = tensors(learner)
    moved = {name for name, tensor in now.items() if not torch.equal(tensor, start[name])}
    moving = {"policy", *({"grpo": (), "popo": ("siamese", "head"), "ppo": ("critic",)}[algo])}
    assert {name.partition(".")[0] for name in moved} == moving
    assert all("lora_" in n or "value_head" in n or n.startswith("head.") for n in moved)
    bases = [
        {p.data_ptr() for n, p in network.lm.named_parameters() if "lora_" not in n}
        for network in (learner.policy, *(c.network for c in learner.companions.values()))
    ]
    assert len(bases) == 2 and bases[0] == bases[1]
    held = [p for group in learner.optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in adapter_parameters(learner.policy.lm)} <= {id(p) for p in held}


@needs_both
@pytest.mark.parametrize("algo", ["grpo", "popo", "ppo"])
def test_a_loaded_learner_takes_the_same_next_step(
    learner_of: Callable[..., Learner], model: LoadedModel, tmp_path: Path, algo: str
) -> None:
    learner, other = learner_of(algo, *SETTINGS), learner_of(algo, *SETTINGS, "seed=1")
    train(learner)
    path = save(tmp_path, learner, model, State(optimizer_steps=1), keep=1)
    checkpoint.load(path, other)
    train(learner)
    train(other)
    theirs = tensors(other)
    for name, tensor in tensors(learner).items():
        assert torch.equal(tensor, theirs[name]), name


@needs_both
def test_the_policy_s_folder_is_a_plain_model(
    learner_of: Callable[..., Learner], model: LoadedModel, tmp_path: Path
) -> None:
    learner = learner_of("grpo", *SETTINGS)
    train(learner)
    path = save(tmp_path, learner, model, State(), keep=1)
    plain = AutoModelForCausalLM.from_pretrained(path / "policy", dtype=torch.float32)
    weights = dict(merged(learner.policy.lm))
    assert {n for n, _ in plain.named_parameters()} == weights.keys()
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, weights[name])


@pytest.mark.parametrize(
    ("setting", "command"),
    [
        ("lora.rank=8", "pip install 'rlvr-zoo[lora]'"),
        ("optimizer.moments=8bit", "pip install 'rlvr-zoo[low-memory]'"),
    ],
)
def test_a_missing_package_ends_the_command_in_one_line(
    setting: str,
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("rlvr_zoo.train.extras.find_spec", lambda name: None)
    folder = tmp_path / "run"
    arguments = ["run", "--algo=grpo", f"--set={setting}", f"--output={folder}"]
    monkeypatch.setattr(sys, "argv", ["rlvr-zoo", *arguments])
    with pytest.raises(SystemExit) as left:
        main()
    errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert left.value.code == 2 and len(errors) == 1 and command in errors[0]
    assert not folder.exists()
