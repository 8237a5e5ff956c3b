import json
import math
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from socket import create_server

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mlflow import TrackerError, sync
from rlvr_zoo.track.record import RunRecord
from rlvr_zoo.track.state import MirrorState

from .conftest import evaluation

# mlflow's own, with each new version of what it stands on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def runs_at(uri: str, experiment: str = "toy") -> list[Run]:
    client = MlflowClient(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(uri: str, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(each.step, each.value) for each in MlflowClient(uri).get_metric_history(run_id, name)]


@pytest.fixture
def deaf() -> Iterator[str]:
    """A tracker that takes connections and never answers."""
    with create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def refusing() -> str:
    """A tracker that is down."""
    with create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_all_of_the_folder_arrives_and_nothing_twice(
    run: RunFolder, record: RunRecord, tracker: str
) -> None:
    run.append_evaluation(evaluation(0))
    run.write_record(replace(record, status="finished"))
    done = sync(run.path)
    assert (done.num_metrics, done.status) == (4, "FINISHED")
    assert done.artifacts == ("config.yaml", "record.json", "metrics.jsonl", "evaluations.jsonl")
    (at,) = runs_at(tracker)
    assert at.info.run_id == done.run_id
    assert at.info.status == "FINISHED"
    assert at.info.run_name == "run"
    assert at.data.params == {
        "algorithm.name": "grpo",
        "algorithm.settings.clip_high": "0.28",
        "seed": "3",
        "model.name": "tiny",
        "model.system": "",
        "track.mlflow": "true",
        "track.experiment": "toy",
    }
    assert at.data.tags["rlvr_zoo.digest"] == "1f3a9c0de77b"
    assert at.data.tags["rlvr_zoo.status"] == "finished"
    assert history(tracker, done.run_id, "train/loss") == [(1, 0.5), (2, 0.25)]
    assert math.isnan(history(tracker, done.run_id, "train/kl")[0][1])
    (dataset,) = at.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.dataset.digest) == ("addition", "ab" * 18)
    client = MlflowClient(tracker)
    assert len(client.list_artifacts(done.run_id)) == 4

    again = sync(run.path)
    assert (again.num_metrics, again.artifacts, again.run_id) == (0, (), done.run_id)
    assert len(runs_at(tracker)) == 1


def test_only_what_is_new_is_sent_and_a_rewound_run_is_sent_anew(
    run: RunFolder, tracker: str
) -> None:
    assert sync(run.path, live=True).num_metrics == 4
    run.append_metrics(3, {"train/loss": 0.1})
    done = sync(run.path, live=True)
    assert (done.num_metrics, done.artifacts, done.status) == (1, (), "RUNNING")
    run.rewind(2)
    run.append_metrics(3, {"train/loss": 0.2})
    assert sync(run.path).num_metrics == 1
    assert history(tracker, done.run_id, "train/loss") == [(1, 0.5), (2, 0.25), (3, 0.1), (3, 0.2)]
    assert MlflowClient(tracker).get_run(done.run_id).data.metrics["train/loss"] == 0.2


def test_batches_keep_within_mlflows_limits(run: RunFolder, tracker: str) -> None:
    for step in range(3, 6):
        run.append_metrics(step, {f"train/m{i}": float(step) for i in range(400)})
    run.append_metrics(6, {f"train/n{i}": 1.0 for i in range(1100)})
    done = sync(run.path)
    assert done.num_metrics == 4 + 3 * 400 + 1100
    assert history(tracker, done.run_id, "train/m399") == [(step, step) for step in range(3, 6)]
    assert history(tracker, done.run_id, "train/n1099") == [(6, 1.0)]


def test_names_and_values_that_mlflow_forbids(tmp_path: Path, tracker: str) -> None:
    config = {"problem's": "x" * 7000, **{f"key{i}": i for i in range(150)}}
    with RunFolder.create(tmp_path / "run", config) as run:
        run.append_metrics(1, {"avg@32": 1.0, "/a//b/../c": 2.0, "train/loss": 3.0})
        done = sync(run.path)
    data = MlflowClient(tracker).get_run(done.run_id).data
    assert set(data.metrics) == {"avg_32", "_/a/_/b/_/c", "train/loss"}
    assert len(data.params) == 151
    assert data.params["problem_s"] == "x" * 6000


