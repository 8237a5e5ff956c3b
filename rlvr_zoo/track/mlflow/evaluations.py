"""A run's evaluations, as runs below it: a table of them compares suites across algorithms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rlvr_zoo.track.mlflow.connection import runs_with
from rlvr_zoo.track.mlflow.entities import (
    ALGORITHM,
    COMPARISON,
    CONTENT,
    DIGEST,
    ENTRANT,
    LEVEL,
    PARENT,
    PROTOCOL,
    SEED,
    STEP,
    SUITE,
    metrics_of,
)
from rlvr_zoo.track.record import EvaluationRecord, RunRecord
from rlvr_zoo.track.state import MirrorState

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HELD_OUT = EvaluationRecord.name
_INHERITED = (COMPARISON, ENTRANT, PROTOCOL, DIGEST, ALGORITHM, SEED)


def choose(evaluations: Iterable[EvaluationRecord], finished: bool) -> list[EvaluationRecord]:
    """All of suites, and of held-out problems those before and, of a finished run, after training:
    what lies between is the run's curve."""
    found = list(evaluations)
    steps = [each.step for each in found if each.name == _HELD_OUT]
    ends = {0, *([max(steps)] if finished and steps else [])}
    return [each for each in found if each.name != _HELD_OUT or each.step in ends]


def send(
    client: MlflowClient,
    state: MirrorState,
    record: RunRecord,
    evaluations: Sequence[EvaluationRecord],
) -> None:
    """Makes the runs below `state.run_id` those of the evaluations, no more and no fewer.

    What a kill left half-sent, and what the run went back behind, is deleted.
    """
    wanted = {_digest(each): each for each in evaluations}
    below = {PARENT: state.run_id, LEVEL: "evaluation"}
    for run in runs_with(client, [state.experiment_id], below):
        whole = run.info.status == "FINISHED"
        if not whole or wanted.pop(run.data.tags.get(CONTENT, ""), None) is None:
            client.delete_run(run.info.run_id)
    inherited = {name: state.tags[name] for name in _INHERITED if name in state.tags}
    for content, each in wanted.items():
        tags = {
            **inherited,
            **below,
            CONTENT: content,
            SUITE: each.name,
            STEP: str(each.step),
        }
        _send_one(client, state.experiment_id, tags, each, record.config)


def _send_one(
    client: MlflowClient,
    experiment_id: str,
    tags: Mapping[str, str],
    evaluation: EvaluationRecord,
    config: Mapping[str, Any],
) -> None:
    from mlflow.entities import Param

    name = f"{evaluation.name}, step {evaluation.step}"
    run = client.create_run(experiment_id, tags=dict(tags), run_name=name)
    shown = evaluation.shown(config.get("suites", {}).get("pass_at", ()))
    values = {key.removeprefix(f"{evaluation.name}/"): value for key, value in shown.items()}
    client.log_batch(
        run.info.run_id,
        metrics=metrics_of(evaluation.step, run.info.start_time / 1000, values),
        params=[
            Param("num_problems", str(evaluation.num_problems)),
            Param("num_samples", str(evaluation.num_samples)),
        ],
    )
    client.set_terminated(run.info.run_id)


def _digest(evaluation: EvaluationRecord) -> str:
    """SHA-256 of its content, per-problem outcomes included."""
    text = json.dumps(evaluation.to_dict(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
