"""From a configuration and an output folder to a run that is ready, and what becomes of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from rlvr_zoo import problems, registry
from rlvr_zoo.api import Algorithm
from rlvr_zoo.checks import build
from rlvr_zoo.config import RunConfig
from rlvr_zoo.errors import (
    DeviceMemoryError,
    RankError,
    RlvrZooError,
    RunFolderError,
    first_line,
)
from rlvr_zoo.evaluate import suites
from rlvr_zoo.evaluate.base import Standing
from rlvr_zoo.evaluate.held_out import HeldOut
from rlvr_zoo.evaluate.suite import Bench, SuiteEvaluator
from rlvr_zoo.evaluate.suites import Suite
from rlvr_zoo.launch import report
from rlvr_zoo.launch.signals import signal_of, stop_requests
from rlvr_zoo.models import load as models
from rlvr_zoo.models.load import LoadedModel, PromptTemplate
from rlvr_zoo.problems import ProblemSet
from rlvr_zoo.problems.overlap import warning
from rlvr_zoo.protocol import HARMLESS, differences, digest, protocol_of, without
from rlvr_zoo.rollout.base import Engine, batch_tokens
from rlvr_zoo.rollout.gap import engine_settings
from rlvr_zoo.rollout.prompts import Prompts
from rlvr_zoo.rollout.replay import ReplayEngine
from rlvr_zoo.track import provenance
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mirror import Mirror
from rlvr_zoo.track.reader import CHECKPOINTS, CONFIG, suites_folder
from rlvr_zoo.track.record import EvaluationRecord, Launch, RunRecord
from rlvr_zoo.train import checkpoint, extras, loop, ranks
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.checkpoint import State
from rlvr_zoo.train.collect import Collector
from rlvr_zoo.train.control import Solutions
from rlvr_zoo.train.disk_space import check_disk_space
from rlvr_zoo.train.fitting import fit
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.mismatch import DTYPES
from rlvr_zoo.train.passes import is_out_of_memory
from rlvr_zoo.verify.base import Verifier

HELD = {
    "whole": "whole on each",
    "fsdp": "sharded by FSDP2",
    "deepspeed": "sharded by DeepSpeed's ZeRO-3",
}
CLOSE_TIMEOUT_S = 30.0
"""How long the end of a run waits for the tracker; making a first database takes it a while."""


class Observer(loop.Observer, Protocol):
    """Watches a run from its making to its end."""

    def progress(self, done: int, total: int, message: str) -> None:
        """A warm-up of the model, step by step."""

    def ready(self, config: RunConfig, folder: Path, resumed_at: int, notes: Sequence[str]) -> None:
        """The run begins; `notes` are lines that say with what."""

    def warn(self, message: str) -> None: ...

    def evaluating(self, standing: Standing) -> None:
        """A suite, chunk by chunk."""


def execute(config: RunConfig, output: Path, resume: bool, observer: Observer) -> RunRecord:
    """Runs, or resumes, what the configuration says, in the folder `output`.

    Raises RlvrZooError for whatever a user can put right; the folder then holds all that was done,
    or is not there if nothing was.
    """
    with ExitStack() as stack:
        extras.check(config)
        problem_set = problems.load(config.problems)
        benchmarks = suites.chosen(config.suites)
        if overlap := warning(problem_set.train, benchmarks):
            observer.warn(overlap)
        if config.train.cpu_threads:
            torch.set_num_threads(config.train.cpu_threads)
        ranks.refuse_too_few_gpus()
        backend = Backend(config.train.precision, config.train.parallel)
        ranks.refuse_mixed(backend.gather, asdict(config))
        output = backend.broadcast(output)  # a new folder is named after the time
        ranks.refuse_idle(config.rollout.rollouts_per_step, backend.world_size)
        notes = fit(config, backend)
        folder = stack.enter_context(_open(config, output, resume)) if backend.is_main else None
        verifier: Verifier = registry.load(registry.VERIFIERS, config.verify.name)(config.verify)
        stack.enter_context(verifier)
        model = models.load(config.model, observer.progress)
        engines = _engines(config, model, backend, stack)
        # not before: Ctrl-C while a model is loaded has no step to wait for
        should_stop = stack.enter_context(stop_requests(observer.warn))
        run, state = _assemble(
            config, problem_set, benchmarks, model, engines, verifier, backend, folder, output,
            observer, should_stop,
        )  # fmt: skip
        if folder is not None:
            folder.write_record(run.record)
        if folder is not None and config.track.mlflow:
            mirror = stack.enter_context(Mirror(folder.path, observer.warn))
        else:
            mirror = None
        notes += [f"processes: {backend.world_size}, models {HELD[backend.models]}"]
        notes += [f"problems: {run.record.problems_source}"]
        notes += [f"old log-probs: {run.old_logp_source}"]
        observer.ready(config, output, state.step, notes)
        record = _train(run, state)
        if mirror is not None:
            mirror.close(CLOSE_TIMEOUT_S)
        return record


def _train(run: loop.Run, state: State) -> RunRecord:
    report.ready()
    try:
        return _within_memory(run, state)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            run.record = replace(run.record, status="interrupted", error=signal_of(error))
        else:
            line = f"{type(error).__name__}: {error}"
            run.record = replace(run.record, status="failed", error=line)
        if run.folder is not None:
            with suppress(RlvrZooError):  # the disk that failed the run may refuse this too
                run.folder.write_record(run.record)
        raise


def _within_memory(run: loop.Run, state: State) -> RunRecord:
    """Where memory runs out elsewhere than in the passes, which the learner sees to."""
    try:
        return run.train(state)
    except RuntimeError as error:
        if not is_out_of_memory(error) and "out of memory" not in str(error):  # NCCL's, for one
            raise
        raise DeviceMemoryError(
            f"out of memory ({first_line(error)}); `rlvr-zoo plan` shows what takes it: set a"
            " smaller rollout.batch_tokens, optimizer.moments=8bit, or train.parallel=fsdp"
        ) from error


# --------------------------------------------------------------------------- the folder


@contextmanager
def _open(config: RunConfig, output: Path, resume: bool) -> Iterator[RunFolder]:
    """The run's folder; one that was made here and has recorded nothing is removed again."""
    if resume:
        with RunFolder.open(output) as folder:
            _refuse_other_config(config, folder)
            yield folder
        return
    existed = output.exists()
    with RunFolder.create(output, asdict(config)) as folder:
        try:
            yield folder
        finally:
            if not folder.has_record():
                (output / CONFIG).unlink(missing_ok=True)
                if not existed:
                    shutil.rmtree(output, ignore_errors=True)


