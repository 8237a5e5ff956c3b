"""A suite's score of the policy as it is now: sampled, judged, kept, and scored by lm-eval."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_zoo.api import Problem
from rlvr_zoo.errors import PluginError
from rlvr_zoo.evaluate import estimators
from rlvr_zoo.evaluate.base import Progress, Ranks, Standing
from rlvr_zoo.evaluate.intervals import estimates, rerun_sd
from rlvr_zoo.evaluate.proof import Proof, Prove
from rlvr_zoo.evaluate.response import Response
from rlvr_zoo.evaluate.samples import Found, SampleStore
from rlvr_zoo.evaluate.suites import Suite, fit
from rlvr_zoo.launch.signals import interruption
from rlvr_zoo.models.load import PromptTemplate
from rlvr_zoo.rollout.base import Engine, Request, sample_seed
from rlvr_zoo.rollout.groups import judged_groups
from rlvr_zoo.track.folder import samples_of
from rlvr_zoo.track.reader import Sample
from rlvr_zoo.track.record import EvaluationRecord
from rlvr_zoo.verify.base import Verifier

CHUNK_ROWS = 4096
"""Samples that are lost at most when an evaluation is interrupted, of an engine that takes all."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """What suites are measured with: the parts that training has, too."""

    engine: Engine
    verifier: Verifier
    template: PromptTemplate
    max_context_tokens: int
    batch_tokens: int | None
    """Cache positions that one engine takes at once; None: it manages its cache by itself."""
    ranks: Ranks
    seed: int
    progress: Progress
    warn: Callable[[str], None]
    should_stop: Callable[[], int]
    """Asked after every chunk; a signal's number ends the evaluation, whose samples are kept."""


@dataclass(frozen=True)
class _Work:
    """Some samples of one problem, by number."""

    problem: Problem
    first: int
    request: Request


