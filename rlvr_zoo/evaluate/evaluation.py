"""From a configuration and an output folder to the results of suites on a model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlvr_zoo import registry
from rlvr_zoo.config import EvalConfig
from rlvr_zoo.evaluate import suites
from rlvr_zoo.evaluate.base import Machine, Standing
from rlvr_zoo.evaluate.folder import EvalFolder, samples_folder
from rlvr_zoo.evaluate.proof import Proof, of_model
from rlvr_zoo.evaluate.suite import Bench, SuiteEvaluator
from rlvr_zoo.models import load as models
from rlvr_zoo.models.load import LoadedModel, PromptTemplate
from rlvr_zoo.rollout.base import batch_tokens
from rlvr_zoo.rollout.gap import engine_settings
from rlvr_zoo.track import provenance
from rlvr_zoo.track.record import EvaluationRecord

SCHEMA = 1
"""Version of results.json; raised whenever an older reader would misread it."""


class Observer(Protocol):
    """Watches an evaluation, for a person."""

    def progress(self, done: int, total: int, message: str) -> None:
        """A warm-up of the model, step by step."""

    def evaluating(self, standing: Standing) -> None:
        """A suite, chunk by chunk."""

    def evaluated(self, evaluation: EvaluationRecord) -> None: ...

    def warn(self, message: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Results:
    """What an evaluation found, and where it came from."""

    config: EvalConfig
    model_digest: str
    """Digest of the weights."""
    model_revision: str
    """The hub's commit that they came from; empty for a folder."""
    gpus: Sequence[str]
    seconds: float
    """Wall clock of this command; samples that were there already took none of it."""
    suites: Mapping[str, Mapping[str, Any]]
    """Version, digest and sampling of each suite."""
    sources: Mapping[str, Sequence[str]]
    """Where each suite's problems came from."""
    evaluations: Sequence[EvaluationRecord]

    def to_dict(self) -> dict[str, Any]:
        """As results.json has it."""
        return {
            "schema": SCHEMA,
            "config": asdict(self.config),
            "model_digest": self.model_digest,
            "model_revision": self.model_revision,
            "code": asdict(provenance.code()),
            "versions": provenance.versions(),
            "hardware": asdict(provenance.hardware(self.gpus)),
            "seconds": self.seconds,
            "suites": {
                evaluation.name: {
                    **self.suites[evaluation.name],
                    "sources": self.sources[evaluation.name],
                    **evaluation.to_dict(),
                }
                for evaluation in self.evaluations
            },
        }


def execute(config: EvalConfig, output: Path, machine: Machine, observer: Observer) -> Results:
    """Evaluates, or goes on evaluating, in the folder `output`; an interrupted call is repeated.

    Raises RlvrZooError for whatever a user can put right; samples made so far are kept.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        chosen = suites.chosen(config.suites)
        model = models.load(config.model, observer.progress)
        verifier = registry.load(registry.VERIFIERS, config.verify.name)(config.verify)
        engine = registry.load(registry.ROLLOUTS, config.rollout.engine)(
            model, config.rollout, machine.compute
        )
        stack.enter_context(closing(engine))
        if engine.exact:  # else it stays where it takes no room from the engine, for proofs
            nn.Module.to(model.lm, machine.device)
        engine.sync(lambda: _on_device(model.lm, machine.device), 0)
        prove = partial(Proof, of_model(model.lm, machine), config.rollout, torch.float32, machine)
        bench = Bench(
            engine=engine,
            verifier=stack.enter_context(verifier),
            template=PromptTemplate(config.model, model.tokenizer),
            max_context_tokens=model.max_context_tokens,
            batch_tokens=batch_tokens(engine),
            ranks=machine,
            seed=config.seed,
            progress=observer.evaluating,
            warn=observer.warn,
            should_stop=lambda: 0,  # Ctrl-C ends it at any time; what is kept is kept
        )
        evaluators = [
            SuiteEvaluator(
                suite,
                bench,
                config.suites.max_completion_tokens,
                lambda step: samples_folder(output),
            )
            for suite in chosen
        ]
        described = {each.name: each.described for each in evaluators}
        folder = None
        if machine.is_main:
            said = engine_settings(engine, config.rollout, machine.compute.dtype)
            version = getattr(engine, "description", "").partition(",")[0]  # not how many servers
            said |= {"version": version} if version else {}
            identity = _identity(config, model, described, said)
            folder = stack.enter_context(EvalFolder(output, identity))
        machine.wait()
        evaluations = []
        for evaluator in evaluators:
            evaluations.append(evaluator.measure(0, prove))
            observer.evaluated(evaluations[-1])
        results = Results(
            config=config,
            model_digest=model.digest,
            model_revision=model.revision,
            gpus=machine.gpu_names(),
            seconds=time.perf_counter() - start,
            suites=described,
            sources={
                each.name: sorted({problem.source for problem in each.suite.problems})
                for each in evaluators
            },
            evaluations=evaluations,
        )
        if folder is not None:
            folder.write_results(results.to_dict())
        return results


def _on_device(lm: nn.Module, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """The weights, one at a time where the model lies elsewhere."""
    return ((name, tensor.detach().to(device)) for name, tensor in lm.named_parameters())


def _identity(
    config: EvalConfig,
    model: LoadedModel,
    described: Mapping[str, Any],
    of_engine: Mapping[str, str],
) -> dict[str, Any]:
    """What decides a sample, so that samples of other settings are not taken for these."""
    of_model = {k: v for k, v in asdict(config.model).items() if k not in ("name", "path")}
    of_verify = {k: v for k, v in asdict(config.verify).items() if k != "num_workers"}
    versions = provenance.versions()
    judges = {name: versions[name] for name in ("rlvr-zoo", "math-verify")}
    return {
        "model": {**of_model, "digest": model.digest, "eos_ids": sorted(model.eos_ids)},
        "verify": {**of_verify, **judges},
        "engine": config.rollout.engine,
        **{f"engine_{key}": value for key, value in of_engine.items()},
        "precision": config.precision,
        "seed": config.seed,
        "suites": {
            name: {k: v for k, v in each.items() if k not in ("num_samples", "num_problems")}
            for name, each in described.items()
        },
    }
