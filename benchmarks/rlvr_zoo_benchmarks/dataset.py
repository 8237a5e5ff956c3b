"""What lm-eval's tasks take as their data set: problems that are checked to be the pinned ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlvr_zoo.api import Problem
from rlvr_zoo.problems import GENERATORS
from rlvr_zoo.problems.pinned import Pin, check
from rlvr_zoo.problems.pinned import load as load_pinned


def load(
    pin: Mapping[str, Any], data: str = "", config_source: str = "", **_: Any
) -> dict[str, Any]:
    """The `custom_dataset` of a task: split `test` with id, problem, answer, tolerance, source.

    lm-eval passes the task's `dataset_kwargs` (here one, `pin`: the fields of a `Pin`, or
    `generator`, `seed`, `count` and `digest`) and its metadata: of these `data` names a folder of
    files to read in place of the hub, and `config_source` the YAML file, beside which the manifest
    lies.  The rest of the metadata, which on lm-eval's command line has the model's arguments
    in it, is not for us.
    """
    from datasets import Dataset

    rows = [asdict(problem) for problem in problems(pin, data, Path(config_source or "."))]
    for row in rows:
        row["problem"] = row.pop("prompt")
        del row["solution"]
    return {"test": Dataset.from_list(rows)}


def problems(pin: Mapping[str, Any], data: str, task: Path) -> list[Problem]:
    """The problems that a task's `pin` stands for; `task` is its YAML file."""
    if "generator" in pin:
        return _generated(**pin)
    manifest = task.parent / "manifest.csv"
    return load_pinned(Pin(**pin, manifest=manifest if manifest.is_file() else None), data)


def _generated(name: str, generator: str, seed: int, count: int, digest: str) -> list[Problem]:
    held_out = GENERATORS[generator](count, seed, False)[1]
    return check(Pin(name, count, digest), held_out, f"the generator {generator!r}")