def _refuse_other_config(config: RunConfig, folder: RunFolder) -> None:
    changed = differences(without(folder.config(), HARMLESS), without(asdict(config), HARMLESS))
    if changed:
        raise RunFolderError(
            f"{folder.path}: holds a run with another {', '.join(changed[:5])}; resume it as it was"
            f" (`rlvr-zoo run --resume --output {folder.path}`), or choose another --output"
        )


# --------------------------------------------------------------------------- the parts


def _assemble(
    config: RunConfig,
    problem_set: ProblemSet,
    benchmarks: Sequence[Suite],
    model: LoadedModel,
    engines: tuple[Engine, Engine],
    verifier: Verifier,
    backend: Backend,
    folder: RunFolder | None,
    output: Path,
    observer: Observer,
    should_stop: Callable[[], int],
) -> tuple[loop.Run, State]:
    engine, evaluation_engine = engines
    prompts = Prompts(model, config)
    given = problem_set
    train, held_out = prompts.fitting(given.train), prompts.fitting(given.held_out)
    problem_set = replace(given, train=train, held_out=held_out)
    _warn_dropped(given, problem_set, observer.warn)
    chosen = registry.algorithm(config.algo)
    settings: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    algorithm: Algorithm[Any] = chosen.cls(settings)
    learner = Learner(model.lm, algorithm, chosen.cls.spec(settings), config, backend)
    measured = _suite_evaluators(
        config,
        benchmarks,
        model,
        evaluation_engine,
        verifier,
        backend,
        output,
        observer,
        should_stop,
    )
    digests = {
        "model_digest": model.digest,
        "problems_digest": problem_set.digest,
        "prompts_digest": prompts.digest,
        "suites": {evaluator.name: evaluator.described for evaluator in measured},
    }
    if decisive := engine_settings(engine, config.rollout, DTYPES[config.train.precision]):
        digests["engine"] = decisive
    record = _record(config, model, problem_set, digests, learner, backend)
    if described := getattr(engine, "description", ""):
        record = replace(record, versions={**record.versions, "engine": described})
    source: Engine = engine
    if config.train.control == "supervised":
        source = Solutions(train, prompts, model, config.rollout.max_completion_tokens)
    if isinstance(engine, ReplayEngine):
        engine.refuse_other_run(record)
    before, state = _loaded(record, learner, backend, folder, output)
    if not loop.is_done(config.train, state):  # else no checkpoint will be written
        disk = check_disk_space(output / CHECKPOINTS, learner, config, backend, state.step)
        if disk:
            observer.warn(disk)
    if folder is not None and before is not None:
        record = _rewound(before, state.step, folder)
    record = backend.broadcast(record)  # what is done is what the main process's folder says
    launch = Launch(step=state.step, num_ranks=backend.world_size, models=backend.models)
    record = replace(record, launches=(*record.launches, launch))
    run = loop.Run(
        config=config,
        folder=folder,
        record=record,
        model=model,
        engine=engine,
        collector=Collector(train, prompts, source, verifier, algorithm, config, backend),
        evaluators=[
            HeldOut(held_out, prompts, evaluation_engine, verifier, config, backend),
            *measured,
        ],
        learner=learner,
        backend=backend,
        observer=observer,
        should_stop=should_stop,
    )
    return run, state


