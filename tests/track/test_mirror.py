import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from socket import create_server

import pytest
from mlflow import MlflowClient

from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mirror import Mirror
from rlvr_zoo.track.record import RunRecord
from rlvr_zoo.track.state import MirrorState

# mlflow's own, with each new version of what it stands on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def wait_for(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def sent_step(path: Path) -> int:
    state = MirrorState.load(path)
    return -1 if state is None else state.last_step


@pytest.fixture
def deaf() -> Iterator[str]:
    """A tracker that takes connections and never answers."""
    with create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_metrics_arrive_while_the_run_lives_and_the_end_at_close(
    run: RunFolder, record: RunRecord, tracker: str
) -> None:
    warnings: list[str] = []
    with Mirror(run.path, warnings.append):
        wait_for(lambda: sent_step(run.path) == 2)
        run.append_metrics(3, {"train/loss": 0.1})
        wait_for(lambda: sent_step(run.path) == 3)
        run.append_metrics(4, {"train/loss": 0.0})
        run.write_record(replace(record, status="finished"))
    state = MirrorState.load(run.path)
    assert state is not None
    assert (state.last_step, state.status) == (4, "FINISHED")
    assert set(state.artifacts) == {"config.yaml", "record.json", "metrics.jsonl"}
    assert MlflowClient(tracker).get_run(state.run_id).data.metrics["train/loss"] == 0.0
    assert warnings == []


def test_a_deaf_tracker_costs_one_warning_and_a_bounded_wait(
    run: RunFolder, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", deaf)
    warnings: list[str] = []
    mirror = Mirror(run.path, warnings.append)
    start = time.monotonic()
    mirror.close(timeout_s=1.0)
    mirror.close(timeout_s=1.0)
    assert time.monotonic() - start < 2.5
    (warning,) = warnings
    assert warning.startswith("MLflow did not take the run within 1 s; the run goes on")
    assert f"`rlvr-zoo track sync {run.path}`" in warning


def test_a_tracker_that_is_down_costs_one_warning(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    warnings: list[str] = []
    with Mirror(run.path, warnings.append):
        wait_for(lambda: bool(warnings))
    (warning,) = warnings
    assert "http://127.0.0.1:9" in warning
    assert "track sync" in warning
    assert "\n" not in warning


def test_no_mlflow_costs_one_warning(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent" / "mlflow.py"
    absent.parent.mkdir()
    absent.write_text("raise ModuleNotFoundError(\"No module named 'mlflow'\", name='mlflow')")
    monkeypatch.setenv("PYTHONPATH", str(absent.parent))
    warnings: list[str] = []
    Mirror(run.path, warnings.append).close()
    (warning,) = warnings
    assert warning.startswith("mlflow is not installed; install it, and `rlvr-zoo track sync")


TRAINER = """
import os, sys, time
from pathlib import Path
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mirror import Mirror
folder = RunFolder.open(Path(sys.argv[1]))
mirror = Mirror(folder.path, print)
child = os.fork()  # a verifier's worker, which keeps the mirror's standard input open
if child == 0:
    time.sleep(30)
    os._exit(0)
print(child, flush=True)
time.sleep(60)
"""


def test_a_killed_run_is_noticed_and_marked(run: RunFolder, tracker: str) -> None:
    run.close()
    command = [sys.executable, "-c", TRAINER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        child = int(trainer.stdout.readline())
        try:
            wait_for(lambda: sent_step(run.path) == 2)
            trainer.kill()
            trainer.wait()
            # Files go with the last sync only: so the mirror did not merely go on as before.
            wait_for(lambda: '"record.json"' in (run.path / "mlflow.json").read_text())
        finally:
            os.kill(child, signal.SIGKILL)
    state = MirrorState.load(run.path)
    assert state is not None
    assert MlflowClient(tracker).get_run(state.run_id).info.status == "KILLED"
