"""Runs brought back from a real tracker are the folders that were sent, or are named."""

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from socket import create_server
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.comparison import Comparison
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mlflow import TrackerError, fetch, sync, sync_comparison
from rlvr_zoo.track.reader import RunReader
from rlvr_zoo.track.record import RunRecord
from rlvr_zoo.track.state import MirrorState

from .conftest import ID, MakeRun

# mlflow's own, with each new version of what it stands on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

FILES = ("config.yaml", "record.json", "metrics.jsonl", "evaluations.jsonl")


@pytest.fixture
def served(tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The same tracker behind HTTP, which MLFLOW_TRACKING_URI names; it keeps the files, too."""
    with create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--backend-store-uri", tracker,
        "--artifacts-destination", str(tmp_path / "files"), "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for(f"{uri}/health", server)
            monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
            yield uri
        finally:
            server.terminate()


def wait_for(url: str, server: "subprocess.Popen[bytes]", timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            assert server.poll() is None, "the server ended"
            assert time.monotonic() < deadline, "the server never answered"
            time.sleep(0.2)


def assert_same(fetched: Path, sent: Path) -> None:
    for name in FILES:
        assert (fetched / name).read_bytes() == (sent / name).read_bytes()


def test_a_comparison_comes_back_as_it_was_sent(
    comparison: Path, make_run: MakeRun, run: RunFolder, record: RunRecord, tracker: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    sent = {
        f"{entrant}/seed-{seed}": make_run(entrant, seed)
        for entrant in ("grpo", "popo")
        for seed in (0, 1)
    }
    sync_comparison(comparison)
    run.write_record(replace(record, status="finished", protocol_digest="another"))
    lone = sync(run.path)

    done = fetch(tracker, tmp_path / "all")
    assert done.left_out == ()
    assert len(done.runs) == 5
    for name, path in sent.items():
        assert_same(tmp_path / "all" / ID / "runs" / name, path)
    assert Comparison.read(tmp_path / "all" / ID) == Comparison.read(comparison)
    state = MirrorState.load(tmp_path / "all" / lone.run_id)
    assert state is not None
    assert (state.tracking_uri, state.run_id) == (tracker, lone.run_id)

    assert len(fetch(tracker, tmp_path / "a", digest="1f3a9c0de77b").runs) == 4
    assert len(fetch(tracker, tmp_path / "b", digest="another").runs) == 1
    assert len(fetch(tracker, tmp_path / "c", comparison=ID).runs) == 4
    assert fetch(tracker, tmp_path / "d", digest="none").runs == ()


def test_a_server_keeps_the_files(
    comparison: Path,
    make_run: MakeRun,
    served: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = make_run("popo", 0)
    done = sync_comparison(comparison)
    assert (done.tracking_uri, done.num_missing) == (served, 3)
    back = fetch(served, tmp_path / "back", comparison=ID)
    assert back.left_out == ()
    (fetched,) = back.runs
    assert_same(fetched, path)
    again = sync(fetched)
    assert (again.num_metrics, again.artifacts) == (0, ())
    assert again.run_id == done.runs[0].run_id
    assert capfd.readouterr() == ("", "")


def test_what_is_not_whole_is_left_out_and_named(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path
) -> None:
    paths = [make_run(entrant, seed) for entrant in ("grpo", "popo") for seed in (0, 1)]
    ids = [each.run_id for each in sync_comparison(comparison).runs]
    client = MlflowClient(tracker)

    def stored(number: int, name: str) -> Path:
        return Path(client.get_run(ids[number]).info.artifact_uri) / name

    with open(stored(0, "metrics.jsonl"), "ab") as file:
        file.write(b"\n")
    stored(1, "evaluations.jsonl").unlink()
    client.set_tag(ids[2], "rlvr_zoo.digest", "other")
    done = fetch(tracker, tmp_path / "back")
    assert [each.name for each in done.runs] == ["seed-1"]
    assert_same(done.runs[0], paths[3])
    reasons = dict(done.left_out)
    assert "metrics.jsonl is not what was sent" in reasons[ids[0]]
    assert "evaluations.jsonl" in reasons[ids[1]]
    assert "another protocol digest" in reasons[ids[2]]
    assert not any("\n" in reason for reason in reasons.values())
    found = {each.parent for each in (tmp_path / "back").rglob("config.yaml")}
    assert found == set(done.runs)


def test_a_record_of_another_version_is_left_out(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path
) -> None:
    path = make_run("popo", 0)
    sync(path)
    state = MirrorState.load(path)
    assert state is not None
    later = path / "record.json"
    later.write_text(later.read_text().replace('"schema": 1', '"schema": 2'))
    client = MlflowClient(tracker)
    client.log_artifact(state.run_id, str(later))
    files = {**state.artifacts, "record.json": hashlib.sha256(later.read_bytes()).hexdigest()}
    client.set_tag(state.run_id, "rlvr_zoo.files", json.dumps(files))
    reasons = dict(fetch(tracker, tmp_path / "back").left_out)
    assert "schema 2" in reasons[state.run_id]


def test_a_run_that_lives_and_a_plan_that_was_not_sent_are_named(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path
) -> None:
    sync(make_run("popo", 0, status="running"), live=True)
    whole = sync(make_run("popo", 1))
    done = fetch(tracker, tmp_path / "back")
    assert [each.name for each in done.runs] == ["seed-1"]
    assert MirrorState.load(done.runs[0]).run_id == whole.run_id  # type: ignore[union-attr]
    reasons = [reason for _, reason in done.left_out]
    assert len(reasons) == 2
    assert any("config.yaml was not sent" in reason for reason in reasons)
    assert any("comparison.json" in reason for reason in reasons)


def test_a_repeated_run_does_not_hide_the_first(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path
) -> None:
    path = make_run("popo", 0)
    first = sync(path)
    shutil.rmtree(path)
    second = sync(make_run("popo", 0))
    done = fetch(tracker, tmp_path / "back")
    assert {MirrorState.load(each).run_id for each in done.runs} == {  # type: ignore[union-attr]
        first.run_id,
        second.run_id,
    }


@pytest.mark.parametrize("value", ["..", "../../a", "/a", ""])
def test_tags_cannot_lead_out_of_the_folder(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path, value: str
) -> None:
    run_id = sync(make_run("popo", 0)).run_id
    client = MlflowClient(tracker)
    for name in ("comparison", "entrant", "seed"):
        client.set_tag(run_id, f"rlvr_zoo.{name}", value)
    out = tmp_path / "back"
    (path,) = fetch(tracker, out).runs
    assert path.resolve().is_relative_to(out) and path.resolve() != out
    assert RunReader(path).record().seed == 0


def test_a_folder_in_use_and_a_tracker_that_is_not_there(
    comparison: Path, tracker: str, tmp_path: Path
) -> None:
    with pytest.raises(RunFolderError, match="fetch into a new folder"):
        fetch(tracker, comparison)
    with pytest.raises(TrackerError, match="no such database"):
        fetch(f"sqlite:///{tmp_path / 'nowhere.db'}", tmp_path / "back")
    assert not (tmp_path / "nowhere.db").exists()
    with pytest.raises(TrackerError, match="leave out the quote"):
        fetch(tracker, tmp_path / "back2", comparison="a' or 'b")


def test_a_tracker_that_is_down(tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as server:
        uri = f"http://me:hunter2@127.0.0.1:{server.getsockname()[1]}"
    with pytest.raises(TrackerError, match="check the URI") as caught:
        fetch(uri, tmp_path / "back")
    assert "hunter2" not in str(caught.value)
