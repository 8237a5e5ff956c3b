"""Log-probs and entropies chunk by chunk, against the plain computation."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from rlvr_zoo.functional import vocabulary
from rlvr_zoo.functional.vocabulary import logp_and_entropy, token_logp_and_entropy

M, D, V = 13, 3, 37
F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16

PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)


class Watch(TorchDispatchMode):
    """Notes the types of matrix products, and how many logits any tensor holds."""

    def __init__(self) -> None:
        super().__init__()
        self.most_logits = 0
        self.products: list[torch.dtype] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            if out.shape[-1:] == (V,) and out.ndim > 1:
                self.most_logits = max(self.most_logits, out.numel())
            if func.overloadpacket in PRODUCTS:
                self.products.append(out.dtype)
        return out


def inputs(dtype: torch.dtype, bias: bool = True, tokens: int = M) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(tokens)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=F64).to(dtype).requires_grad_()

    return {
        "hidden_MD": normal(tokens, D),
        "weight_VD": normal(V, D),
        "bias_V": normal(V) if bias else None,
        "target_M": torch.randint(V, (tokens,), generator=draw),
    }


def chunked(given: dict[str, Any], temperature: float, **how: Any) -> tuple[Tensor, Tensor | None]:
    return token_logp_and_entropy(**given, temperature=temperature, **how)


def plain(
    given: dict[str, Any], temperature: float, *, entropy: bool
) -> tuple[Tensor, Tensor | None]:
    logits_MV = F.linear(given["hidden_MD"], given["weight_VD"], given["bias_V"])
    wide = torch.promote_types(logits_MV.dtype, F32)
    return logp_and_entropy(logits_MV.to(wide) / temperature, given["target_M"], entropy=entropy)


def gradients(
    found: tuple[Tensor, Tensor | None], given: dict[str, Any], use: str = "logp entropy"
) -> dict[str, Tensor]:
    """Of a sum over tokens that weighs each log-prob and entropy differently, signs included."""
    total = torch.zeros((), dtype=found[0].dtype)
    for name, value_M, shift in zip(("logp", "entropy"), found, (0.3, 1.1), strict=True):
        if value_M is not None and name in use:
            total = total + (torch.arange(len(value_M)).add(shift).sin() * value_M).sum()
    inputs = {name: x for name, x in given.items() if x is not None and x.requires_grad}
    return dict(zip(inputs, torch.autograd.grad(total, list(inputs.values())), strict=True))


def assert_equal(got: Any, want: Any, relative: float) -> None:
    """Within `relative` of the largest entry."""
    if want is None:
        assert got is None
    else:
        assert_close(got, want, rtol=0, atol=relative * want.abs().max().item())


@pytest.mark.parametrize(("chunk_tokens", "block"), [(1, 2**18), (5, 3 * V), (13, 1), (100, 2**18)])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("use", ["logp", "entropy", "logp entropy"])
@pytest.mark.parametrize(("dtype", "relative"), [(F64, 1e-12), (F32, 1e-6)], ids=["f64", "f32"])
def test_values_and_gradients_equal_the_plain_ones(
    dtype: torch.dtype,
    relative: float,
    use: str,
    bias: bool,
    temperature: float,
    chunk_tokens: int,
    block: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(vocabulary.BLOCK_ELEMENTS, "cpu", block)
    given = inputs(dtype, bias)
    entropy = "entropy" in use
    want = plain(given, temperature, entropy=entropy)
    got = chunked(given, temperature, entropy=entropy, chunk_tokens=chunk_tokens)
    for got_M, want_M in zip(got, want, strict=True):
        assert_equal(got_M, want_M, relative)
        assert got_M is None or got_M.dtype == dtype
    want_gradients, got_gradients = gradients(want, given, use), gradients(got, given, use)
    assert set(got_gradients) == {"hidden_MD", "weight_VD"} | ({"bias_V"} if bias else set())
    for name, want_gradient in want_gradients.items():
        assert_equal(got_gradients[name], want_gradient, relative)


@pytest.mark.parametrize("entropy", [False, True])
def test_gradcheck(entropy: bool) -> None:
    given = inputs(F64, tokens=4)

    def f(hidden_MD: Tensor, weight_VD: Tensor, bias_V: Tensor) -> tuple[Tensor, ...]:
        varied = {"hidden_MD": hidden_MD, "weight_VD": weight_VD, "bias_V": bias_V}
        found = chunked(given | varied, 0.8, entropy=entropy, chunk_tokens=3)
        return tuple(x for x in found if x is not None)

    assert torch.autograd.gradcheck(f, [given[n] for n in ("hidden_MD", "weight_VD", "bias_V")])


def test_a_coin_by_hand() -> None:
    # logits 0 and ln 3: p = 1/4 and 3/4; H = 2 ln 2 - (3/4) ln 3; d log p(1) = (-1/4 - 3/4 + 1) h
    hidden_MD = torch.ones(1, 1, requires_grad=True)
    weight_VD = torch.tensor([[0.0], [math.log(3)]], requires_grad=True)
    logp_M, entropy_M = token_logp_and_entropy(
        hidden_MD, weight_VD, torch.tensor([1]), 1.0, entropy=True, chunk_tokens=1
    )
    assert entropy_M is not None
    assert_close(logp_M.item(), math.log(0.75), rtol=1e-6, atol=0)
    assert_close(entropy_M.item(), 2 * math.log(2) - 0.75 * math.log(3), rtol=1e-6, atol=0)
    logp_M.sum().backward()
    assert_close(weight_VD.grad, torch.tensor([[-0.25], [0.25]]), rtol=1e-6, atol=0)
    assert_close(hidden_MD.grad, torch.tensor([[0.25 * math.log(3)]]), rtol=1e-6, atol=0)


def test_a_token_that_is_all_but_certain_keeps_its_digits() -> None:
    # 100 - log sum exp(logits) would be off by half the distance of floats near 100: 4e-6
    logits_V = torch.full((V,), 90.0)
    logits_V[3] = 100.0
    rest = 36 * math.exp(-10)
    bias_V = logits_V.requires_grad_()
    logp_M, entropy_M = token_logp_and_entropy(
        torch.zeros(1, D), torch.zeros(V, D), torch.tensor([3]), 1.0,
        bias_V=bias_V, entropy=True, chunk_tokens=1,
    )  # fmt: skip
    assert entropy_M is not None
    want_entropy = math.log1p(rest) + rest * 10 / (1 + rest)
    assert_close(logp_M.item(), -math.log1p(rest), rtol=1e-4, atol=0)
    assert_close(entropy_M.item(), want_entropy, rtol=1e-4, atol=0)
    logp_M.sum().backward()
    assert bias_V.grad is not None
    # 1 - p of p near 1 is off by 6e-8 of the 1.6e-3
    assert_close(bias_V.grad[3].item(), rest / (1 + rest), rtol=3e-4, atol=0)
    assert_close(bias_V.grad[4].item(), -math.exp(-10) / (1 + rest), rtol=1e-6, atol=0)


@pytest.mark.parametrize("entropy", [False, True])
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_no_tensor_holds_the_logits_of_more_than_a_chunk(dtype: torch.dtype, entropy: bool) -> None:
    given = inputs(dtype)
    with Watch() as forward:
        found = chunked(given, 0.6, entropy=entropy, chunk_tokens=4)
    with Watch() as backward:
        gradients(found, given)
    assert forward.most_logits == backward.most_logits == 4 * V
    with Watch() as watch:
        plain(given, 0.6, entropy=entropy)
    assert watch.most_logits == M * V


def kept(found: tuple[Tensor, Tensor | None]) -> list[Tensor]:
    node: Any = found[0].grad_fn
    return [x for x in node.saved_tensors if x is not None]


def test_two_numbers_a_token_are_kept_beside_the_inputs() -> None:
    given = inputs(F32)
    own = {x.data_ptr() for x in given.values()}
    found = chunked(given, 1.0, entropy=False, chunk_tokens=4)
    assert sum(x.numel() for x in kept(found) if x.data_ptr() not in own) == 2 * M
    with torch.no_grad():
        assert chunked(given, 1.0, entropy=False, chunk_tokens=4)[0].grad_fn is None


@pytest.mark.parametrize("frozen", ["hidden_MD", "weight_VD", "bias_V"])
def test_what_needs_no_gradient_costs_no_product(frozen: str) -> None:
    given = inputs(F32)
    want = gradients(plain(given, 1.0, entropy=True), given)
    given[frozen] = given[frozen].detach()
    found = chunked(given, 1.0, entropy=True, chunk_tokens=M)
    with Watch() as backward:
        got = gradients(found, given)
    assert set(got) == set(want) - {frozen}
    for name, gradient in got.items():
        assert_equal(gradient, want[name], 1e-6)
    assert len(backward.products) == (3 if frozen == "bias_V" else 2)


def test_zero_tokens_reach_every_weight() -> None:
    given = inputs(F32, tokens=0)
    seen = []
    given["weight_VD"].register_post_accumulate_grad_hook(lambda weight: seen.append(weight.grad))
    logp_M, entropy_M = chunked(given, 0.6, entropy=True, chunk_tokens=4)
    assert entropy_M is not None and logp_M.shape == entropy_M.shape == (0,)
    (logp_M.sum() + entropy_M.sum()).backward()
    assert len(seen) == 1 and (seen[0] == 0).all() and (given["bias_V"].grad == 0).all()


def test_a_tied_weight_gets_both_gradients_at_once() -> None:
    given = inputs(F64)
    weight_VD = given["weight_VD"]
    hooked: list[Tensor] = []
    weight_VD.register_post_accumulate_grad_hook(lambda weight: hooked.append(weight.grad))
    for compute in (
        lambda tied: plain(tied, 1.0, entropy=False),
        lambda tied: chunked(tied, 1.0, entropy=False, chunk_tokens=4),
    ):
        weight_VD.grad = None
        tied = given | {"hidden_MD": F.embedding(given["target_M"].flip(0), weight_VD).tanh()}
        compute(tied)[0].sum().backward()
    assert len(hooked) == 2
    assert_equal(hooked[1], hooked[0], 1e-12)


def test_autocast_narrows_products_only() -> None:
    given = inputs(F32, tokens=64)
    with torch.autocast("cpu", BF16), Watch() as forward:
        got = chunked(given, 0.6, entropy=True, chunk_tokens=10)
        want = plain(given, 0.6, entropy=True)
    assert got[0].dtype == F32 and set(forward.products) == {BF16}
    for got_M, want_M in zip(got, want, strict=True):
        assert_equal(got_M, want_M, 1e-6)  # the same narrow logits
    with Watch() as backward:
        got_gradients = gradients(got, given)
    assert set(backward.products) == {BF16}
    want_gradients = gradients(plain(given, 0.6, entropy=True), given)  # in fp32
    for name, want_gradient in want_gradients.items():
        assert got_gradients[name].dtype == F32
        assert_equal(got_gradients[name], want_gradient, 0.02)


def test_float64_stays_wide_under_autocast() -> None:
    given = inputs(F64)
    want = chunked(given, 0.6, entropy=True, chunk_tokens=4)
    with torch.autocast("cpu", BF16):
        got = chunked(given, 0.6, entropy=True, chunk_tokens=4)
    assert got[0].equal(want[0])


def test_chunks_are_summed_wide_where_products_are_narrow() -> None:
    # 512 equal tokens: a sum kept in bf16 would stand still once it is 256 times a summand
    tokens = 512
    given = {
        "hidden_MD": torch.ones(tokens, 1, dtype=BF16),
        "weight_VD": torch.zeros(2, 1, dtype=BF16, requires_grad=True),
        "bias_V": torch.zeros(2, dtype=BF16, requires_grad=True),
        "target_M": torch.zeros(tokens, dtype=torch.int64),
    }
    chunked(given, 1.0, entropy=False, chunk_tokens=1)[0].sum().backward()
    assert given["weight_VD"].grad.dtype == BF16
    assert given["weight_VD"].grad[:, 0].tolist() == [tokens / 2, -tokens / 2]
    assert given["bias_V"].grad.tolist() == [tokens / 2, -tokens / 2]


def test_a_narrow_gradient_is_added_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    given = inputs(BF16)
    want = gradients(chunked(given, 1.0, entropy=True, chunk_tokens=4), given)
    monkeypatch.setattr(vocabulary, "PRODUCT_ROWS", 10)
    got = gradients(chunked(given, 1.0, entropy=True, chunk_tokens=4), given)
    assert_close(got["weight_VD"], want["weight_VD"], rtol=0, atol=0)
