"""Log-probs, entropies and features against the plain computation."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_zoo.errors import ModelError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.train.network import Network, pooled, prove_drivable

PROMPTS = [[5, 6, 7], [8, 9, 10, 11, 12], [13]]
COMPLETIONS = [[20, 21], [22], [23, 24, 25, 26]]


NUM_TOKENS = sum(map(len, COMPLETIONS))


def padded() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rows = [p + c for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
    width = max(map(len, rows))
    ids_NL = torch.tensor([row + [99] * (width - len(row)) for row in rows])
    mask_NT = torch.tensor([[float(t < len(c)) for t in range(4)] for c in COMPLETIONS])
    return ids_NL, torch.tensor([len(p) for p in PROMPTS]), mask_NT


@pytest.mark.parametrize("logits_tokens", [1, 3, 1024])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_outputs_equal_the_plain_computation_row_by_row(
    model: LoadedModel, temperature: float, logits_tokens: int
) -> None:
    with torch.no_grad():
        network = Network(model.lm, logits_tokens=logits_tokens)
        got = network(*padded(), ["logp", "entropy", "hidden"], temperature)
        for row, (prompt, completion) in enumerate(zip(PROMPTS, COMPLETIONS, strict=True)):
            ids = torch.tensor([prompt + completion])
            out = model.lm(input_ids=ids, output_hidden_states=True)
            logp = (out.logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
            chosen = logp.gather(-1, torch.tensor(completion)[:, None])[:, 0]
            entropy = torch.distributions.Categorical(logits=logp).entropy()
            hidden = out.hidden_states[-1][0, len(prompt) :].mean(0)
            n = len(completion)
            torch.testing.assert_close(got["logp"][row, :n], chosen, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(got["entropy"][row, :n], entropy, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(got["hidden"][row], hidden, rtol=1e-5, atol=1e-5)
            assert (got["logp"][row, n:] == 0).all() and (got["entropy"][row, n:] == 0).all()


def test_log_probs_do_not_depend_on_what_else_is_asked(model: LoadedModel) -> None:
    with torch.no_grad():
        alone = Network(model.lm)(*padded(), ["logp"], 1.0)
        beside = Network(model.lm)(*padded(), ["logp", "hidden"], 1.0)
    assert set(alone) == {"logp"}
    torch.testing.assert_close(alone["logp"], beside["logp"], rtol=0, atol=1e-5)


def test_a_model_with_more_than_a_linear_head_is_refused(model: LoadedModel) -> None:
    prove_drivable(Network(model.lm))
    forward = model.lm.forward

    def capped(*args: object, **kwargs: object) -> object:
        out = forward(*args, **kwargs)
        out.logits = 2.0 * torch.tanh(out.logits / 2.0)  # as Gemma 2 does
        return out

    model.lm.forward = capped
    with pytest.raises(ModelError, match="differ from its own logits"):
        prove_drivable(Network(model.lm))


class WithAdapter(nn.Module):
    """A head as peft wraps it: the frozen map, and a low-rank one beside it."""

    def __init__(self, head: nn.Linear) -> None:
        super().__init__()
        self.head = head.requires_grad_(False)
        self.down = nn.Linear(head.in_features, 2, bias=False)
        self.up = nn.Linear(2, head.out_features, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(hidden) + self.up(self.down(hidden))


class Scaled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 1.5 * weight


def scaled(head: nn.Linear) -> nn.Module:
    parametrize.register_parametrization(head, "weight", Scaled())
    return head


def with_bias(head: nn.Linear) -> nn.Module:
    torch.manual_seed(0)
    head.bias = nn.Parameter(torch.randn(head.out_features))
    return head


def patched(head: nn.Linear) -> nn.Module:
    """As accelerate wraps the forward pass of a module that it moves between devices."""
    own = head.forward
    head.forward = lambda hidden: 2.0 * own(hidden)
    return head


HEADS: dict[str, Callable[[nn.Linear], nn.Module]] = {
    "linear": lambda head: head,
    "bias": with_bias,
    "adapter": WithAdapter,
    "parametrised": scaled,
    "patched": patched,
}


class LogitsHeld(TorchDispatchMode):
    """Notes how many tokens' logits any tensor holds at most, and all together are kept for the
    backward pass."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.vocabulary, self.width = network.lm.config.vocab_size, network.lm.config.hidden_size
        self.most, self.kept = 0, 0
        self.saving = torch.autograd.graph.saved_tensors_hooks(self.keep, lambda kept: kept)

    def tokens(self, x: object) -> int:
        if not isinstance(x, Tensor) or x.ndim < 2 or x.shape[-1] != self.vocabulary:
            return 0
        tokens = x.numel() // self.vocabulary
        return 0 if tokens == self.width else tokens  # a weight, transposed

    def keep(self, x: Tensor) -> Tensor:
        self.kept += self.tokens(x)
        return x

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.most = max(self.most, self.tokens(out))
        return out


