"""Several processes, whole models or sharded ones, take the same steps as one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from .conftest import Launch

STEPS = 10
SMALL = (
    "run",
    "--algo=popo",
    f"--max-steps={STEPS}",
    "--set=rollout.rollouts_per_step=40",
    "--set=problems.num_held_out=64",
    "--set=evaluate.every=0",
    "--set=checkpoint.every=5",
    "--set=suites.limit=9",  # shared out unevenly, too
    "--set=track.mlflow=false",
    "--set=train.minibatches=4",  # of 5 groups
    "--set=train.micro_batch_tokens=50",  # 3 rows a micro-batch and rank: they share unevenly
)
LAST = f"checkpoints/step-{STEPS:08d}"


def on_ranks(number: int, folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={number}",
         "--standalone", "-m", "rlvr_zoo", *arguments],
        cwd=folder, timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def alone(launch: Launch, tmp_path: Path) -> Path:
    """The run on one process."""
    one = launch(*SMALL, "--output=one")
    _, err = one.communicate(timeout=300)
    assert one.returncode == 0, err
    return tmp_path / "one"


def assert_same_weights(run: Path, other: Path) -> None:
    weights = [load_file(each / LAST / "policy/model.safetensors") for each in (run, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, want in weights[0].items():
        torch.testing.assert_close(weights[1][name], want, rtol=0, atol=2e-5)


def lines_of(run: Path, file: str) -> list[Any]:
    return [json.loads(line) for line in (run / file).read_text().splitlines()]


def accuracies(run: Path) -> dict[tuple[str, int], float]:
    found = json.loads((run / "record.json").read_text())["evaluations"]
    return {(each["name"], each["step"]): each["accuracy"] for each in found}


def test_ranks_end_where_one_process_does(alone: Path, tmp_path: Path) -> None:
    on_ranks(2, tmp_path, *SMALL, "--output=two")
    two = tmp_path / "two"
    steps = [lines_of(run, "metrics.jsonl") for run in (alone, two)]
    assert len(steps[0]) == len(steps[1]) == STEPS + 4
    for one, both in zip(*steps, strict=True):
        for name, value in one["metrics"].items():
            if not name.startswith("time/"):
                assert both["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name
    for run in (alone, two):
        assert json.loads((run / LAST / "state.json").read_text())["optimizer_steps"] == 4 * STEPS
    assert_same_weights(alone, two)
    assert accuracies(alone) == accuracies(two)

    # ranks agree on what is done: a last evaluation that a kill left out is made up for
    evaluations = two / "evaluations.jsonl"
    whole = evaluations.read_text().splitlines()
    evaluations.write_text("\n".join(whole[:-1]) + "\n")
    on_ranks(2, tmp_path, "run", "--resume", "--output=two")
    again = evaluations.read_text().splitlines()
    assert len(again) == len(whole) == 4
    last, made_up = (json.loads(lines[-1]) for lines in (whole, again))
    assert last.pop("time") < made_up.pop("time") and last == made_up


def test_a_sharded_run_goes_on_at_any_number_of_ranks(
    alone: Path, launch: Launch, tmp_path: Path
) -> None:
    """Sharded over four; from its middle sharded over two, and then by one process."""
    sharded = "--set=train.parallel=fsdp"
    on_ranks(4, tmp_path, *SMALL, "--output=four", sharded)
    for folder in ("two", "one again"):
        shutil.copytree(tmp_path / "four", tmp_path / folder)
        shutil.rmtree(tmp_path / folder / LAST)
    on_ranks(2, tmp_path, "run", "--resume", "--output=two", sharded)
    again = launch("run", "--resume", "--output=one again")
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    for folder in ("four", "two", "one again"):
        assert_same_weights(alone, tmp_path / folder)
        assert accuracies(alone) == accuracies(tmp_path / folder)
