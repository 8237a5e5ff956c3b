"""Checkpoints: whole or not at all, and everything in them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.errors import RunFolderError, StorageError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.checkpoint import State
from rlvr_zoo.train.learner import Learner

from .test_learner import everything, rows

SETTINGS = ("algorithm.predictor_hidden_size=32", "optimizer.lr=0.01")


def train(learner: Learner) -> None:
    batch = rows()
    learner.step(batch, learner.prepare(batch), everything(batch))


def tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Every tensor that decides the next step."""
    assert learner.head is not None
    found = {f"policy.{n}": p for n, p in learner.policy.named_parameters()}
    found |= {f"head.{n}": p for n, p in learner.head.named_parameters()}
    copy = learner.companions["siamese"].network
    found |= {f"siamese.{n}": p for n, p in copy.named_parameters()}
    for number, state in learner.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def save(folder: Path, learner: Learner, model: LoadedModel, state: State, keep: int) -> Path:
    parts = checkpoint.snapshot(learner)
    return checkpoint.save(folder, learner, parts, model.tokenizer, state, keep)


@pytest.fixture
def saved(
    learner_of: Callable[..., Learner], model: LoadedModel, tmp_path: Path
) -> tuple[Learner, Path]:
    learner = learner_of("popo", *SETTINGS)
    train(learner)
    state = State(step=3, position=17, optimizer_steps=learner.num_optimizer_steps)
    return learner, save(tmp_path, learner, model, state, keep=2)


def test_a_loaded_learner_takes_the_same_next_step(
    saved: tuple[Learner, Path], learner_of: Callable[..., Learner]
) -> None:
    learner, path = saved
    other = learner_of("popo", *SETTINGS)
    state = checkpoint.load(path, other)
    assert state == State(step=3, position=17, optimizer_steps=1)
    assert other.num_optimizer_steps == 1
    train(learner)
    train(other)
    ours, theirs = tensors(learner), tensors(other)
    assert ours.keys() == theirs.keys()
    assert any(name.endswith("exp_avg") for name in ours)
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_the_policy_is_a_model_folder(saved: tuple[Learner, Path]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    learner, path = saved
    lm = AutoModelForCausalLM.from_pretrained(path / "policy", dtype=torch.float32)
    for name, parameter in learner.policy.lm.named_parameters():
        assert torch.equal(lm.get_parameter(name), parameter)
    assert AutoTokenizer.from_pretrained(path / "policy")("1+1=").input_ids


def test_a_write_that_fails_leaves_the_checkpoint_before_it(
    saved: tuple[Learner, Path],
    model: LoadedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learner, path = saved

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rlvr_zoo.train.checkpoint.torch.save", full)
        with pytest.raises(StorageError, match="No space left"):
            save(tmp_path, learner, model, State(step=4), keep=1)
    assert checkpoint.newest(tmp_path) == path
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_only_the_newest_are_kept(
    saved: tuple[Learner, Path], model: LoadedModel, tmp_path: Path
) -> None:
    learner, _ = saved
    (tmp_path / ".partial-step-00000009").mkdir()  # what a kill leaves
    for step in (5, 7, 7):
        save(tmp_path, learner, model, State(step=step), keep=2)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000005", "step-00000007"]


@pytest.mark.parametrize(
    "victim", ["optimizer.pt", "siamese.safetensors", "policy/model.safetensors"]
)
def test_a_damaged_checkpoint_is_named(
    saved: tuple[Learner, Path], learner_of: Callable[..., Learner], victim: str
) -> None:
    _, path = saved
    (path / victim).write_bytes(b"not what it was")
    with pytest.raises(RunFolderError, match="cannot be resumed") as caught:
        checkpoint.load(path, learner_of("popo", *SETTINGS))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_nothing_in_a_checkpoint_is_run_as_code(
    saved: tuple[Learner, Path], learner_of: Callable[..., Learner], tmp_path: Path
) -> None:
    _, path = saved

    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"state": Trap()}, path / "optimizer.pt")
    with pytest.raises(RunFolderError):
        checkpoint.load(path, learner_of("popo", *SETTINGS))
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_of_another_algorithm_is_refused(
    saved: tuple[Learner, Path], learner_of: Callable[..., Learner]
) -> None:
    _, path = saved
    with pytest.raises(RunFolderError, match="cannot be resumed"):
        checkpoint.load(path, learner_of("grpo"))


@pytest.mark.parametrize("number", [0, 7])
def test_an_optimizer_that_lacks_a_parameter_or_has_one_too_many_is_refused(
    saved: tuple[Learner, Path], learner_of: Callable[..., Learner], number: int
) -> None:
    _, path = saved
    optimizer = torch.load(path / "optimizer.pt", weights_only=True)
    removed = optimizer["state"].pop(number)
    torch.save(optimizer, path / "optimizer.pt")
    with pytest.raises(
        RunFolderError, match=r"lacks 1 of .* parameters and has 0 others"
    ) as caught:
        checkpoint.load(path, learner_of("popo", *SETTINGS))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    optimizer["state"] |= {number: removed, 999: removed}
    torch.save(optimizer, path / "optimizer.pt")
    with pytest.raises(RunFolderError, match=r"lacks 0 of .* parameters and has 1 others"):
        checkpoint.load(path, learner_of("popo", *SETTINGS))
