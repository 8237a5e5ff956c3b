"""Proof that what an evaluation measured was the policy: the engine's log-probs against it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from rlvr_zoo.api import Group, Rollout
from rlvr_zoo.config import RolloutConfig
from rlvr_zoo.errors import EngineError
from rlvr_zoo.evaluate.base import Ranks
from rlvr_zoo.rollout.base import Engine, Request, Sampling, sample_seed
from rlvr_zoo.rollout.gap import Gap, gap_of, refuse_other_policy

MIN_ROLLOUTS = 8
"""Rollouts that are looked at each time, by every rank."""
MAX_TOKENS = 64
"""Tokens of a rollout that are looked at: the first ones, which need no long forward pass."""
BLOCK = 4
"""Prompts in a row that are looked at, or as many as there are servers: they take turns."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The beginning of a completion, and the engine's log-probs of it."""

    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    logp: tuple[float, ...]


LogProbs = Callable[[Sequence[Probe], float], Sequence[Sequence[float]]]
"""Log-probs of every probe's tokens under the policy, at a temperature.  Called on every rank with
the same probes, and gives the same on every rank."""


class Proof:
    """Of one measurement; does nothing for an engine that runs the policy itself.

    Called before the measurement and after each part of it.  Weights that did not arrive, and
    weights that another process put in their place, stay there until the next sync: what is the
    policy at the end was the policy all along.
    """

    def __init__(
        self,
        policy_logp: LogProbs,
        config: RolloutConfig,
        dtype: torch.dtype,
        ranks: Ranks,
        engine: Engine,
        sampling: Sampling,
    ) -> None:
        """`dtype` is what `policy_logp` computes in."""
        self._policy_logp, self._config, self._dtype = policy_logp, config, dtype
        self._ranks, self._engine, self._sampling = ranks, engine, sampling
        self._wanted = engine.follows and not engine.exact
        self._sum, self._num_tokens = 0.0, 0

    @property
    def gap(self) -> float | None:
        """Mean over all tokens that were looked at, nats; None where none were."""
        return self._sum / self._num_tokens if self._num_tokens else None

    def check(self, requests: Sequence[Request], groups: Sequence[Group] = ()) -> None:
        """Lets the engine complete some of the prompts now, and looks at some rollouts of `groups`,
        which it has sampled for them.  Called on every rank.

        Raises SyncError, on every rank, where it samples another policy.
        """
        if not self._wanted:
            return
        probes = [*self._own(requests), *self._sampled(groups)]
        everyones = [probe for each in self._ranks.unshard([probes]) for probe in each]
        if not everyones:
            return
        policy_logp = self._policy_logp(everyones, self._sampling.temperature or 1.0)
        found = self._ranks.broadcast(_gap(everyones, policy_logp))
        refuse_other_policy(
            found, self._engine, self._config, self._dtype, "an evaluation's tokens"
        )
        self._sum += found.mean * found.num_tokens
        self._num_tokens += found.num_tokens

    def _own(self, requests: Sequence[Request]) -> list[Probe]:
        """Completions of the proof's own: without top-p, which log-probs may have in them."""
        prompts = self._spread([request.prompt_ids for request in requests])
        num_samples = -(-MIN_ROLLOUTS // max(1, len(prompts)))
        asked = [
            Request(
                prompt,
                tuple(sample_seed(0, "proof", 0, str(place), n) for n in range(num_samples)),
            )
            for place, prompt in enumerate(prompts)
        ]
        sampling = Sampling(
            temperature=self._sampling.temperature,
            max_completion_tokens=min(MAX_TOKENS, self._sampling.max_completion_tokens),
        )
        rollouts = self._engine.generate(asked, sampling)
        return [
            _probe(request.prompt_ids, rollout)
            for request, each in zip(asked, rollouts, strict=True)
            for rollout in each
        ]

    def _sampled(self, groups: Sequence[Group]) -> list[Probe]:
        if self._sampling.top_p < 1:
            return []
        first = {group.prompt_ids: group.rollouts[0] for group in reversed(groups)}
        prompts = self._spread([group.prompt_ids for group in groups])
        return [_probe(prompt, first[prompt]) for prompt in prompts]

    def _spread(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Some of the prompts, each once: in a row, so that all servers have one, at the beginning,
        in the middle and at the end."""
        each = list(dict.fromkeys(prompts))
        size = max(BLOCK, len(self._config.vllm.servers))
        if len(each) <= 3 * size:
            return each
        middle = (len(each) - size) // 2
        return each[:size] + each[middle : middle + size] + each[-size:]


Prove = Callable[[Engine, Sampling], Proof]
"""A proof for one measurement, from who measures."""


def _probe(prompt_ids: tuple[int, ...], rollout: Rollout) -> Probe:
    """Raises EngineError for a rollout without log-probs."""
    if len(rollout.logp) != len(rollout.ids):
        raise EngineError(
            f"the engine gave {len(rollout.logp)} log-probs for {len(rollout.ids)} tokens; without"
            " them nothing shows what it samples"
        )
    return Probe(prompt_ids, rollout.ids[:MAX_TOKENS], rollout.logp[:MAX_TOKENS])


def _gap(probes: Sequence[Probe], policy_logp: Sequence[Sequence[float]]) -> Gap:
    theirs_NT = pad_sequence([torch.tensor(probe.logp) for probe in probes], True)
    ours_NT = pad_sequence([torch.tensor(each) for each in policy_logp], True)
    mask_NT = pad_sequence([torch.ones(len(probe.ids)) for probe in probes], True)
    return gap_of(ours_NT, theirs_NT, mask_NT, torch.arange(len(probes)))


def of_model(lm: Any, ranks: Ranks) -> LogProbs:
    """Log-probs under a language model that every rank has, where it lies; ranks share the work."""

    @torch.no_grad()
    def one(probe: Probe, temperature: float) -> list[float]:
        ids = torch.tensor([[*probe.prompt_ids, *probe.ids]], device=lm.device)
        number = len(probe.ids)
        out = lm(input_ids=ids, use_cache=False, logits_to_keep=number + 1)
        logits_TV = out.logits[0, -number - 1 : -1].float() / temperature
        logp_T1 = logits_TV.log_softmax(-1).gather(-1, ids[0, -number:, None])
        found: list[float] = logp_T1[:, 0].tolist()
        return found

    def of(probes: Sequence[Probe], temperature: float) -> list[list[float]]:
        return ranks.unshard([one(probe, temperature) for probe in ranks.shard(probes)])

    return of