def test_a_run_that_died_is_killed_and_a_resumed_one_runs(
    run: RunFolder, record: RunRecord, tracker: str
) -> None:
    run.close()
    assert sync(run.path).status == "KILLED"
    with RunFolder.open(run.path) as again:
        assert sync(run.path).status == "RUNNING"
        again.write_record(replace(record, status="failed", error="no"))
        assert sync(run.path).status == "FAILED"
        again.write_record(replace(record, status="interrupted"))
        assert sync(run.path).status == "KILLED"
    assert [each.info.status for each in runs_at(tracker)] == ["KILLED"]


def test_the_users_environment_is_honoured(
    run: RunFolder, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    monkeypatch.setenv("MLFLOW_TAGS", json.dumps({"team": "zoo", "try": 2}))
    first = sync(run.path)
    (at,) = runs_at(tracker, "mine")
    assert (at.data.tags["team"], at.data.tags["try"]) == ("zoo", "2")

    client = MlflowClient(tracker)
    other = client.create_run(at.info.experiment_id).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    assert sync(run.path).run_id == other != first.run_id
    assert history(tracker, other, "train/loss") == [(1, 0.5), (2, 0.25)]

    monkeypatch.setenv("MLFLOW_TAGS", "team=zoo")
    with pytest.raises(TrackerError, match="MLFLOW_TAGS is no JSON"):
        sync(run.path)


def test_the_tracker_that_has_the_run_is_the_default(
    run: RunFolder, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sync(run.path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    again = sync(run.path)
    assert (again.run_id, again.num_metrics, again.tracking_uri) == (first.run_id, 0, tracker)


def test_an_answer_that_is_lost_makes_no_second_run(
    run: RunFolder, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowClient.create_run

    def create_and_hang_up(*args: object, **named: object) -> None:
        create(*args, **named)
        raise ConnectionError("reset by peer")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "create_run", create_and_hang_up)
        with pytest.raises(TrackerError, match="reset by peer"):
            sync(run.path)
    done = sync(run.path)
    assert [each.info.run_id for each in runs_at(tracker)] == [done.run_id]
    assert done.num_metrics == 4


def test_a_tracker_lost_in_mid_send_is_caught_up_with(
    run: RunFolder, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync(run.path, live=True)
    for step in range(3, 6):
        run.append_metrics(step, {f"m{i}": 1.0 for i in range(600)})
    send, calls = MlflowClient.log_batch, []

    def send_one(self: MlflowClient, *args: object, **named: object) -> None:
        calls.append(1)
        if len(calls) > 1:
            raise ConnectionError("gone")
        send(self, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", send_one)
        with pytest.raises(TrackerError, match="gone"):
            sync(run.path)
    state = MirrorState.load(run.path)
    assert state is not None
    assert state.last_step == 3
    done = sync(run.path)
    assert done.num_metrics == 1200
    assert history(tracker, done.run_id, "m599") == [(3, 1.0), (4, 1.0), (5, 1.0)]


def test_failures_are_one_line_without_the_password(
    run: RunFolder, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = refusing.replace("http://", "http://me:hunter2@")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    start = time.monotonic()
    with pytest.raises(TrackerError) as caught:
        sync(run.path)
    assert time.monotonic() - start < 5
    text = str(caught.value)
    assert "\n" not in text
    assert "hunter2" not in text
    assert f"MLflow at {refusing} failed (" in text
    assert f"`rlvr-zoo track sync {run.path}`" in text
    assert not any(b"hunter2" in each.read_bytes() for each in run.path.iterdir())


@pytest.mark.parametrize("uri", ["nonsense://x", "http://[bad", "postgresql+none://x/y"])
def test_a_bad_uri_is_one_line(run: RunFolder, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrackerError, match="track sync"):
        sync(run.path)


def test_a_deaf_tracker_is_given_up(
    run: RunFolder, deaf: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", deaf)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    start = time.monotonic()
    with pytest.raises(TrackerError, match="timed out"):
        sync(run.path)
    assert time.monotonic() - start < 4


def test_two_senders_do_not_meet(run: RunFolder, tracker: str) -> None:
    from rlvr_zoo.track.storage import Lock

    lock = Lock.acquire(run.path / ".mlflow.lock")
    assert lock is not None
    with pytest.raises(TrackerError, match="another process is sending"):
        sync(run.path)
    lock.release()
    assert sync(run.path).num_metrics == 4


def test_a_first_use_is_silent_and_makes_the_default_database(
    first_use: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, done = first_use
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (folder / "mlflow.db").is_file()