def _engines(
    config: RunConfig, model: LoadedModel, backend: Backend, stack: ExitStack
) -> tuple[Engine, Engine]:
    """What samples for training, and for evaluation: there it is the policy in any case."""

    def make(name: str) -> Engine:
        engine: Engine = registry.load(registry.ROLLOUTS, name)(
            model, config.rollout, backend.compute
        )
        return stack.enter_context(closing(engine))

    engine = make(config.rollout.engine)
    return engine, engine if engine.follows else make("transformers")


def _suite_evaluators(
    config: RunConfig,
    benchmarks: Sequence[Suite],
    model: LoadedModel,
    engine: Engine,
    verifier: Verifier,
    backend: Backend,
    output: Path,
    observer: Observer,
    should_stop: Callable[[], int],
) -> list[SuiteEvaluator]:
    bench = Bench(
        engine=engine,
        verifier=verifier,
        template=PromptTemplate(config.model, model.tokenizer),
        max_context_tokens=model.max_context_tokens,
        batch_tokens=batch_tokens(engine),
        ranks=backend,
        seed=config.seed,
        progress=observer.evaluating,
        warn=observer.warn,
        should_stop=should_stop,
    )
    longest = config.suites.max_completion_tokens
    return [
        SuiteEvaluator(suite, bench, longest, partial(suites_folder, output))
        for suite in benchmarks
    ]


def _warn_dropped(given: ProblemSet, kept: ProblemSet, warn: Callable[[str], None]) -> None:
    before = len(given.train) + len(given.held_out)
    dropped = before - len(kept.train) - len(kept.held_out)
    if dropped:
        warn(f"{dropped} of {before} problems are left out: their prompts are too long")


def _record(
    config: RunConfig,
    model: LoadedModel,
    problem_set: ProblemSet,
    digests: Mapping[str, Any],
    learner: Learner,
    backend: Backend,
) -> RunRecord:
    settings = {**protocol_of(config), **digests}
    record = RunRecord(
        config=asdict(config),
        protocol=config.protocol,
        protocol_digest=digest(settings),
        protocol_settings=settings,
        algorithm=config.algo,
        seed=config.seed,
        code=provenance.code(),
        versions=provenance.versions(),
        hardware=provenance.hardware(backend.gpu_names()),
        model_digest=model.digest,
        model_revision=model.revision,
        problems_source=problem_set.description,
        problems_digest=problem_set.digest,
    )
    return replace(record, costs=replace(record.costs, parameters=learner.num_parameters()))


def _loaded(
    record: RunRecord, learner: Learner, backend: Backend, folder: RunFolder | None, output: Path
) -> tuple[RunRecord | None, State]:
    """The newest checkpoint into the learner, and the record that the folder has of the run, if it
    has one; no file is touched but what a kill left half written."""
    before = folder.record() if folder is not None and folder.has_record() else None
    if before is not None and before.protocol_digest != record.protocol_digest:
        changed = differences(before.protocol_settings, record.protocol_settings)
        raise RunFolderError(
            f"{output}: what the run started from has changed ({', '.join(changed)}); put it"
            " back, or start anew with another --output"
        )
    if folder is not None:
        checkpoint.tidy(output / CHECKPOINTS)
    path = backend.broadcast(checkpoint.newest(output / CHECKPOINTS))
    seen = backend.gather(path is None or checkpoint.is_whole(path))
    if not all(seen):
        raise RankError(
            f"rank {seen.index(False)} does not see {path}; put --output on a file system that"
            " every machine has"
        )
    if before is not None and before.status == "finished" and path is None:
        raise RunFolderError(
            f"{output}: the run is finished and its checkpoints are gone; put them back, or start"
            " anew with another --output"
        )
    return before, checkpoint.load(path, learner) if path else State()


def _rewound(before: RunRecord, step: int, folder: RunFolder) -> RunRecord:
    """The folder, and its record, as they were at the step."""
    folder.rewind(step)  # at step 0 there are evaluations of the start model only
    evaluations = tuple(folder.evaluations())
    _log_again(folder, evaluations, before.config["suites"]["pass_at"])
    return before.rewound(step, evaluations)


def _log_again(
    folder: RunFolder, evaluations: Sequence[EvaluationRecord], pass_at: Sequence[int]
) -> None:
    """Logs what a kill between an evaluation's line and its metrics kept from being logged."""
    logged = {(line.step, name) for line in folder.metrics() for name in line.metrics}
    for evaluation in evaluations:
        if (evaluation.step, f"{evaluation.name}/accuracy") not in logged:
            folder.append_metrics(evaluation.step, evaluation.shown(pass_at))
