"""What is sent, as MLflow's rules have it: names, lengths, and how much goes into one call."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

KEY = "rlvr_zoo.key"
LEVEL = "rlvr_zoo.level"
"""`comparison`, `run` or `evaluation`."""
COMPARISON = "rlvr_zoo.comparison"
KIND = "rlvr_zoo.kind"
PROTOCOL = "rlvr_zoo.protocol"
DIGEST = "rlvr_zoo.digest"
ENTRANT = "rlvr_zoo.entrant"
ALGORITHM = "rlvr_zoo.algorithm"
SEED = "rlvr_zoo.seed"
FILES = "rlvr_zoo.files"
"""JSON: SHA-256 of each file that was sent, so that a reader knows that it has them whole."""
SUITE = "rlvr_zoo.suite"
STEP = "rlvr_zoo.step"
CONTENT = "rlvr_zoo.content"
"""SHA-256 of the evaluation that was sent."""
PARENT = "mlflow.parentRunId"

MAX_METRICS = 1000
_MAX_PARAMS = 100
_MAX_PARAM_CHARS = 6000
_MAX_TAG_CHARS = 8000
_MAX_KEY_CHARS = 250

Item = TypeVar("Item")


def metrics_of(step: int, time_s: float, metrics: Mapping[str, float]) -> list[Metric]:
    """The numbers of one step; `time_s` is in seconds since 1970."""
    from mlflow.entities import Metric

    return [
        Metric(safe(name)[:_MAX_KEY_CHARS], value, int(time_s * 1000), step)
        for name, value in metrics.items()
    ]


def send_params(client: MlflowClient, run_id: str, config: Mapping[str, Any]) -> None:
    """A configuration as params, by dotted key.  MLflow refuses to change one once it is there."""
    from mlflow.entities import Param

    params = [
        Param(safe(key)[:_MAX_KEY_CHARS], value[:_MAX_PARAM_CHARS])
        for key, value in flatten(config).items()
    ]
    for some in chunks(params, _MAX_PARAMS):
        client.log_batch(run_id, params=some)


def send_tags(client: MlflowClient, run_id: str, tags: Mapping[str, str]) -> None:
    from mlflow.entities import RunTag

    entities = [RunTag(key, value[:_MAX_TAG_CHARS]) for key, value in tags.items()]
    for some in chunks(entities, _MAX_PARAMS):
        client.log_batch(run_id, tags=some)


def chunks(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def safe(name: str) -> str:
    """The name with `_` for what MLflow forbids: other characters, and empty or dotted parts."""
    allowed = re.sub(r"[^\w\-. :/]", "_", name, flags=re.ASCII)
    return "/".join(part if part.strip(".") else "_" for part in allowed.split("/"))


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys -> text; lists and other values as JSON, so that '1' and 1 differ by quotes."""
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, default=str)
    return flat
