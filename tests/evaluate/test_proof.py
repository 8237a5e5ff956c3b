"""What an evaluation measured was the policy: proven by log-probs, before and after each part."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.config import ModelConfig, RolloutConfig, VllmConfig
from rlvr_zoo.errors import EngineError, SyncError
from rlvr_zoo.evaluate.proof import MAX_TOKENS, MIN_ROLLOUTS, Probe, Proof, of_model
from rlvr_zoo.models.load import LoadedModel, PromptTemplate
from rlvr_zoo.rollout.base import Request, Sampling
from rlvr_zoo.rollout.transformers import TransformersEngine

from .conftest import Alone, Make, Sampler

SAMPLING = Sampling(temperature=0.7, max_completion_tokens=100)


class Servers:
    """Distinct prompts take turns on servers, each with log-probs that are `off` by so much."""

    exact = False
    follows = True

    def __init__(self, *off: float) -> None:
        self.off = list(off)
        self.asked: list[tuple[Request, Sampling]] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        self.asked += [(request, sampling) for request in requests]
        turn = {prompt: n for n, prompt in enumerate(dict.fromkeys(r.prompt_ids for r in requests))}
        return [
            [self._rollout(self.off[turn[r.prompt_ids] % len(self.off)], sampling) for _ in r.seeds]
            for r in requests
        ]

    def _rollout(self, off: float, sampling: Sampling) -> Rollout:
        number = min(sampling.max_completion_tokens, 80)
        return Rollout(ids=(3,) * number, logp=(-1.0 - off,) * number, text="", truncated=True)


class Policy:
    """Whose every token has log-prob -1; notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Sequence[Probe], float]] = []

    def __call__(self, probes: Sequence[Probe], temperature: float) -> list[list[float]]:
        self.asked.append((probes, temperature))
        return [[-1.0] * len(probe.ids) for probe in probes]


def proof(
    engine: Servers, policy: Policy, sampling: Sampling = SAMPLING, num_servers: int = 1
) -> Proof:
    vllm = VllmConfig(servers=["http://x"] * num_servers)
    config = RolloutConfig(engine="vllm", vllm=vllm)
    return Proof(policy, config, torch.float32, Alone(), engine, sampling)  # type: ignore[arg-type]


def requests(number: int) -> list[Request]:
    return [Request((7, n), (n, n + 1000)) for n in range(number)]


def groups(engine: Servers, asked: Sequence[Request]) -> list[Group]:
    sampled = engine.generate(asked, SAMPLING)
    return [
        Group(Problem("", "", ""), r.prompt_ids, tuple(each), (Verdict(True, "", "none"),) * 2)
        for r, each in zip(asked, sampled, strict=True)
    ]


def test_the_gap_is_over_own_samples_and_the_evaluations() -> None:
    engine, policy = Servers(0.0005), Policy()
    proven = proof(engine, policy)
    assert proven.gap is None
    asked = requests(30)
    proven.check(asked)
    engine.off = [0.0001]
    proven.check(asked, groups(engine, asked))
    ((before, temperature), (after, _)) = policy.asked
    assert temperature == 0.7 and len(before) >= MIN_ROLLOUTS and len(after) == 2 * len(before)
    assert {len(probe.ids) for probe in (*before, *after)} == {MAX_TOKENS}
    assert proven.gap == pytest.approx((0.0005 + 2 * 0.0001) / 3, rel=1e-2)
    assert len({probe.prompt_ids for probe in before}) == 12
    assert {n for probe in before for n in probe.prompt_ids[1:]} >= {0, 1, 2, 3, 26, 27, 28, 29}


def test_few_prompts_are_asked_more_often() -> None:
    policy = Policy()
    proof(Servers(0.0), policy).check(requests(3))
    assert len(policy.asked[0][0]) >= MIN_ROLLOUTS
    proof(Servers(0.0), policy).check([])  # a rank that has none
    assert len(policy.asked) == 1


def test_weights_that_are_not_there_are_seen_before_anything_is_measured() -> None:
    with pytest.raises(
        SyncError, match=r"an evaluation's tokens differ by 0\.002 nats in the mean"
    ):
        proof(Servers(0.002), Policy()).check(requests(30))
    with pytest.raises(SyncError, match="differ by nan"):
        proof(Servers(float("nan")), Policy()).check(requests(30))


