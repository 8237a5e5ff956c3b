"""Adapters: a start that changes nothing, a base that is shared and stays, weights merged back."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlvr_zoo.config import LoraConfig, RolloutConfig
from rlvr_zoo.errors import ConfigError, ModelError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Request, Sampling
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.train.adapters import (
    adapter_parameters,
    add_adapters,
    copied,
    has_adapters,
    merged,
    own,
)
from rlvr_zoo.train.network import Network, prove_drivable, width_of
from rlvr_zoo.train.sharding import put, whole

from .forked import ROOT, command

IDS = torch.arange(2, 26).reshape(2, 12)
RANK = LoraConfig(rank=4, alpha=6.0)

needs_peft = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


def adapter_state(lm: Any) -> dict[str, torch.Tensor]:
    """Every adapter, whole."""
    return {name: whole(parameter.detach()).clone() for name, parameter in own(lm).items()}


def adapted(model: LoadedModel, config: LoraConfig = RANK, moved: bool = True) -> Any:
    """The model with adapters, which have moved as if trained."""
    add_adapters(model.lm, config, seed=0)
    if moved:
        draw = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in adapter_parameters(model.lm):
                parameter += 0.05 * torch.randn(parameter.shape, generator=draw)
    return model.lm


def logits(lm: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = lm(input_ids=IDS).logits
    return found


@needs_peft
def test_adapters_change_nothing_at_first(model: LoadedModel) -> None:
    before, kind = logits(model.lm), type(model.lm)
    assert not has_adapters(model.lm) and adapter_parameters(model.lm) == []
    lm = adapted(model, moved=False)
    assert torch.equal(logits(lm), before) and type(lm) is kind and has_adapters(lm)
    assert not any(module.training for module in lm.modules())
    shapes = [tuple(p.shape) for p in adapter_parameters(lm)]
    assert len(shapes) == 2 * 2 * 7 and shapes[:2] == [(4, 128), (128, 4)]  # A and B, 2 layers
    assert not any("lm_head" in n for n, p in lm.named_parameters() if p.requires_grad)


@needs_peft
def test_the_seed_decides_a_and_nothing_else(model: LoadedModel) -> None:
    plain, random = copied(model.lm), torch.random.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        lm = copied(plain)
        add_adapters(lm, RANK, seed)
        states.append(adapter_state(lm))
    assert torch.equal(torch.random.get_rng_state(), random)
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value)
        assert torch.equal(states[2][name], value) == ("lora_B" in name)


@needs_peft
def test_the_gradient_flows_into_adapters_only(model: LoadedModel) -> None:
    lm = adapted(model)
    mask_NT, first = torch.ones(2, 11), torch.ones(2, dtype=torch.int64)
    Network(lm)(IDS, first, mask_NT, ["logp"], 1.0)["logp"].sum().backward()
    own = {id(parameter) for parameter in adapter_parameters(lm)}
    for name, parameter in lm.named_parameters():
        assert parameter.requires_grad == (id(parameter) in own), name
        assert (parameter.grad is not None) == (id(parameter) in own), name
        assert parameter.dtype == torch.float32
    assert all(p.grad.abs().max() > 0 for p in adapter_parameters(lm) if p.grad is not None)


@needs_peft
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "mlp.down_proj"]])
def test_merged_weights_are_a_plain_model_s(
    model: LoadedModel, tmp_path: Path, targets: Any
) -> None:
    names = [name for name, _ in model.lm.named_parameters()]
    before = logits(model.lm)
    lm = adapted(model, LoraConfig(rank=4, alpha=6.0, targets=targets))
    weights = dict(merged(lm))
    assert list(weights) == names
    lm.save_pretrained(tmp_path, state_dict=weights)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, weights[name]), name
    got, want = logits(plain), logits(lm)
    assert (got - want).abs().max() < 1e-6 * want.abs().max()
    assert (logits(lm) - before).abs().max() > 0.01


def test_without_adapters_merged_is_the_parameters_themselves(model: LoadedModel) -> None:
    named = dict(model.lm.named_parameters())
    assert {n: t.data_ptr() for n, t in merged(model.lm)} == {
        n: p.data_ptr() for n, p in named.items()
    }
    whole = copied(model.lm)
    assert not {p.data_ptr() for p in whole.parameters()} & {p.data_ptr() for p in named.values()}


@needs_peft
def test_a_copy_shares_the_base_and_has_its_own_adapters(model: LoadedModel) -> None:
    lm = adapted(model)
    other = copied(lm)
    before = logits(lm)
    assert torch.equal(logits(other), before)
    mine, theirs = dict(lm.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == theirs.keys()
    for name, parameter in mine.items():
        assert (parameter.data_ptr() == theirs[name].data_ptr()) == ("lora_" not in name), name
        assert parameter.requires_grad == theirs[name].requires_grad
    buffers = dict(other.named_buffers())
    assert all(b.data_ptr() == buffers[n].data_ptr() for n, b in lm.named_buffers())
    with torch.no_grad():
        for parameter in adapter_parameters(other):
            parameter.zero_()
    assert torch.equal(logits(lm), before) and not torch.equal(logits(other), before)


@needs_peft
def test_the_trainer_and_the_sampler_drive_it(model: LoadedModel) -> None:
    lm = adapted(model)
    prove_drivable(Network(lm))
    assert width_of(lm) == 128
    engine = TransformersEngine(model, RolloutConfig())
    request = Request(prompt_ids=(5, 6, 7), seeds=(1, 2))
    sampling = Sampling(temperature=1.0, max_completion_tokens=6)
    for rollout in engine.generate([request], sampling)[0]:
        ids = torch.tensor([[5, 6, 7, *rollout.ids]])
        with torch.no_grad():
            logp = lm(input_ids=ids).logits[0, 2:-1].log_softmax(-1)
        chosen = logp.gather(-1, ids[0, 3:, None])[:, 0]
        torch.testing.assert_close(chosen, torch.tensor(rollout.logp), rtol=0, atol=1e-5)


@needs_peft
def test_adapters_are_put_back_from_a_file(model: LoadedModel, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    plain = copied(model.lm)
    lm = adapted(model)
    save_file(adapter_state(lm), tmp_path / "adapters.safetensors")
    add_adapters(plain, RANK, seed=9)
    put(load_file(tmp_path / "adapters.safetensors"), own(plain))
    assert torch.equal(logits(plain), logits(lm))
    state = adapter_state(lm)
    with pytest.raises(KeyError, match="1 weights are missing"):
        put(dict(list(state.items())[1:]), own(plain))


@pytest.mark.parametrize("target", ["q_prj", "lm_head", "embed_tokens", "proj", ""])
def test_an_unknown_target_is_named_with_those_there_are(model: LoadedModel, target: str) -> None:
    before = [name for name, _ in model.lm.named_parameters()]
    with pytest.raises(ModelError, match=r"lora\.targets: Qwen2.*q_proj") as caught:
        add_adapters(model.lm, LoraConfig(rank=4, targets=["o_proj", target]), 0)
    assert "\n" not in str(caught.value)
    assert [name for name, _ in model.lm.named_parameters()] == before


def test_a_missing_peft_is_named_with_the_command(
    model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ConfigError, match=r"lora\.rank=4 needs peft.*'rlvr-zoo\[lora\]'"):
        add_adapters(model.lm, RANK, 0)


@needs_peft
def test_sharded_adapters_are_gathered_and_put_back(model_dir: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        command(2, "tests.train.sharded_adapters", model_dir),
        cwd=ROOT, timeout=120, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
