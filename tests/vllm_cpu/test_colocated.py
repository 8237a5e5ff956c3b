"""vLLM in the trainer's process: what it samples, from which weights, and what shows when wrong."""

from typing import Any

import pytest

from rlvr_zoo.errors import ConfigError, EngineError
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Request
from rlvr_zoo.rollout.transformers import TransformersEngine
from tests.vllm_cpu.conftest import settings
from tests.vllm_cpu.measure import ROUNDING, change, gap, ids_of, requests, sampling, weights_of


def test_greedy_completions_are_those_of_transformers(colocated: Any, model: LoadedModel) -> None:
    colocated.sync(weights_of(model), 0)
    asked = requests(model, number=24, samples=1)
    ours = TransformersEngine(model, settings()).generate(asked, sampling(0.0))
    theirs = colocated.generate(asked, sampling(0.0))
    assert ids_of(theirs) == ids_of(ours)
    for group, other in zip(theirs, ours, strict=True):
        for rollout, want in zip(group, other, strict=True):
            assert (rollout.text, rollout.truncated) == (want.text, want.truncated)
            assert rollout.logp == pytest.approx(want.logp, abs=ROUNDING)  # both at temperature 1


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.3])
def test_log_probs_are_the_trainers_at_the_temperature(
    colocated: Any, model: LoadedModel, temperature: float
) -> None:
    colocated.sync(weights_of(model), 0)
    assert gap(colocated, model, requests(model), temperature) < ROUNDING


def test_a_seed_decides_a_sample(colocated: Any, model: LoadedModel) -> None:
    colocated.sync(weights_of(model), 0)
    prompt = requests(model)[0].prompt_ids
    first = colocated.generate([Request(prompt, (7, 7, 8, 2**63 - 1))], sampling(1.0))[0]
    again = colocated.generate([Request(prompt, (8, 7)), *requests(model)], sampling(1.0))[0]
    assert first[0].ids == first[1].ids == again[1].ids
    assert first[2].ids == again[0].ids
    many = colocated.generate([Request(prompt, tuple(range(32)))], sampling(2.0))[0]
    assert len({rollout.ids for rollout in many}) > 16


def test_a_temperature_that_vllm_refuses_is_refused_in_time(
    colocated: Any, model: LoadedModel
) -> None:
    with pytest.raises(ConfigError, match=r"temperature 2\.5: vLLM takes 2\.0 at most"):
        colocated.generate(requests(model), sampling(2.5))


def test_a_completion_ends_at_its_end_token_or_at_the_limit(
    colocated: Any, model: LoadedModel
) -> None:
    colocated.sync(weights_of(model), 0)
    asked = requests(model)
    lengths = {len(r.ids) for group in colocated.generate(asked, sampling(1.0)) for r in group}
    limit = sorted(lengths)[len(lengths) // 2]  # some end before it, at it, and are cut by it
    cut = set()
    for group in colocated.generate(asked, sampling(1.0, limit)):
        for rollout in group:
            assert not model.eos_ids & set(rollout.ids[:-1])
            assert rollout.truncated == (rollout.ids[-1] not in model.eos_ids)
            assert len(rollout.logp) == len(rollout.ids) <= limit
            assert rollout.truncated <= (len(rollout.ids) == limit)
            cut.add(rollout.truncated)
    assert cut == {True, False}


def test_new_weights_are_sampled_from(colocated: Any, model: LoadedModel) -> None:
    asked = requests(model)
    colocated.sync(weights_of(model), 0)
    change(model)
    assert gap(colocated, model, asked) > 0.1, "the engine should keep a copy of its own"
    colocated.sync(weights_of(model), 1)
    assert gap(colocated, model, asked) < ROUNDING


@pytest.mark.parametrize(
    "left_out", ["model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"]
)
def test_one_weight_that_is_not_sent_is_an_error(
    colocated: Any, model: LoadedModel, left_out: str
) -> None:
    colocated.sync(weights_of(model), 0)
    change(model)
    with pytest.raises(EngineError, match=f"not given all of its model's weights.*{left_out}"):
        colocated.sync(lambda: [pair for pair in weights_of(model)() if pair[0] != left_out], 1)


def test_a_sync_that_does_nothing_shows(
    colocated: Any, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    colocated.sync(weights_of(model), 0)
    change(model)
    monkeypatch.setattr(colocated._host._llm, "collective_rpc", lambda *args, **kwargs: None)
    colocated.sync(weights_of(model), 1)
    assert gap(colocated, model, requests(model)) > 0.1


def test_the_prefix_cache_forgets_old_weights(
    colocated: Any, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a prompt of several cache blocks, which are 128 tokens on CPU; and it would show."""
    asked = [Request(requests(model)[0].prompt_ids * 100, (1, 2))]
    colocated.sync(weights_of(model), 0)
    assert gap(colocated, model, asked) < ROUNDING
    change(model)
    colocated.sync(weights_of(model), 1)
    assert gap(colocated, model, asked) < ROUNDING
    change(model)
    monkeypatch.setattr(colocated._host._llm, "reset_prefix_cache", lambda: True)
    colocated.sync(weights_of(model), 2)
    assert gap(colocated, model, asked) > 10 * ROUNDING


def test_a_groups_prompt_is_computed_once(
    colocated: Any, model: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    colocated.sync(weights_of(model), 0)
    generate = colocated._host._llm.generate
    outputs: list[Any] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        outputs.extend(generate(*args, **kwargs))
        return outputs

    monkeypatch.setattr(colocated._host._llm, "generate", noted)
    prompt = requests(model)[0].prompt_ids * 100
    colocated.generate([Request(prompt, (1, 2, 3, 4))], sampling(1.0))
    cached = [output.num_cached_tokens for output in outputs]
    assert cached[0] == 0 and min(cached[1:]) > len(prompt) - 129
