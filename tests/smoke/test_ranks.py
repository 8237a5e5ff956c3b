"""A run goes on at any number of processes, whole or sharded.  That it ends where one process does
is test_ten_steps.py's."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from .conftest import Launch

STEPS = 4
SMALL = (
    "run",
    "--algo=popo",
    f"--max-steps={STEPS}",
    "--set=rollout.rollouts_per_step=40",
    "--set=problems.num_held_out=64",
    "--set=evaluate.every=0",
    f"--set=checkpoint.every={STEPS // 2}",
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


def assert_same_weights(run: Path, other: Path) -> None:
    weights = [load_file(each / LAST / "policy/model.safetensors") for each in (run, other)]
    assert weights[0].keys() == weights[1].keys()
    for name, want in weights[0].items():
        torch.testing.assert_close(weights[1][name], want, rtol=0, atol=2e-5)


def accuracies(run: Path) -> dict[tuple[str, int], float]:
    found = json.loads((run / "record.json").read_text())["evaluations"]
    return {(each["name"], each["step"]): each["accuracy"] for each in found}


def test_ranks_agree_on_what_is_done(tiny: Path, tmp_path: Path) -> None:
    """A last evaluation that a kill left out is made up for."""
    on_ranks(2, tmp_path, *SMALL, "--max-steps=1", "--output=two")
    evaluations = tmp_path / "two/evaluations.jsonl"
    whole = evaluations.read_text().splitlines()
    evaluations.write_text("\n".join(whole[:-1]) + "\n")
    on_ranks(2, tmp_path, "run", "--resume", "--output=two")
    again = evaluations.read_text().splitlines()
    assert len(again) == len(whole) == 4
    last, made_up = (json.loads(lines[-1]) for lines in (whole, again))
    assert last.pop("time") < made_up.pop("time") and last == made_up


def test_a_sharded_run_goes_on_at_any_number_of_ranks(launch: Launch, tmp_path: Path) -> None:
    """Sharded over four; from its middle sharded over two, and by one process."""
    alone = launch(*SMALL, "--output=alone")
    _, err = alone.communicate(timeout=300)
    assert alone.returncode == 0, err
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
        state = json.loads((tmp_path / folder / LAST / "state.json").read_text())
        assert state["optimizer_steps"] == 4 * STEPS
        assert_same_weights(tmp_path / "alone", tmp_path / folder)
        assert accuracies(tmp_path / "alone") == accuracies(tmp_path / folder)
