"""The transformers engine: what it samples, and that only seeds decide it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Compute, Request, Sampling
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.train.network import Network

SAMPLING = Sampling(temperature=1.0, max_completion_tokens=12)
SHORT, LONG = (30, 31, 32), (40, 41, 42, 43, 44, 45)


def engine(model: LoadedModel, **settings: Any) -> TransformersEngine:
    return TransformersEngine(model, RolloutConfig(**settings))


@pytest.fixture
def model_that_stops(model: LoadedModel) -> LoadedModel:
    """Ends a completion often enough that rows of a batch end at different times."""
    eos = next(iter(model.eos_ids))
    forward = model.lm.get_output_embeddings().forward

    def eager(hidden: torch.Tensor) -> torch.Tensor:
        logits = forward(hidden).clone()
        logits[..., eos] += 4.0
        return logits

    model.lm.get_output_embeddings().forward = eager
    return model


def test_sampling_log_probs_are_those_of_the_trainer(model_that_stops: LoadedModel) -> None:
    model = model_that_stops
    requests = [Request(SHORT, (1, 2, 3)), Request(LONG, (4, 5, 6))]
    sampling = Sampling(temperature=0.7, max_completion_tokens=12)
    for request, rollouts in zip(requests, engine(model).generate(requests, sampling), strict=True):
        for rollout in rollouts:
            ids = torch.tensor([[*request.prompt_ids, *rollout.ids]])
            with torch.no_grad():
                out = Network(model.lm)(
                    ids,
                    torch.tensor([len(request.prompt_ids)]),
                    torch.ones(1, len(rollout.ids)),
                    ["logp"],
                    0.7,
                )
            want = out["logp"][0]
            torch.testing.assert_close(torch.tensor(rollout.logp), want, rtol=0, atol=2e-5)


def test_a_rollout_depends_on_its_seed_alone(model_that_stops: LoadedModel) -> None:
    """Not on other prompts, the padding they bring, the rows that end, or the split."""
    requests = [Request(SHORT, tuple(range(8))), Request(LONG, tuple(range(8, 16)))]
    together = engine(model_that_stops).generate(requests, SAMPLING)
    split = engine(model_that_stops, batch_tokens=1).generate(requests, SAMPLING)
    turned = engine(model_that_stops).generate(requests[::-1], SAMPLING)[::-1]
    one = [
        [
            engine(model_that_stops).generate([Request(r.prompt_ids, (seed,))], SAMPLING)[0][0]
            for seed in r.seeds
        ]
        for r in requests
    ]
    ids = [[rollout.ids for rollout in rollouts] for rollouts in together]
    for other in (split, turned, one):
        assert [[rollout.ids for rollout in rollouts] for rollouts in other] == ids
    lengths = {len(each) for rollouts in ids for each in rollouts}
    assert len(lengths) > 2, "the rows should end at different times for this test to tell"


def test_equal_seeds_equal_rollouts_and_others_differ(model: LoadedModel) -> None:
    first, again, other = engine(model).generate([Request(SHORT, (7, 7, 8))], SAMPLING)[0]
    assert first == again
    assert first.ids != other.ids


def test_a_completion_ends_at_its_end_token_or_at_the_limit(model_that_stops: LoadedModel) -> None:
    eos = model_that_stops.eos_ids
    rollouts = engine(model_that_stops).generate([Request(SHORT, tuple(range(32)))], SAMPLING)[0]
    assert {rollout.truncated for rollout in rollouts} == {True, False}
    for rollout in rollouts:
        assert not eos & set(rollout.ids[:-1])
        assert rollout.truncated == (rollout.ids[-1] not in eos)
        assert len(rollout.logp) == len(rollout.ids) <= 12
        assert rollout.truncated <= (len(rollout.ids) == 12)


def test_greedy_takes_the_likeliest_token(model: LoadedModel) -> None:
    rollout = engine(model).generate(
        [Request(SHORT, (0,))], Sampling(temperature=0.0, max_completion_tokens=3)
    )[0][0]
    ids = list(SHORT)
    for token in rollout.ids:
        with torch.no_grad():
            assert int(model.lm(torch.tensor([ids])).logits[0, -1].argmax()) == token
        ids.append(token)


def test_ended_rows_stop_costing(model_that_stops: LoadedModel) -> None:
    """The rows that the model computes shrink as completions end."""
    rows: list[int] = []
    forward: Callable[..., Any] = model_that_stops.lm.forward

    def counted(*args: Any, **kwargs: Any) -> Any:
        rows.append(len(kwargs["input_ids"]))
        return forward(*args, **kwargs)

    model_that_stops.lm.forward = counted
    engine(model_that_stops).generate([Request(SHORT, tuple(range(32)))], SAMPLING)
    assert rows[0] == 1, "the group's prompt is computed once"
    assert rows[1] <= 32 and rows[-1] <= 0.75 * rows[1]


def test_a_copy_in_bf16_keeps_its_rotary_frequencies_and_claims_no_exactness(
    model: LoadedModel,
) -> None:
    """In bf16 they turn tokens thousands of places on by whole degrees: another policy."""
    compute = Compute(dtype=torch.bfloat16, is_sharded=True)
    engine = TransformersEngine(model, RolloutConfig(), compute)
    copied = engine._lm
    assert copied is not model.lm and not engine.exact and engine.follows
    assert {p.dtype for p in copied.parameters()} == {torch.bfloat16}
    for name, buffer in model.lm.named_buffers():
        assert torch.equal(copied.get_buffer(name), buffer), name
    assert TransformersEngine(model, RolloutConfig(), replace(compute, dtype=torch.float32)).exact
    assert {p.dtype for p in model.lm.parameters()} == {torch.float32}
