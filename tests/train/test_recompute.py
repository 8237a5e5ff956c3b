"""Gradient checkpointing of models that stay in evaluation mode."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from transformers import OPTConfig, OPTForCausalLM

from rlvr_zoo.errors import ModelError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.network import Network
from rlvr_zoo.train.recompute import recompute_activations, recomputed
from rlvr_zoo.train.rows import rows_of

from .conftest import group

IDS = torch.tensor([[5, 6, 7, 20, 21, 22], [8, 9, 23, 24, 25, 26]])
ROWS = (IDS, torch.tensor([3, 2]), torch.tensor([[1.0, 1, 1, 0], [1, 1, 1, 1]]))


def gradients(network: Network) -> tuple[Tensor, dict[str, Tensor], Counter[str]]:
    """Log-probs, gradients, and how often each layer's attention and MLP ran."""
    ran: Counter[str] = Counter()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.update([name]))
        for name, module in network.named_modules()
        if name.endswith((".mlp", ".self_attn"))
    ]
    network.zero_grad()
    out = network(*ROWS, ["logp", "entropy"], 0.7)
    (out["logp"].sum() + 0.1 * out["entropy"].sum()).backward()
    for hook in hooks:
        hook.remove()
    assert len(ran) == 2 * network.lm.config.num_hidden_layers
    found = {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return out["logp"].detach(), found, ran


def test_the_gradient_is_equal_and_every_layer_runs_twice(model: LoadedModel) -> None:
    network = Network(model.lm)
    want_NT, want, ran = gradients(network)
    assert set(ran.values()) == {1}
    recompute_activations(model.lm)
    got_NT, got, ran = gradients(network)
    assert set(ran.values()) == {2}
    assert got_NT.equal(want_NT)
    assert set(got) == set(want)
    for name, gradient in want.items():
        torch.testing.assert_close(got[name], gradient, rtol=0, atol=0, msg=name)


def test_frozen_embeddings_do_not_stop_the_gradient(model: LoadedModel) -> None:
    model.lm.requires_grad_(False)
    trained = next(p for name, p in model.lm.named_parameters() if "layers.0.mlp" in name)
    trained.requires_grad_()
    _, want, _ = gradients(Network(model.lm))
    recompute_activations(model.lm)
    _, got, ran = gradients(Network(model.lm))
    assert len(got) == 1 and set(ran.values()) == {2}
    assert all(got[name].equal(gradient) for name, gradient in want.items())


def test_only_layers_train_and_only_during_a_forward_pass_with_gradient(
    model: LoadedModel,
) -> None:
    def training() -> set[str]:
        return {type(m).__name__ for m in model.lm.modules() if m.training}

    recompute_activations(model.lm)
    assert training() == set()
    with recomputed(model.lm):
        assert training() == {"Qwen2DecoderLayer"}
    with torch.no_grad(), recomputed(model.lm):
        assert training() == set()
    with pytest.raises(KeyError), recomputed(model.lm):
        raise KeyError
    assert training() == set()


def test_sampling_keeps_its_cache(model: LoadedModel) -> None:
    def cached() -> tuple[Tensor, int]:
        out = model.lm(input_ids=IDS, use_cache=True)
        after = model.lm(input_ids=IDS[:, :1], past_key_values=out.past_key_values)
        return after.logits, out.past_key_values.get_seq_length()

    want, _ = cached()
    recompute_activations(model.lm)
    got, length = cached()
    assert length == 7 and got.equal(want)


def test_dropout_in_a_layer_is_refused() -> None:
    config = OPTConfig(
        vocab_size=40, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=8, max_position_embeddings=16, dropout=0.1,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"OPTDecoderLayer.dropout=0.1 would drop activations"):
        recompute_activations(OPTForCausalLM(config).eval())
    config.dropout = 0.0
    recompute_activations(OPTForCausalLM(config).eval())


@pytest.mark.parametrize("how", ["says so", "has no such layer"])
def test_a_model_that_cannot_is_refused(
    how: str, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if how == "says so":
        monkeypatch.setattr(type(model.lm), "supports_gradient_checkpointing", False)
    else:
        model.lm.model.layers = nn.ModuleList()
    with pytest.raises(ModelError, match=r"^Qwen2ForCausalLM cannot compute .*; set train\.") as e:
        recompute_activations(model.lm)
    assert "\n" not in str(e.value)


def test_the_settings_change_no_gradient(
    learner_of: Callable[..., Learner],
) -> None:
    """PPO has a policy and a critic that is a copy of it; both obey."""

    def gradients_of_policy(learner: Learner) -> dict[str, Tensor]:
        named = learner.policy.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    groups = [group(0, [1, 0], [7, 2]), group(1, [0, 1], [1, 9])]
    found, ran = [], []
    for settings in ([], ["train.gradient_checkpointing=true", "train.logits_tokens=2"]):
        learner = learner_of("ppo", "optimizer.max_grad_norm=0", *settings)
        learner.optimizer.step = lambda learner=learner: found.append(gradients_of_policy(learner))
        counts: Counter[str] = Counter()
        watched = {"policy": learner.policy, "critic": learner.companions["critic"].network}
        for name, network in watched.items():
            network.lm.model.layers[0].mlp.register_forward_pre_hook(
                lambda *_, counts=counts, name=name: counts.update([name])
            )
        rows = rows_of(groups, list(range(4)), 9, torch.device("cpu"))
        targets = learner.prepare(rows, rows.sampler_logp_NT)
        counts.clear()
        learner.step(rows, targets, torch.arange(4))
        ran.append(counts)
        assert len({network.logits_tokens for network in watched.values()}) == 1
    assert ran == [{"policy": 1, "critic": 1}, {"policy": 2, "critic": 2}]
    assert learner.policy.logits_tokens == 2
    assert set(found[0]) == set(found[1]) and "lm.model.embed_tokens.weight" in found[0]
    for name, want in found[0].items():
        atol = 1e-5 * want.abs().max().item()
        torch.testing.assert_close(found[1][name], want, rtol=0, atol=atol, msg=name)
