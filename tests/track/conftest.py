"""Runs to write and trackers to send them to."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

import rlvr_zoo
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.record import Estimate, EvaluationRecord, RunRecord, Status

CONFIG = {
    "algorithm": {"name": "grpo", "settings": {"clip_high": 0.28}},
    "seed": 3,
    "model": {"name": "tiny", "system": ""},
    "track": {"mlflow": True, "experiment": "toy"},
}


def evaluation(step: int) -> EvaluationRecord:
    """Two problems, two samples of each, and one more metric."""
    return EvaluationRecord(
        step=step,
        accuracy=0.25,
        low=0.1,
        high=0.9,
        num_problems=2,
        num_samples=2,
        metrics={"pass_at_2": Estimate(value=0.5, low=0.0, high=1.0)},
        outcomes={"a": (1, 0), "b": (0, 0)},
    )


@pytest.fixture
def record() -> RunRecord:
    return RunRecord(
        config=CONFIG,
        protocol="micro",
        protocol_digest="1f3a9c0de77b",
        algorithm="grpo",
        seed=3,
        problems_source="addition",
        problems_digest="ab" * 32,
        evaluations=(evaluation(0), evaluation(10)),
    )


@pytest.fixture
def run(tmp_path: Path, record: RunRecord) -> RunFolder:
    """A run with two steps of metrics, still held."""
    folder = RunFolder.create(tmp_path / "run", CONFIG)
    folder.write_record(record)
    folder.append_metrics(1, {"train/loss": 0.5, "train/kl": float("nan")})
    folder.append_metrics(2, {"train/loss": 0.25, "train/kl": float("inf")})
    return folder


ID = "compare-micro-1a2b3c4d"


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """The folder of a comparison of two algorithms over two seeds, without a run yet."""
    folder = tmp_path / "comparison"
    folder.mkdir()
    plan = {
        "schema": 1,
        "kind": "compare",
        "id": ID,
        "command": "rlvr-zoo compare --algos grpo,popo",
        "protocol": "micro",
        "entrants": [{"name": name, "algo": name, "settings": {}} for name in ("grpo", "popo")],
        "seeds": [0, 1],
    }
    (folder / "comparison.json").write_text(json.dumps(plan))
    return folder


class MakeRun(Protocol):
    def __call__(
        self, entrant: str, seed: int, folder: Path = ..., status: Status = "finished"
    ) -> Path: ...


@pytest.fixture
def make_run(comparison: Path, record: RunRecord) -> MakeRun:
    """Writes a run of the comparison: ten steps, evaluated before, amid and after them."""

    def make(
        entrant: str, seed: int, folder: Path = comparison, status: Status = "finished"
    ) -> Path:
        config = {**CONFIG, "seed": seed, "track": {"experiment": "toy", "comparison": ID}}
        found = [
            replace(evaluation(step), name=name)
            for step, name in [
                (0, "held-out"), (0, "aime"), (5, "held-out"), (10, "held-out"), (10, "aime")
            ]
        ]  # fmt: skip
        with RunFolder.create(folder / "runs" / entrant / f"seed-{seed}", config) as run:
            for step in range(1, 11):
                run.append_metrics(step, {"train/loss": 1 / step})
            for each in found:
                run.append_evaluation(each)
            run.write_record(
                replace(
                    record,
                    config=config,
                    algorithm=entrant,
                    seed=seed,
                    status=status,
                    steps_done=10,
                    protocol_settings={"rollout": {"temperature": 1.0}, "model": "abc"},
                    evaluations=tuple(found),
                )
            )
        return run.path

    return make


FIRST_USE = """
import sys
from pathlib import Path
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mlflow import sync
with RunFolder.create(Path("run"), {}) as run:
    run.append_metrics(1, {"train/loss": 0.5})
    assert sync(run.path, experiment="first use").num_metrics == 1
"""


@pytest.fixture(scope="session")
def first_use(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A folder in which a program used MLflow's default store for the first time: takes seconds."""
    folder = tmp_path_factory.mktemp("first_use")
    root = Path(rlvr_zoo.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(root)},
        check=False,
    )
    return folder, done


@pytest.fixture
def tracker(
    tmp_path: Path,
    first_use: tuple[Path, subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """A real tracker of the test's own, which MLFLOW_TRACKING_URI names; returns its URI."""
    shutil.copy(first_use[0] / "mlflow.db", tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    return uri
