"""`--num-processes` starts ranks, and however they end, it says so in one line and leaves none."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .conftest import Launch

SMALL = (
    "run",
    "--algo=popo",
    "--set=rollout.rollouts_per_step=32",
    "--set=problems.num_held_out=16",
    "--set=evaluate.every=0",
    "--set=suites.names=[]",
    "--set=checkpoint.every=0",
    "--output=out",
)
TWO = "--num-processes=2"
PATIENCE_S = 240


def ranks_of(launcher: int) -> dict[int, psutil.Process]:
    """The ranks that a launcher has started, by number."""
    found = {}
    for process in psutil.Process(launcher).children():
        try:
            found[int(process.environ()["RANK"])] = process
        except (psutil.Error, KeyError):
            continue
    return found


def wait_for_step(folder: Path, step: int, process: "subprocess.Popen[str]") -> None:
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and f'"step": {step},' in metrics.read_text():
            return
        time.sleep(0.01)
    pytest.fail(f"the run did not reach step {step}: {process.communicate()[1]}")


def errors(err: str) -> list[str]:
    return [line for line in err.splitlines() if line.startswith("rlvr-zoo: error:")]


def finish(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, err


def record(tmp_path: Path) -> dict[str, object]:
    read: dict[str, object] = json.loads((tmp_path / "out/record.json").read_text())
    return read


@pytest.mark.parametrize(
    ("number", "to", "code"),
    [
        (signal.SIGTERM, "launcher", 75),
        (signal.SIGINT, "launcher", 130),
        (signal.SIGTERM, "rank 1", 75),
    ],
)
def test_a_signal_saves_a_checkpoint_wherever_it_comes_to(
    launch: Launch, tmp_path: Path, number: signal.Signals, to: str, code: int
) -> None:
    process = launch(*SMALL, "--max-steps=500", TWO)
    wait_for_step(tmp_path / "out", 2, process)
    ranks = ranks_of(process.pid)
    assert sorted(ranks) == [0, 1]
    (process if to == "launcher" else ranks[1]).send_signal(number)
    returned, err = finish(process)
    assert returned == code, err
    assert not errors(err) and "Traceback" not in err
    assert not any(rank.is_running() for rank in ranks.values())
    kept = record(tmp_path)
    assert (kept["status"], kept["error"]) == ("interrupted", number.name)
    (checkpoint,) = (tmp_path / "out/checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{kept['steps_done']:08d}"


def test_sigterm_of_one_process_gives_the_code_that_schedulers_requeue_on(
    launch: Launch, tmp_path: Path
) -> None:
    process = launch(*SMALL, "--max-steps=500")
    wait_for_step(tmp_path / "out", 2, process)
    process.terminate()
    process.terminate()  # schedulers repeat themselves; the checkpoint is written all the same
    returned, err = finish(process)
    assert returned == 75, err
    assert record(tmp_path)["error"] == "SIGTERM"
    assert len(list((tmp_path / "out/checkpoints").glob("step-*"))) == 1


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_that_is_killed_ends_the_others_within_a_minute(
    launch: Launch, tmp_path: Path, victim: int
) -> None:
    process = launch(*SMALL, "--max-steps=500", TWO)
    wait_for_step(tmp_path / "out", 2, process)
    ranks = ranks_of(process.pid)
    ranks[victim].kill()
    start = time.monotonic()
    returned, err = finish(process)
    assert time.monotonic() - start < 30, "far below the minute that is promised"
    assert returned == 2
    (line,) = errors(err)
    assert f"rank {victim} was ended by SIGKILL" in line and "--resume" in line
    assert "Traceback" not in err
    assert not any(rank.is_running() for rank in ranks.values())


def test_a_rank_that_hangs_is_not_waited_for_longer_than_the_timeout(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLVR_ZOO_RANK_TIMEOUT_S", "8")
    process = launch(*SMALL, "--max-steps=500", TWO)
    wait_for_step(tmp_path / "out", 2, process)
    ranks = ranks_of(process.pid)
    ranks[1].suspend()
    start = time.monotonic()
    try:
        returned, err = finish(process)
    finally:  # one that is stopped outlives everybody who would end it
        with suppress(psutil.NoSuchProcess):
            ranks[1].kill()
    assert 4 < time.monotonic() - start < 45
    assert returned == 2
    (line,) = errors(err)
    assert "rank 0 waited for another rank in vain" in line
    assert "Traceback" not in err
    assert not any(rank.is_running() for rank in ranks.values())
    assert record(tmp_path)["status"] == "failed"


def test_ranks_do_not_outlive_a_launcher_that_is_killed(launch: Launch, tmp_path: Path) -> None:
    process = launch(*SMALL, "--max-steps=500", TWO)
    wait_for_step(tmp_path / "out", 2, process)
    ranks = ranks_of(process.pid)
    process.kill()
    psutil.wait_procs(list(ranks.values()), timeout=60)
    assert not any(rank.is_running() for rank in ranks.values())
    assert record(tmp_path)["status"] == "interrupted", "as by SIGTERM"


def faulty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Plants code that every process runs at its start, before ours."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(f"import os\n{code}")
    path = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


def test_a_fault_of_one_rank_is_shown_once_with_its_rank(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
if os.environ.get("RANK") == "1":
    from rlvr_zoo.rollout import groups
    def planted(*arguments):
        raise AssertionError("planted")
    groups.judged_groups = planted
"""
    faulty(tmp_path, monkeypatch, code)
    returned, err = finish(launch(*SMALL, "--max-steps=2", TWO))
    assert returned == 1, err
    assert err.count("Traceback (most recent call last)") == 1
    assert "rlvr-zoo: rank 1 failed" in err and "AssertionError: planted" in err
    assert not errors(err)


