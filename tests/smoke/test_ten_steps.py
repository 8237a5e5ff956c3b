"""Ten steps of `micro` end alike on one process and on several, with every algorithm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from tests.train.forked import ROOT

from .ten_steps import ALONE, STEPS, WORLDS, algorithms

LAST = f"checkpoints/step-{STEPS:08d}"
TIMEOUT_S = 900
"""For all runs together; beside nine other busy processes they took 770."""


@pytest.fixture(scope="module")
def worlds(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each world, and in it one for each algorithm's run."""
    folder = tmp_path_factory.mktemp("worlds")
    done = subprocess.run(
        [sys.executable, "-m", "tests.smoke.ten_steps", str(folder)],
        cwd=ROOT,
        env=os.environ | {"RLVR_ZOO_RANK_TIMEOUT_S": "60"},  # a rank that waits in vain fails
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr[-8000:]
    return folder


def weights(run: Path) -> dict[str, Any]:
    """Of the last checkpoint, by file and name: the policy, companions, heads."""
    files = sorted((run / LAST).rglob("*.safetensors"))
    assert files
    return {
        f"{path.relative_to(run)} {name}": tensor
        for path in files
        for name, tensor in load_file(path).items()
    }


def metrics(run: Path) -> list[dict[str, float]]:
    """Every line's, but the clock's."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [
        {name: value for name, value in line["metrics"].items() if not name.startswith("time/")}
        for line in lines
    ]


def rewards(run: Path) -> list[float]:
    return [each["reward/mean"] for each in metrics(run) if "reward/mean" in each]


def outcomes(run: Path) -> dict[int, Any]:
    """By step: the accuracy, and every held-out problem's answer."""
    found = json.loads((run / "record.json").read_text())["evaluations"]
    return {each["step"]: (each["accuracy"], each["outcomes"]) for each in found}


def assert_alike(one: Path, several: Path) -> None:
    assert len(rewards(one)) == STEPS
    assert rewards(several) == rewards(one)
    assert list(outcomes(one)) == [0, STEPS]
    assert outcomes(several) == outcomes(one)
    for got, want in zip(metrics(several), metrics(one), strict=True):
        assert got == pytest.approx(want, rel=1e-3, abs=1e-6)
    assert_close(weights(several), weights(one), rtol=0, atol=2e-5)


@pytest.mark.parametrize("algo", algorithms())
@pytest.mark.parametrize("world", WORLDS)
def test_every_algorithm_ends_where_one_process_does(worlds: Path, world: str, algo: str) -> None:
    assert_alike(worlds / ALONE / algo, worlds / world / algo)
