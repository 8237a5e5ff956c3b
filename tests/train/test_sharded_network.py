"""The head's weight, kept for the backward pass, is whole again there where FSDP2 shards it."""

import json
import subprocess

import pytest

from .forked import ROOT, command


@pytest.mark.parametrize("processes", [1, 2])
def test_sharding_changes_no_gradient(processes: int) -> None:
    done = subprocess.run(
        command(processes, "tests.train.sharded_network"),
        cwd=ROOT, timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    distances = json.loads(done.stdout)
    assert len(distances) == 4
    assert max(distances.values()) < 1e-5, distances