def test_ranks_of_different_versions_are_refused(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
if os.environ.get("RANK") == "1":
    import importlib.metadata as metadata
    real = metadata.version
    metadata.version = lambda name: "5.17.0" if name == "transformers" else real(name)
"""
    faulty(tmp_path, monkeypatch, code)
    returned, err = finish(launch(*SMALL, "--max-steps=2", TWO))
    assert returned == 2, err
    (line,) = errors(err)
    assert "transformers" in line and "on rank 0, 5.17.0 on rank 1" in line
    assert "Traceback" not in err and not (tmp_path / "out").exists()


def test_what_a_user_can_put_right_is_one_line(launch: Launch, tmp_path: Path) -> None:
    few = ("--set=rollout.rollouts_per_step=2", "--set=rollout.group_size=2")
    returned, err = finish(launch(*SMALL, *few, "--num-processes=3"))
    assert returned == 2
    (line,) = errors(err)
    assert "3 processes for 2 rollouts a step" in line and "rank 1" not in line
    assert "Traceback" not in err and "ChildFailedError" not in err
    assert not (tmp_path / "out").exists()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def across(launch: Launch, machine: int, port: int, *arguments: str) -> "subprocess.Popen[str]":
    return launch(
        *SMALL, *arguments, "--num-processes=1", "--machines=2", f"--machine-rank={machine}",
        f"--main-address=127.0.0.1:{port}",
    )  # fmt: skip


def test_two_machines_train_together(launch: Launch, tmp_path: Path) -> None:
    port = free_port()
    second = across(launch, 1, port, "--max-steps=2")
    first = across(launch, 0, port, "--max-steps=2")
    for process in (first, second):
        returned, err = finish(process)
        assert returned == 0, err
    assert record(tmp_path)["status"] == "finished"


def test_a_rank_that_dies_ends_the_other_machine(launch: Launch, tmp_path: Path) -> None:
    port = free_port()
    first = across(launch, 0, port, "--max-steps=500")
    second = across(launch, 1, port, "--max-steps=500")
    wait_for_step(tmp_path / "out", 2, first)
    ranks_of(second.pid)[1].kill()
    start = time.monotonic()
    for process in (first, second):
        returned, err = finish(process)
        assert returned == 2
        (line,) = errors(err)
        assert "rank 1 was ended by SIGKILL" in line and "Traceback" not in err
    assert time.monotonic() - start < 30


def test_machines_with_other_settings_are_refused(launch: Launch, tmp_path: Path) -> None:
    port = free_port()
    processes = [across(launch, n, port, "--max-steps=2", f"--seed={n}") for n in (0, 1)]
    for process in processes:
        returned, err = finish(process)
        assert returned == 2
        (line,) = errors(err)
        assert "another seed" in line


def test_torchrun_keeps_working_and_speaks_once(tiny: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone",
         "-m", "rlvr_zoo", *SMALL, "--set=rollout.group_size=7"],
        cwd=tmp_path, timeout=PATIENCE_S, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert len(errors(done.stderr)) == 1, done.stderr