def gradients(network: Network) -> tuple[dict[Any, Tensor], dict[str, Tensor], LogitsHeld]:
    """What comes out, the gradients by weight, and the logits that were held."""
    network.zero_grad()
    with LogitsHeld(network) as held:
        with held.saving:
            out = network(*padded(), ["logp", "entropy"], 0.7)
        weight_NT = torch.arange(12.0).add(1).sin().view(3, 4)
        (weight_NT * out["logp"] + weight_NT.flip(1) * out["entropy"]).sum().backward()
    found = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    return out, found, held


@pytest.mark.parametrize("kind", HEADS)
def test_any_head_gives_the_same_in_chunks(model: LoadedModel, kind: str) -> None:
    model.lm.set_output_embeddings(HEADS[kind](model.lm.get_output_embeddings()))
    with torch.no_grad():
        row = torch.tensor([PROMPTS[0] + COMPLETIONS[0]])
        states = model.lm.base_model(input_ids=row).last_hidden_state
        logp = (model.lm.get_output_embeddings()(states) / 0.7).log_softmax(-1)
        own = logp[0, len(PROMPTS[0]) - 1, COMPLETIONS[0][0]].item()
    want, want_gradients, held = gradients(Network(model.lm, logits_tokens=1024))
    assert held.most == NUM_TOKENS
    got, got_gradients, held = gradients(Network(model.lm, logits_tokens=3))
    assert held.most == 3 and held.kept == 0
    for name, want_NT in want.items():
        torch.testing.assert_close(got[name], want_NT, rtol=0, atol=1e-5)
    assert set(got_gradients) == set(want_gradients)
    for name, gradient in want_gradients.items():
        atol = 1e-5 * gradient.abs().max().item()
        torch.testing.assert_close(got_gradients[name], gradient, rtol=0, atol=atol, msg=name)
    assert any("embed" in name or "head" in name for name in got_gradients)
    assert got["logp"][0, 0].item() == pytest.approx(own, abs=1e-5)


def test_pooled_states_are_summed_in_fp32_without_a_copy_in_fp32() -> None:
    torch.manual_seed(0)
    hidden_NLD = torch.randn(3, 700, 8).bfloat16().requires_grad_()
    mask_NT = (torch.arange(600) < torch.tensor([[600], [333], [1]])).float()
    prompt_N = torch.tensor([5, 100, 650])

    class Widest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.dtype == torch.float32:
                self.numel = max(self.numel, out.numel())
            return out

    want_ND = torch.stack(
        [
            hidden_NLD.detach().double()[0, 5:605].mean(0),
            hidden_NLD.detach().double()[1, 100:433].mean(0),
            hidden_NLD.detach().double()[2, 650],
        ]
    )
    with Widest() as widest:
        got_ND = pooled(hidden_NLD, prompt_N, mask_NT)
        got_ND.sum().backward()
    assert widest.numel == 700 * 8  # one row's
    torch.testing.assert_close(got_ND.double(), want_ND, rtol=0, atol=1e-6)
    wide = pooled(hidden_NLD.detach().float(), prompt_N, mask_NT)
    torch.testing.assert_close(wide.double(), want_ND, rtol=0, atol=1e-6)
    assert hidden_NLD.grad is not None
    each_NL = hidden_NLD.grad[..., 0].float()
    assert each_NL[2].nonzero().tolist() == [[650]] and each_NL[2, 650] == 1
    torch.testing.assert_close(each_NL.sum(1), torch.ones(3), rtol=0, atol=4e-3)  # bf16's 1/600
