"""A run that is killed, stopped or refused by the disk loses nothing and ends as it would have."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Launch

SMALL = (
    "--algo=popo",
    "--max-steps=12",
    "--set=rollout.rollouts_per_step=32",
    "--set=problems.num_held_out=16",
    "--set=evaluate.every=5",
    "--set=checkpoint.every=3",
    "--set=suites.limit=8",
    "--set=algorithm.predictor_hidden_size=64",
)
PATIENCE_S = 300


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def wait_for_steps(folder: Path, steps: int, process: "subprocess.Popen[str]") -> None:
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and f'"step": {steps},' in metrics.read_text():
            return
        time.sleep(0.005)
    pytest.fail(f"the run did not reach step {steps}: {process.communicate()[1]}")


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every weight file of the last checkpoint."""
    last = folder / "checkpoints" / "step-00000012"
    files = sorted(last.rglob("*.safetensors"))
    assert len(files) == 3, "the policy, the momentum copy and the predictor"
    return {str(f.relative_to(last)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def curve(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """Every metric but the clock's."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [
        (line["step"], {k: v for k, v in line["metrics"].items() if not k.startswith("time/")})
        for line in lines
    ]


@pytest.fixture(scope="module")
def undisturbed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = [sys.executable, "-m", "rlvr_zoo", "run", *SMALL, "--set=track.mlflow=false"]
    subprocess.run(
        [*run, "--output=out"], cwd=folder, check=True, capture_output=True, timeout=PATIENCE_S
    )
    return folder / "out"


def test_killed_and_stopped_runs_end_bit_identical(
    launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    folder = tmp_path / "disturbed"
    start, resume = (("run", *SMALL), ("run", "--resume"))
    for arguments, step, blow in (
        (start, 1, signal.SIGKILL),  # before the first checkpoint
        (resume, 5, signal.SIGKILL),
        (resume, 7, signal.SIGINT),
    ):
        process = launch(*arguments, "--output", str(folder))
        wait_for_steps(folder, step, process)
        process.send_signal(blow)
        code, _, err = finish(process)
        assert code == (130 if blow == signal.SIGINT else -signal.SIGKILL), err
    assert json.loads((folder / "record.json").read_text())["status"] == "interrupted"

    code, _, err = finish(launch(*resume, "--output", str(folder)))
    assert code == 0, err
    assert "resumed after step" in err

    assert weights(folder) == weights(undisturbed)
    assert curve(folder) == curve(undisturbed)
    ours, theirs = (json.loads((f / "record.json").read_text()) for f in (folder, undisturbed))
    assert ours["status"] == "finished"
    assert ours["evaluations"] == theirs["evaluations"]
    evaluated = [(e["step"], e["name"]) for e in ours["evaluations"]]
    held_out = [(step, "held-out") for step in (5, 10)]
    ends = [[(step, "held-out"), (step, "micro")] for step in (0, 12)]
    assert evaluated == [*ends[0], *held_out, *ends[1]]


def test_a_disk_that_refuses_costs_nothing(
    launch: Launch, tmp_path: Path, undisturbed: Path
) -> None:
    """Files may not grow beyond 1 MB: everything fits but a checkpoint."""
    folder = tmp_path / "refused"
    code, _, err = finish(launch("run", *SMALL, "--output", str(folder), prefix="ulimit -f 1000;"))
    assert code == 2, err
    (line,) = [line for line in err.splitlines() if line.startswith("rlvr-zoo: error:")]
    assert "checkpoints" in line and "--resume" in line
    assert "Traceback" not in err
    assert not list((folder / "checkpoints").glob("step-*"))
    assert json.loads((folder / "record.json").read_text())["status"] == "failed"

    code, _, err = finish(launch("run", "--resume", "--output", str(folder)))
    assert code == 0, err
    assert weights(folder) == weights(undisturbed)
