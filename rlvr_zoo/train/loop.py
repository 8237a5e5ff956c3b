"""The run: problems -> groups -> verdicts -> batch -> targets -> loss -> metrics -> record."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from signal import Signals
from typing import Protocol

import torch
from torch import Tensor

from rlvr_zoo.api import Targets
from rlvr_zoo.config import RunConfig, TrainConfig
from rlvr_zoo.errors import DivergedError, StorageError
from rlvr_zoo.evaluate.base import Evaluator
from rlvr_zoo.evaluate.proof import Probe, Proof
from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.rollout.base import Engine, Sampling
from rlvr_zoo.track.folder import RunFolder, samples_of
from rlvr_zoo.track.record import EvaluationRecord, RunRecord, Status
from rlvr_zoo.track.storage import storage
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.checkpoint import State
from rlvr_zoo.train.collect import Collected, Collector
from rlvr_zoo.train.learner import Learner, StepReport
from rlvr_zoo.train.mismatch import DTYPES, logp_of, mismatch
from rlvr_zoo.train.rows import Rows, rows_of

BAD_BATCH = "bad-batch.pt"
"""In the run's folder: the rows and targets of the optimizer step at which training stopped."""


class Observer(Protocol):
    """Watches a run, for a person."""

    def step(self, step: int, metrics: dict[str, float]) -> None: ...

    def evaluated(self, evaluation: EvaluationRecord) -> None: ...


