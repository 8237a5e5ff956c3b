"""A loss that is not finite: steps are left out, and at the limit the run stops with its batch."""

import json
from pathlib import Path

import pytest
import torch

from .conftest import Launch

BROKEN = """
from rlvr_zoo_algorithms.grpo import GRPO

class Nan(GRPO):
    def loss(self, now, batch, targets, total, head):
        loss, metrics = super().loss(now, batch, targets, total, head)
        return loss * float("nan"), metrics
"""


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_run_that_diverges_stops_and_keeps_its_batch(
    launch: Launch, tmp_path: Path, ranks: int
) -> None:
    (tmp_path / "broken.py").write_text(BROKEN)
    run = launch(
        "run", "--algo=broken:Nan", "--max-steps=9", "--output=run", "--set=suites.names=[]",
        "--set=problems.num_held_out=8", "--set=train.max_bad_steps=3", f"--num-processes={ranks}",
        prefix="PYTHONPATH=.:$PYTHONPATH",
    )  # fmt: skip
    _, err = run.communicate(timeout=300)
    assert run.returncode == 2, err
    (error,) = [line for line in err.splitlines() if line.startswith("rlvr-zoo: error:")]
    assert "not finite 3 times in a row" in error and "bad-batch.pt" in error
    lines = map(json.loads, (tmp_path / "run/metrics.jsonl").read_text().splitlines())
    left_out = [line["metrics"].get("train/not_finite") for line in lines]
    assert [each for each in left_out if each is not None] == [1.0, 1.0]
    batch = torch.load(tmp_path / "run/bad-batch.pt", weights_only=True)
    assert batch["ids_NL"].shape[0] == len(batch["index"]) == 128
    assert batch["targets"].keys() >= {"advantage_N"}
