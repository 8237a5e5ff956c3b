"""The head's weight, kept for the backward pass, is whole again there where FSDP2 shards it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_network.py")


@pytest.mark.parametrize("processes", [1, 2])
def test_sharding_changes_no_gradient(processes: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={processes}",
         "--standalone", str(SCRIPT)],
        timeout=300, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    distances = json.loads(done.stdout)
    assert len(distances) == 4
    assert max(distances.values()) < 1e-5, distances