@dataclass
class Run:
    """The parts of one run, ready to go."""

    config: RunConfig
    folder: RunFolder | None
    """None on the ranks that write nothing."""
    record: RunRecord
    model: LoadedModel
    engine: Engine
    collector: Collector
    evaluators: Sequence[Evaluator]
    learner: Learner
    backend: Backend
    observer: Observer
    should_stop: Callable[[], int]
    """Asked after every step; a signal's number saves a checkpoint and ends the run as interrupted,
    whichever rank it came to."""

    def train(self, state: State) -> RunRecord:
        """Trains from `state` to the last step, or until stopped; returns the final record.

        Raises StorageError where the disk refuses, DivergedError where training cannot go on.
        """
        self._began, self._spent = time.perf_counter(), self.record.costs
        self._evaluate(state)
        while not self._ends(state):
            state = self._step(state)
            last = self._ends(state)
            stopping = max(self.backend.gather(self.should_stop()))
            if last or stopping or _due(state.step, self.config.checkpoint.every):
                self._save(state)
            if stopping and not last:
                return self._finish("interrupted", Signals(stopping).name)
            self._evaluate(state)  # what is left undone here, a resumed run begins with
        return self._finish("finished")

    def _ends(self, state: State) -> bool:
        return is_done(self.config.train, state)

    # ----------------------------------------------------------------- one step

    def _step(self, state: State) -> State:
        start = time.perf_counter()
        self._sync(self.engine)
        collected = self.collector.collect(state.step, state.position)
        self.engine.rest()
        rows = rows_of(
            collected.groups,
            collected.seeds,
            self.config.rollout.max_completion_tokens,
            self.backend.device,
        )
        middle = time.perf_counter()
        untrained = self.config.train.control == "untrained"
        metrics, trained_tokens = ({}, 0) if untrained else self._update(rows)
        end = time.perf_counter()
        metrics |= describe(collected) | {
            "time/sync_s": self._sync_s,
            "time/rollout_s": collected.rollout_s,
            "time/verify_s": collected.verify_s,
            "time/update_s": end - middle,
            "time/step_s": end - start,
        }
        state = State(
            step=state.step + 1,
            position=collected.position,
            generated_tokens=state.generated_tokens + collected.generated_tokens,
            optimizer_steps=self.learner.num_optimizer_steps,
            bad_steps=self.learner.num_bad_steps,
        )
        self._spend(
            generated_tokens=collected.generated_tokens,
            trained_tokens=trained_tokens,
            rollout_s=collected.rollout_s,
            verify_s=collected.verify_s,
            update_s=end - middle,
        )
        self._write_step(state.step, collected, metrics)
        return state

    def _update(self, rows: Rows) -> tuple[dict[str, float], int]:
        """All optimizer steps on one rollout batch; metrics are their mean."""
        train = self.config.train
        rows, old_logp_NT, mismatched = self._corrected(rows)
        targets = self.learner.prepare(rows, old_logp_NT)
        group_N = rows.batch.group_N
        reports: list[StepReport] = []
        for _ in range(train.epochs):
            for groups in torch.unique(group_N).tensor_split(train.minibatches):
                index = torch.isin(group_N, groups).nonzero()[:, 0]
                reports.append(self._optimize(rows, targets, index))
        names = {name for report in reports for name in report.metrics}
        metrics = dict(targets.metrics) | mismatched
        for name in sorted(names):
            values = [report.metrics[name] for report in reports if name in report.metrics]
            metrics[name] = sum(values) / len(values)
        metrics["train/micro_batch_tokens"] = float(self.learner.micro_batch_tokens)
        return metrics, sum(report.trained_tokens for report in reports)

    def _optimize(self, rows: Rows, targets: Targets, index: Tensor) -> StepReport:
        """One optimizer step; a batch that ends the run is kept to be looked at."""
        try:
            return self.learner.step(rows, targets, index)
        except DivergedError as error:  # on every rank alike
            kept = ""
            if self.folder is not None:
                path = self.folder.path / BAD_BATCH
                with storage(path):
                    torch.save(asdict(rows) | {"targets": dict(targets.rows), "index": index}, path)
                kept = f"; the batch is in {path}"
            raise DivergedError(f"{error}{self.backend.broadcast(kept)}") from error

    @property
    def _samples_exactly(self) -> bool:
        """True where the rows' log-probs serve as they are; nobody asks for those of solutions."""
        if self.config.train.control == "supervised":
            return True
        return self.engine.exact and self.config.train.precision == "fp32"

    @property
    def old_logp_source(self) -> str:
        """Where the log-probs of a batch before its update come from, for a person."""
        if self._samples_exactly:
            return (
                "the sampler's, as it computes what the trainer does; no forward pass of their own"
            )
        return "computed anew at every step, and compared with the sampler's"

    def _corrected(self, rows: Rows) -> tuple[Rows, Tensor, dict[str, float]]:
        """The rows with their tokens' weights, their log-probs under the policy, and the gap to
        the sampler's where that is another computation.  Raises SyncError."""
        if self._samples_exactly:
            return rows, rows.sampler_logp_NT, {}
        old_logp_NT = self.learner.old_logp(rows)
        found = mismatch(
            old_logp_NT,
            rows.sampler_logp_NT,
            rows.batch.mask_NT,
            rows.batch.group_N,
            self.engine,
            self.config,
        )
        weighted = replace(rows, importance_NT=found.importance_NT)
        return weighted, old_logp_NT, found.metrics

    def _sync(self, engine: Engine) -> None:
        """The engine samples the policy as it is now."""
        start = time.perf_counter()
        engine.sync(self.learner.weights, self.learner.num_optimizer_steps)
        self._sync_s = time.perf_counter() - start

    def _write_step(self, step: int, collected: Collected, metrics: dict[str, float]) -> None:
        if self.folder is not None:
            self.folder.append_metrics(step, metrics)
            samples = [sample for group in collected.groups for sample in samples_of(step, group)]
            self.folder.append_samples(samples[: self.config.track.num_samples])
            if self.config.track.rollouts:
                self.folder.append_rollouts(step, collected.sampled)
        self.observer.step(step, metrics)

    # ----------------------------------------------------------------- evaluation and record

    def _evaluate(self, state: State) -> None:
        """Every evaluation that is due at this step and not made yet."""
        step = state.step
        done = {(each.step, each.name) for each in self.record.evaluations}
        for evaluator in self.evaluators:
            at_an_end = step == 0 or self._ends(state)
            if (at_an_end or _due(step, evaluator.every)) and (step, evaluator.name) not in done:
                self._measure(evaluator, step)

    def _measure(self, evaluator: Evaluator, step: int) -> None:
        start = time.perf_counter()
        self._sync(evaluator.engine)
        try:
            evaluation = evaluator.measure(step, self._prove)
        finally:  # an interrupted evaluation has cost its time, too
            self._spend(evaluate_s=time.perf_counter() - start)
        self.record = replace(
            self.record, steps_done=step, evaluations=(*self.record.evaluations, evaluation)
        )
        if self.folder is not None:
            self.folder.append_evaluation(evaluation)
            self.folder.append_metrics(step, evaluation.shown(self.config.suites.pass_at))
            self.folder.write_record(self.record)
        self.observer.evaluated(evaluation)

    def _prove(self, engine: Engine, sampling: Sampling) -> Proof:
        """Compares what the engine samples in an evaluation with the policy as it is now."""
        return Proof(
            self._policy_logp,
            self.config.rollout,
            DTYPES[self.config.train.precision],
            self.backend,
            engine,
            sampling,
        )

    def _policy_logp(self, probes: Sequence[Probe], temperature: float) -> list[list[float]]:
        with self.backend.autocast():
            return logp_of(self.learner.policy, probes, temperature)

    def _spend(self, **costs: float) -> None:
        now = self.record.costs
        total_s = self._spent.total_s + time.perf_counter() - self._began
        added = {name: getattr(now, name) + value for name, value in costs.items()}
        peak = max(now.peak_memory_bytes, peak_memory_bytes())
        self.record = replace(
            self.record, costs=replace(now, total_s=total_s, peak_memory_bytes=peak, **added)
        )

    def _save(self, state: State) -> None:
        self.record = replace(self.record, steps_done=state.step)
        parts = checkpoint.snapshot(self.learner, self.backend.is_main)
        refused: StorageError | None = None
        if self.folder is not None:
            try:
                self.folder.write_record(self.record)
                checkpoint.save(
                    self.folder.checkpoints,
                    self.learner,
                    parts,
                    self.model.tokenizer,
                    state,
                    self.config.checkpoint.keep,
                )
            except StorageError as error:
                refused = error
        if said := self.backend.broadcast(refused and str(refused)):
            raise StorageError(said) from refused

    def _finish(self, status: Status, error: str = "") -> RunRecord:
        self._spend()
        self.record = replace(self.record, status=status, error=error)
        if self.folder is not None:
            self.folder.write_record(self.record)
        return self.record


