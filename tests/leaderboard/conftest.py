"""Made-up runs, written as a trainer writes them: from nothing to many folders in a second."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from rlvr_zoo.config import (
    EvaluateConfig,
    OptimizerConfig,
    RolloutConfig,
    RunConfig,
    TrackConfig,
    TrainConfig,
)
from rlvr_zoo.protocol import digest, protocol_of
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.provenance import Code, Hardware
from rlvr_zoo.track.reader import RECORD
from rlvr_zoo.track.record import Costs, EvaluationRecord, RunRecord
from rlvr_zoo.track.state import MirrorState

SUITES = {"held-out": (64, 1), "micro": (32, 4)}
"""Suite -> (problems, samples of each)."""


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """What a plain accuracy leaves open."""

    accuracy: float
    """Its true one, after the last step."""
    algorithm: str = ""
    """Empty: the key under which it was given."""
    knobs: Mapping[str, Any] = field(default_factory=lambda: {"clip": 0.2})
    lr: float = 1e-4
    group_size: int = 8
    control: Literal["none", "untrained", "random_reward"] = "none"
    seeds: Sequence[int] | None = None
    """None: as the others."""
    comparison: str = "compare-1"
    generates: bool = True


def make_runs(
    path: Path,
    entrants: Mapping[str, float | Entrant],
    seeds: int = 5,
    *,
    suites: Mapping[str, tuple[int, int]] = SUITES,
    seed_sd: float = 0.02,
    steps: int = 10,
    every: int = 5,
    temperature: float = 1.0,
    max_generated_tokens: int = 0,
    mlflow: bool = False,
    salt: int = 0,
) -> list[Path]:
    """Finished runs `path/NAME-SEED` of one protocol, one for each entrant and seed.

    An entrant is its true accuracy, or an `Entrant`.  All start at 0.4.  Equal arguments make
    equal runs, but for the times in their lines.  `temperature` makes another protocol of them.
    """
    found = []
    for name, given in entrants.items():
        entrant = given if isinstance(given, Entrant) else Entrant(accuracy=given)
        entrant = replace(entrant, algorithm=entrant.algorithm or name)
        for seed in range(seeds) if entrant.seeds is None else entrant.seeds:
            settings = _config(entrant, seed, steps, every, temperature, max_generated_tokens)
            draw = np.random.default_rng([zlib.crc32(name.encode()), seed, salt])
            luck = seed_sd * draw.standard_normal()
            run = path / f"{name}-{seed}"
            evaluations = _evaluations(settings, entrant, luck, suites, draw)
            _write(run, settings, entrant, evaluations, draw)
            if mlflow:
                uri = "sqlite:////somewhere/mlflow.db"
                MirrorState(tracking_uri=uri, key="k", run_id=f"{name}{seed}").save(run)
            found.append(run)
    return found


def change(run: Path, **fields: Any) -> Path:
    """Overwrites fields of a run's record; returns the run."""
    replace(RunRecord.read(run / RECORD), **fields).write(run / RECORD)
    return run


def _config(
    entrant: Entrant, seed: int, steps: int, every: int, temperature: float, budget: int
) -> RunConfig:
    return RunConfig(
        algo=entrant.algorithm,
        algorithm=dict(entrant.knobs),
        seed=seed,
        rollout=RolloutConfig(group_size=entrant.group_size, temperature=temperature),
        optimizer=OptimizerConfig(lr=entrant.lr),
        train=TrainConfig(max_steps=steps, control=entrant.control, max_generated_tokens=budget),
        evaluate=EvaluateConfig(every=every),
        track=TrackConfig(comparison=entrant.comparison),
    )


def _evaluations(
    config: RunConfig,
    entrant: Entrant,
    luck: float,
    suites: Mapping[str, tuple[int, int]],
    draw: np.random.Generator,
) -> list[EvaluationRecord]:
    """The held-out set at every `every` steps, suites at the first and the last."""
    last, every = config.train.max_steps, config.evaluate.every
    steps = sorted({*range(0, last + 1, every), last})
    return [
        _evaluation(step, name, size, 0.4 + (entrant.accuracy + luck - 0.4) * step / last, draw)
        for step in steps
        for name, size in suites.items()
        if name == "held-out" or step in (0, last)
    ]


def _evaluation(
    step: int, name: str, size: tuple[int, int], accuracy: float, draw: np.random.Generator
) -> EvaluationRecord:
    """Problems of mixed difficulty, the same for all runs."""
    num_problems, num_samples = size
    ease_P = np.random.default_rng(zlib.crc32(name.encode())).beta(2, 2, num_problems)
    p_P = np.clip(accuracy + 0.3 * (ease_P - ease_P.mean()), 0.0, 1.0)
    outcome_PK = (draw.random((num_problems, num_samples)) < p_P[:, None]).astype(int)
    mean = float(outcome_PK.mean())
    return EvaluationRecord(
        step=step,
        name=name,
        accuracy=mean,
        low=max(0.0, mean - 0.1),
        high=min(1.0, mean + 0.1),
        num_problems=num_problems,
        num_samples=num_samples,
        outcomes={f"{name}-{n:03}": tuple(each) for n, each in enumerate(outcome_PK.tolist())},
    )


def _write(
    path: Path,
    config: RunConfig,
    entrant: Entrant,
    evaluations: Sequence[EvaluationRecord],
    draw: np.random.Generator,
) -> None:
    settings = {**protocol_of(config), "prompts_digest": "ef" * 8}
    last = config.train.max_steps
    record = RunRecord(
        config=asdict(config),
        protocol=config.protocol,
        protocol_digest=digest(settings),
        protocol_settings=settings,
        algorithm=entrant.algorithm,
        seed=config.seed,
        status="finished",
        steps_done=last,
        code=Code(commit="0123456789abcdef0123456789abcdef01234567"),
        versions={"python": "3.11.9", "rlvr-zoo": "0.1.0", "torch": "2.13.0"},
        hardware=Hardware(cpu="A processor", num_cores=2),
        model_digest="ab" * 32,
        problems_source="generator addition",
        problems_digest="cd" * 32,
        evaluations=tuple(evaluations),
        costs=Costs(
            generated_tokens=1000 * last if entrant.generates else 0,
            trained_tokens=900 * last,
            total_s=3.0 * last,
            rollout_s=1.0 * last,
            verify_s=0.1 * last,
            update_s=1.5 * last,
            evaluate_s=4.0,
            peak_memory_bytes=500_000_000,
            parameters={"policy": 363_008},
        ),
    )
    with RunFolder.create(path, record.config) as folder:
        for step, metrics in _metrics(last, evaluations, entrant.generates, draw):
            folder.append_metrics(step, metrics)
        for each in evaluations:
            folder.append_evaluation(each)
        folder.write_record(record)


def _metrics(
    last: int,
    evaluations: Sequence[EvaluationRecord],
    generates: bool,
    draw: np.random.Generator,
) -> Iterable[tuple[int, dict[str, float]]]:
    for step in range(last + 1):
        if step and generates:
            yield (
                step,
                {
                    "reward/groups_all_right": 0.1 + 0.3 * step / last,
                    "reward/groups_all_wrong": 0.2,
                    "rollout/tokens_mean": 10.0 + draw.random(),
                    "rollout/generated_tokens": 1000.0,
                    "rollout/entropy": 0.5 * (1 - step / last) + 0.02 * draw.random(),
                    "time/rollout_s": 1.0,
                    "time/verify_s": 0.1,
                    "time/update_s": 1.5,
                },
            )
        for each in evaluations:
            if each.step == step:
                yield step, each.shown()