@pytest.mark.parametrize("num_servers", [2, 3, 7, 16])
def test_one_stale_server_does_not_hide_among_others(num_servers: int) -> None:
    """Its 0.005 is, in the mean over two or more servers, below the limit or not: it is seen."""
    for stale in range(num_servers):
        off = [0.005 if n == stale else 0.0 for n in range(num_servers)]
        with pytest.raises(SyncError, match=r"0\.005 in the worst part"):
            proof(Servers(*off), Policy(), num_servers=num_servers).check(requests(100))


def test_under_top_p_only_samples_without_it_are_compared() -> None:
    engine, policy = Servers(0.0), Policy()
    nucleus = Sampling(temperature=0.7, top_p=0.9, max_completion_tokens=20)
    asked = requests(30)
    foreign = groups(Servers(0.1), asked)  # log-probs of what top-p leaves
    proof(engine, policy, nucleus).check(asked, foreign)
    assert {(s.temperature, s.top_p, s.max_completion_tokens) for _, s in engine.asked} == {
        (0.7, 1.0, 20)
    }


def test_greedy_log_probs_are_at_temperature_one() -> None:
    policy, greedy = Policy(), Sampling(temperature=0.0, max_completion_tokens=20)
    proof(Servers(0.0), policy, greedy).check(requests(9))
    assert policy.asked[0][1] == 1.0


def test_the_policy_itself_needs_no_proof() -> None:
    engine = Servers(9.0)
    engine.exact = True
    proven = proof(engine, Policy())
    proven.check(requests(9), groups(engine, requests(9)))
    assert proven.gap is None


def test_an_engine_without_log_probs_is_refused() -> None:
    engine = Servers(0.0)
    bare = Rollout(ids=(3, 4), logp=(), text="", truncated=True)
    engine._rollout = lambda off, sampling: bare  # type: ignore[method-assign]
    with pytest.raises(EngineError, match="0 log-probs for 2 tokens"):
        proof(engine, Policy()).check(requests(9))


class Swapped(Sampler):
    """Whose weights another process replaces after so many calls."""

    exact = False

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[list[Rollout]]:
        self.left -= 1
        off = 0.0 if self.left >= 0 else 0.2
        return [
            [Rollout(r.ids, tuple(p - off for p in r.logp), r.text, r.truncated) for r in group]
            for group in super().generate(requests, sampling)
        ]


def suite_proof(engine: Servers, sampling: Sampling) -> Proof:
    def policy(probes: Sequence[Probe], temperature: float) -> list[list[float]]:
        return [[0.0] * len(probe.ids) for probe in probes]

    return Proof(policy, RolloutConfig(), torch.float32, Alone(), engine, sampling)


def test_samples_of_swapped_weights_are_not_kept(evaluator: Make, tmp_path: Path) -> None:
    """Calls: a proof, then a chunk and a proof, four chunks of 24 samples."""
    whole = evaluator(Swapped(99), batch_tokens=100).measure(0, suite_proof)
    assert whole.logp_gap == 0 and whole.shown()["sums/logp_gap"] == 0
    (tmp_path / "samples/sums.jsonl").unlink()
    with pytest.raises(SyncError, match="in the mean"):
        evaluator(Swapped(4), batch_tokens=100).measure(0, suite_proof)
    kept = (tmp_path / "samples/sums.jsonl").read_text().splitlines()
    assert 0 < len(kept) < 24, "of the first chunk, not of the second"
    evaluator(Swapped(99), batch_tokens=100).measure(0, suite_proof)
    assert len((tmp_path / "samples/sums.jsonl").read_text().splitlines()) == 24
    assert all(json.loads(line) for line in kept)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_of_model_is_what_the_models_own_engine_says(
    random_model: LoadedModel, temperature: float
) -> None:
    template = PromptTemplate(ModelConfig(prompt="{problem}"), random_model.tokenizer)
    asked = [Request(template.ids(text), (1, 2)) for text in ("1+1=", "12+34=")]
    sampling = Sampling(temperature=temperature, max_completion_tokens=9)
    sampled = TransformersEngine(random_model, RolloutConfig()).generate(asked, sampling)
    probes = [
        Probe(r.prompt_ids, each.ids, each.logp)
        for r, group in zip(asked, sampled, strict=True)
        for each in group
    ]
    found = of_model(random_model.lm, Alone())(probes, temperature or 1.0)
    for probe, logp in zip(probes, found, strict=True):
        assert logp == pytest.approx(probe.logp, abs=1e-5)
