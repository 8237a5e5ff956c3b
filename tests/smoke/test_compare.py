"""Comparisons by the real command line: equal starts, parts, interruptions."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr_zoo.track.reader import RunReader

Launch = Callable[..., "subprocess.Popen[str]"]
QUICK = ("--protocol=micro", "--set=suites.names=[]", "--set=track.mlflow=false")
SMALL = ("--set=problems.num_held_out=16", "--set=rollout.rollouts_per_step=16")


def run(launch: Launch, *arguments: str) -> tuple[int, str]:
    process = launch(*arguments, *QUICK, *SMALL)
    _, err = process.communicate(timeout=240)
    return process.returncode, err


def first_rollouts(path: Path) -> list[object]:
    lines = [json.loads(line) for line in (path / "rollouts.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] == lines[0]["step"]]


def test_a_comparison_starts_equal_for_all_and_repeats_nothing(
    launch: Launch, tmp_path: Path
) -> None:
    command = ("compare", "--algos=popo,grpo,grpo+untrained", "--max-steps=2", "--output=out")
    command += ("--set=track.rollouts=true",)
    code, err = run(launch, *command, "--seeds=1")
    assert code == 0, err
    runs = tmp_path / "out" / "runs"
    popo = first_rollouts(runs / "popo/seed-0")
    assert len(popo) == 16
    assert popo == first_rollouts(runs / "grpo/seed-0")
    records = {path.parent.parent.name: RunReader(path.parent).record()
               for path in runs.glob("*/*/record.json")}  # fmt: skip
    assert {record.status for record in records.values()} == {"finished"}
    assert len({record.protocol_digest for record in records.values()}) == 1
    untrained = records["grpo+untrained"]
    assert untrained.control == "untrained" and untrained.costs.trained_tokens == 0
    assert untrained.evaluations[0].outcomes == untrained.evaluations[-1].outcomes
    written = (runs / "popo/seed-0/record.json").stat().st_mtime_ns
    code, err = run(launch, *command, "--seeds=2", "--only=algo=grpo,seed=1")
    assert code == 0, err
    assert (runs / "popo/seed-0/record.json").stat().st_mtime_ns == written
    assert (runs / "grpo/seed-1/record.json").exists()
    assert not (runs / "popo/seed-1").exists()
    assert "popo: 1 of 2 seeds done" in err
    code, err = run(launch, *command[:2], "--max-steps=3", "--output=out", "--seeds=1")
    assert code == 2 and "differs in" in err and "train.max_steps" in err


@pytest.mark.parametrize("blow", [signal.SIGTERM, signal.SIGKILL])
def test_what_is_stopped_goes_on(launch: Launch, tmp_path: Path, blow: signal.Signals) -> None:
    command = ("compare", "--algos=popo,grpo", "--seeds=1", "--max-steps=40", "--output=out")
    process = launch(*command, *QUICK, *SMALL)
    metrics = tmp_path / "out/runs/popo/seed-0/metrics.jsonl"
    wait(lambda: metrics.is_file() and metrics.read_bytes().count(b"\n") > 5, process)
    process.send_signal(blow)
    process.communicate(timeout=60)
    assert process.returncode == (75 if blow == signal.SIGTERM else -signal.SIGKILL)
    popo = RunReader(metrics.parent)
    wait(lambda: not popo.is_alive())  # orphans save and end, too
    assert popo.record().status == "interrupted"
    code, err = run(launch, *command)
    assert code == 0 and "goes on where it was stopped" in err, err
    assert popo.record().status == "finished"
    assert [line.step for line in popo.metrics() if "reward/mean" in line.metrics] == [
        *range(1, 41)
    ]


def test_a_run_that_fails_takes_no_other_with_it(launch: Launch, tmp_path: Path) -> None:
    plug_in = tmp_path / "bad.py"
    plug_in.write_text(
        "from rlvr_zoo_algorithms.grpo import GRPO\n"
        "class Bad(GRPO):\n"
        "    def prepare(self, batch, seen):\n"
        "        raise ZeroDivisionError('on purpose')\n"
    )
    command = ("compare", "--algos=bad:Bad,grpo", "--seeds=1", "--max-steps=2", "--output=out")
    code, err = run(launch, *command)
    assert code == 1
    assert "bad:Bad seed 0 failed: ZeroDivisionError: on purpose" in err
    assert (tmp_path / "out/runs/grpo/seed-0/record.json").exists()
    assert "bad:Bad: 0 of 1 seeds done" in err


def wait(ready: Callable[[], bool], process: "subprocess.Popen[str] | None" = None) -> None:
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline, "it takes too long"
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        time.sleep(0.05)


def test_a_sweep_ends_with_its_table(launch: Launch, tmp_path: Path) -> None:
    command = ("sweep", "--algo=popo", "--over=similarity_coef=0,0.1", "--seeds=1")
    code, err = run(launch, *command, "--max-steps=1", "--output=out")
    assert code == 0, err
    assert "popo: similarity_coef, accuracy and 95 % interval" in err
    assert [line.split("│")[1].strip() for line in err.splitlines() if line.startswith("│")] == [
        "0.0", "0.1"
    ]  # fmt: skip