def is_done(config: TrainConfig, state: State) -> bool:
    """True after the last step."""
    spent = 0 < config.max_generated_tokens <= state.generated_tokens
    return spent or state.step >= config.max_steps


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def describe(collected: Collected) -> dict[str, float]:
    """Metrics of a rollout batch; docs/metrics.md has their formulas."""
    groups = collected.groups
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    verdicts = [verdict for group in groups for verdict in group.verdicts]
    rewards = [reward for group in groups for reward in group.rewards]
    number = len(rollouts)
    tokens = sum(len(rollout.ids) for rollout in rollouts)
    return {
        "reward/mean": sum(rewards) / number,
        "reward/groups_all_right": sum(min(g.rewards) > 0 for g in groups) / len(groups),
        "reward/groups_all_wrong": sum(max(g.rewards) == 0 for g in groups) / len(groups),
        "rollout/tokens_mean": tokens / number,
        "rollout/entropy": -sum(sum(rollout.logp) for rollout in rollouts) / tokens,
        "rollout/truncated": sum(rollout.truncated for rollout in rollouts) / number,
        "rollout/generated_tokens": float(collected.generated_tokens),
        "rollout/groups_refused": float(collected.num_refused),
        "verify/no_answer": sum(verdict.method == "none" for verdict in verdicts) / number,
        "verify/failed": sum(bool(verdict.problem) for verdict in verdicts) / number,
    }


def peak_memory_bytes() -> int:
    """The most memory that the device held so far; on CPU, the process's resident set."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