class SuiteEvaluator:
    """Measures the policy on a suite, with the same seeds every time."""

    every = 0

    def __init__(
        self,
        suite: Suite,
        bench: Bench,
        max_completion_tokens: int,
        folder: Callable[[int], Path],
    ) -> None:
        """`folder` says where the samples of a step are kept.

        Raises ProblemsError for a prompt that does not fit, ConfigError where the completions that
        were asked for (`max_completion_tokens`, unless 0) leave it no room.
        """
        self.name, self._bench, self._folder = suite.name, bench, folder
        self._prompts = {p.id: bench.template.ids(p.prompt) for p in suite.problems}
        if bench.template.user(suite.problems[0].prompt) != suite.first_prompt:
            bench.warn(
                f"{suite.name}: asked by the model's own prompt (model.prompt), as in training, and"
                " not by the suite's, which plain lm-eval takes"
            )
        lengths = {problem: len(ids) for problem, ids in self._prompts.items()}
        self.suite = fit(
            suite, lengths, bench.max_context_tokens, max_completion_tokens, bench.warn
        )

    @property
    def engine(self) -> Engine:
        """What samples."""
        return self._bench.engine

    def measure(self, step: int, prove: Prove) -> EvaluationRecord:
        """Every metric of the suite with its interval; samples that are kept are not made again.

        Raises SyncError where another policy was measured, whose samples are not kept.
        """
        from rlvr_zoo.evaluate.lm_eval import score_task

        suite = self.suite
        proof = prove(self.engine, suite.sampling)
        samples: dict[str, list[Sample]] = {}

        def respond(numbers: Sequence[int]) -> list[list[str]]:
            problems = [suite.problems[number] for number in numbers]
            samples.update(self._samples(step, problems, proof))
            return [[Response(sample) for sample in samples[p.id]] for p in problems]

        scores = score_task(suite.name, suite.task, len(suite.problems), respond)
        return replace(_record(step, suite, scores, samples), logp_gap=proof.gap)

    def _samples(
        self, step: int, problems: Sequence[Problem], proof: Proof
    ) -> dict[str, list[Sample]]:
        """All samples of the problems, by problem id: kept ones, and the rest made and kept."""
        bench, num_samples = self._bench, self.suite.num_samples
        store = SampleStore(self._folder(step) / f"{self.name}.jsonl")
        wanted = [(problem.id, number) for problem in problems for number in range(num_samples)]
        kept = bench.ranks.broadcast(store.read() if bench.ranks.is_main else {})
        found = {place: kept[place] for place in wanted if place in kept}
        bench.progress(self._standing(found, len(problems)))
        for number, chunk in enumerate(self._chunks(problems, found)):
            mine = bench.ranks.shard(chunk)
            requests = [work.request for work in mine]
            if number == 0:  # before the others, it was looked at after the one before
                proof.check(requests)
            judged = judged_groups(
                [work.problem for work in mine],
                requests,
                bench.engine,
                self.suite.sampling,
                bench.verifier,
            )
            proof.check(requests, judged.groups)
            shares = [
                samples_of(step, group, work.first)
                for work, group in zip(mine, judged.groups, strict=True)
            ]
            made = [sample for share in bench.ranks.unshard(shares) for sample in share]
            if bench.ranks.is_main:
                store.append(made)
            found |= {(sample.problem, sample.sample): sample for sample in made}
            bench.progress(self._standing(found, len(problems)))
            if stopping := max(bench.ranks.unshard([bench.should_stop()])):
                raise interruption(stopping)
        return {p.id: [found[p.id, number] for number in range(num_samples)] for p in problems}

    def _standing(self, found: Found, num_problems: int) -> Standing:
        samples = Counter(problem for problem, _ in found)
        return Standing(
            name=self.name,
            num_samples=len(found),
            num_samples_wanted=num_problems * self.suite.num_samples,
            num_problems=sum(number == self.suite.num_samples for number in samples.values()),
            num_problems_wanted=num_problems,
            accuracy=sum(sample.correct for sample in found.values()) / max(len(found), 1),
        )

    def _chunks(self, problems: Sequence[Problem], found: Found) -> Iterator[list[_Work]]:
        """Work that the engines of all ranks take at once; at least one piece for each."""
        world_size, limit = self._bench.ranks.world_size, self.suite.sampling.max_completion_tokens
        chunk: list[_Work] = []
        rows, width = 0, 0
        for work in self._work(problems, found):
            size, length = len(work.request.seeds), len(work.request.prompt_ids)
            full = self._too_many(rows + size, max(width, length) + limit, world_size)
            if full and len(chunk) >= world_size:
                yield chunk
                chunk, rows, width = [], 0, 0
            chunk.append(work)
            rows, width = rows + size, max(width, length)
        if chunk:
            yield chunk

    def _too_many(self, rows: int, positions: int, world_size: int) -> bool:
        """More rows of so many positions than the engines of all ranks should get at once."""
        if self._bench.batch_tokens is None:
            return rows > CHUNK_ROWS * world_size
        return rows * positions > self._bench.batch_tokens * world_size

    def _work(self, problems: Sequence[Problem], found: Found) -> Iterator[_Work]:
        """What is still to be sampled, in pieces that one engine can hold; short prompts first, so
        that those sampled together need little padding."""
        for problem in sorted(problems, key=lambda problem: len(self._prompts[problem.id])):
            prompt = self._prompts[problem.id]
            length = len(prompt) + self.suite.sampling.max_completion_tokens
            most = max(1, (self._bench.batch_tokens or CHUNK_ROWS * length) // length)
            numbers = range(self.suite.num_samples)
            for run in _runs([n for n in numbers if (problem.id, n) not in found], most):
                seeds = tuple(
                    sample_seed(self._bench.seed, f"suite/{self.name}", 0, problem.id, number)
                    for number in run
                )
                yield _Work(problem, run[0], Request(prompt, seeds))

    @property
    def described(self) -> dict[str, Any]:
        """What decides its samples: content, sampling, and the prompts as tokens."""
        suite = self.suite
        prompts = json.dumps([self._prompts[problem.id] for problem in suite.problems])
        return {
            "version": suite.version,
            "digest": suite.digest,
            "prompts_digest": hashlib.sha256(prompts.encode()).hexdigest()[:16],
            "num_problems": len(suite.problems),
            "num_samples": suite.num_samples,
            "sampling": asdict(suite.sampling),
        }


def _runs(numbers: Sequence[int], most: int) -> Iterator[list[int]]:
    """Consecutive numbers together, at most so many."""
    run: list[int] = []
    for number in numbers:
        if run and (number != run[-1] + 1 or len(run) == most):
            yield run
            run = []
        run.append(number)
    if run:
        yield run


def _record(
    step: int,
    suite: Suite,
    scores: Sequence[Mapping[str, float]],
    samples: Mapping[str, Sequence[Sample]],
) -> EvaluationRecord:
    names = list(scores[0])
    if estimators.ACCURACY not in names:
        raise PluginError(
            f"suite {suite.name!r}: its process_results gives no {estimators.ACCURACY!r};"
            " return rlvr_zoo.evaluate.response.score's metrics"
        )
    values_MP = np.array([[score[name] for score in scores] for name in names], dtype=np.float64)
    found = dict(zip(names, estimates(values_MP), strict=True))
    accuracy = found.pop(estimators.ACCURACY)
    outcomes = {
        problem: tuple(int(sample.correct) for sample in each) for problem, each in samples.items()
    }
    return EvaluationRecord(
        step=step,
        name=suite.name,
        accuracy=accuracy.value,
        low=accuracy.low,
        high=accuracy.high,
        num_problems=len(scores),
        num_samples=suite.num_samples,
        metrics=found,
        rerun_sd=rerun_sd(list(outcomes.values())),
        outcomes=outcomes,
    )
