"""Comparisons on a real tracker: one parent, children, and evaluations below them."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Barrier, BrokenBarrierError

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from rlvr_zoo.errors import RunFolderError
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.mlflow import TrackerError, parent, sync, sync_comparison
from rlvr_zoo.track.record import RunRecord

from .conftest import ID, MakeRun, evaluation

# mlflow's own, with each new version of what it stands on.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def at_level(uri: str, level: str) -> list[Run]:
    client = MlflowClient(uri)
    toy = client.get_experiment_by_name("toy")
    return list(client.search_runs([toy.experiment_id], f"tags.`rlvr_zoo.level` = '{level}'"))


def below(uri: str, run: Run, level: str) -> list[Run]:
    found = at_level(uri, level)
    return [each for each in found if each.data.tags["mlflow.parentRunId"] == run.info.run_id]


def evaluations_of(uri: str, run: Run) -> dict[tuple[str, str], dict[str, float]]:
    return {
        (each.data.tags["rlvr_zoo.suite"], each.data.tags["rlvr_zoo.step"]): each.data.metrics
        for each in below(uri, run, "evaluation")
    }


def test_a_comparison_is_a_tree_of_runs(comparison: Path, make_run: MakeRun, tracker: str) -> None:
    for entrant in ("grpo", "popo"):
        for seed in (0, 1):
            make_run(entrant, seed)
    done = sync_comparison(comparison)
    assert (done.status, done.num_missing, done.not_sent) == ("FINISHED", 0, ())
    (top,) = at_level(tracker, "comparison")
    assert top.info.run_id == done.run_id
    assert (top.info.run_name, top.info.status) == (ID, "FINISHED")
    assert top.data.tags["rlvr_zoo.comparison"] == ID
    assert top.data.tags["rlvr_zoo.protocol"] == "micro"
    assert top.data.tags["rlvr_zoo.digest"] == "1f3a9c0de77b"
    assert top.data.tags["rlvr_zoo.kind"] == "compare"
    assert top.data.params == {"rollout.temperature": "1.0", "model": "abc"}
    client = MlflowClient(tracker)
    assert [each.path for each in client.list_artifacts(top.info.run_id)] == ["comparison.json"]

    children = below(tracker, top, "run")
    assert sorted(each.info.run_name for each in children) == [
        "grpo/seed-0",
        "grpo/seed-1",
        "popo/seed-0",
        "popo/seed-1",
    ]
    assert {each.data.tags["rlvr_zoo.comparison"] for each in children} == {ID}
    assert len(at_level(tracker, "run")) == 4
    assert len(at_level(tracker, "evaluation")) == 4 * 4


def test_evaluations_below_a_run_are_suites_and_both_ends_of_the_held_out_ones(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    make_run("popo", 1)
    sync_comparison(comparison)
    (run,) = at_level(tracker, "run")
    found = evaluations_of(tracker, run)
    assert set(found) == {("held-out", "0"), ("held-out", "10"), ("aime", "0"), ("aime", "10")}
    assert found["aime", "10"] == {"accuracy": 0.25, "low": 0.1, "high": 0.9, "pass_at_2": 0.5}
    (last,) = (
        each for each in below(tracker, run, "evaluation") if each.info.run_name == "aime, step 10"
    )
    assert last.info.status == "FINISHED"
    assert last.data.params == {"num_problems": "2", "num_samples": "2"}
    for name in ("comparison", "entrant", "protocol", "digest", "algorithm", "seed"):
        assert last.data.tags[f"rlvr_zoo.{name}"] == run.data.tags[f"rlvr_zoo.{name}"]


def test_a_second_sync_sends_nothing(
    comparison: Path, make_run: MakeRun, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("popo", 0)
    first = sync_comparison(comparison)
    for name in ("log_batch", "log_artifact", "create_run", "delete_run", "set_tag", "update_run"):
        monkeypatch.delattr(MlflowClient, name)
    again = sync_comparison(comparison)
    assert again.run_id == first.run_id
    assert [(each.num_metrics, each.artifacts) for each in again.runs] == [(0, ())]


def test_the_parent_runs_until_every_planned_run_is_finished(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    for entrant, seed in (("popo", 0), ("popo", 1), ("grpo", 0)):
        make_run(entrant, seed)
    late = make_run("grpo", 1, status="interrupted")
    done = sync_comparison(comparison)
    assert (done.status, done.num_missing) == ("RUNNING", 1)
    with RunFolder.open(late) as folder:
        folder.write_record(replace(folder.record(), status="finished"))
    done = sync_comparison(comparison)
    assert (done.status, done.num_missing) == ("FINISHED", 0)
    with RunFolder.open(late) as folder:  # resumed with more steps
        folder.write_record(replace(folder.record(), status="running"))
        done = sync_comparison(comparison)
    assert (done.status, done.num_missing) == ("RUNNING", 1)
    assert [each.info.status for each in at_level(tracker, "comparison")] == ["RUNNING"]


def test_another_machines_children_count(
    comparison: Path, make_run: MakeRun, tracker: str, tmp_path: Path
) -> None:
    for seed in (0, 1):
        make_run("popo", seed)
    assert sync_comparison(comparison).num_missing == 2
    there = tmp_path / "there"
    there.mkdir()
    (there / "comparison.json").write_bytes((comparison / "comparison.json").read_bytes())
    for seed in (0, 1):
        make_run("grpo", seed, there)
    assert sync_comparison(there).status == "FINISHED"
    (top,) = at_level(tracker, "comparison")
    assert len(below(tracker, top, "run")) == 4


def test_what_the_run_went_back_behind_is_taken_off_the_tracker(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    path = make_run("popo", 0)
    sync(path)
    (run,) = at_level(tracker, "run")
    with RunFolder.open(path) as folder:
        folder.rewind(5)
        folder.write_record(folder.record().rewound(5, folder.evaluations()))
        sync(path)
        assert set(evaluations_of(tracker, run)) == {("held-out", "0"), ("aime", "0")}
        folder.append_evaluation(replace(evaluation(10), accuracy=0.75))
        folder.write_record(replace(folder.record(), status="finished"))
    sync(path)
    found = evaluations_of(tracker, run)
    assert set(found) == {("held-out", "0"), ("aime", "0"), ("held-out", "10")}
    assert found["held-out", "10"]["accuracy"] == 0.75
    assert len(at_level(tracker, "evaluation")) == 3


@pytest.mark.parametrize("call", ["create_run", "log_batch", "set_terminated"])
@pytest.mark.parametrize("when", [1, 2])
def test_evaluations_that_a_kill_cut_short_are_sent_once(
    comparison: Path,
    make_run: MakeRun,
    tracker: str,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    when: int,
) -> None:
    path = make_run("popo", 0, status="running")
    sync(path, live=True)
    with RunFolder.open(path) as folder:
        folder.write_record(replace(folder.record(), status="finished"))
    real, calls = getattr(MlflowClient, call), []

    def hang_up(self: MlflowClient, run_id: str, *args: object, **named: object) -> object:
        answer = real(self, run_id, *args, **named)
        # Tags, which go first, are one call of log_batch's.
        calls.append("tags" not in named or call == "create_run")
        if sum(calls) == when:
            raise ConnectionError("gone")
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, hang_up)
        with pytest.raises(TrackerError, match="gone"):
            sync(path)
    sync(path)
    (run,) = at_level(tracker, "run")
    found = below(tracker, run, "evaluation")
    assert len(found) == 4
    assert {each.info.status for each in found} == {"FINISHED"}
    assert {len(each.data.metrics) for each in found} == {4}


def test_a_run_that_is_not_finished_has_no_last_evaluation(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    sync(make_run("popo", 0, status="failed"))
    (run,) = at_level(tracker, "run")
    assert ("held-out", "10") not in evaluations_of(tracker, run)
    assert ("aime", "10") in evaluations_of(tracker, run)


def test_a_lone_run_has_neither_parent_nor_runs_below(
    run: RunFolder, record: RunRecord, tracker: str
) -> None:
    run.append_evaluation(evaluation(0))
    run.write_record(replace(record, status="finished"))
    sync(run.path)
    (at,) = at_level(tracker, "run")
    assert "mlflow.parentRunId" not in at.data.tags
    assert at_level(tracker, "comparison") == at_level(tracker, "evaluation") == []


def test_one_runs_id_in_the_environment_is_not_every_runs(
    comparison: Path, make_run: MakeRun, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = MlflowClient(tracker).create_run("0").info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", other)
    runs = [sync(make_run("popo", seed)).run_id for seed in (0, 1)]
    assert len({*runs, other}) == 3


# ------------------------------------------------------------------------------- who makes it


def test_processes_that_start_together_make_one_parent(
    comparison: Path, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracker)
    experiment = client.create_experiment("toy")
    search = parent.runs_with
    together = Barrier(4)

    def slow(*args: object) -> list[Run]:
        found = search(*args)
        if not found:
            with suppress(BrokenBarrierError):
                together.wait(1.0)
        return found

    monkeypatch.setattr(parent, "runs_with", slow)
    with ThreadPoolExecutor(4) as pool:
        calls = [
            pool.submit(parent.find_or_make, client, experiment, ID, comparison) for _ in range(4)
        ]
    assert len({each.result().info.run_id for each in calls}) == 1
    everything = ViewType.ALL  # not even one that was deleted
    assert len(client.search_runs([experiment], run_view_type=everything)) == 1


def test_machines_that_start_together_agree_on_the_oldest_parent(
    comparison: Path, make_run: MakeRun, tracker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = MlflowClient(tracker)
    experiment = client.create_experiment("toy")
    tags = {"rlvr_zoo.comparison": ID, "rlvr_zoo.level": "comparison"}
    search: Callable[..., list[Run]] = parent.runs_with
    calls: list[int] = []

    def race(*args: object) -> list[Run]:
        """Another machine makes its own between our search and our making."""
        found = search(*args)
        calls.append(1)
        if len(calls) == 2:
            client.create_run(experiment, tags=tags, start_time=1)
        return found

    monkeypatch.setattr(parent, "runs_with", race)
    sync(make_run("popo", 0))
    (top,) = at_level(tracker, "comparison")
    assert top.info.start_time == 1
    assert len(below(tracker, top, "run")) == 1


def test_children_of_a_second_parent_are_moved_and_find_the_first(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    paths = [make_run("popo", seed) for seed in (0, 1)]
    for path in paths:
        sync(path, live=True)
    (second,) = at_level(tracker, "comparison")
    client = MlflowClient(tracker)
    tags = {"rlvr_zoo.comparison": ID, "rlvr_zoo.level": "comparison"}
    client.create_run(second.info.experiment_id, tags=tags, start_time=1)
    sync(paths[0])
    (top,) = at_level(tracker, "comparison")
    assert top.info.start_time == 1
    assert len(below(tracker, top, "run")) == 2
    sync(paths[1])
    assert len(below(tracker, top, "run")) == 2
    assert top.data.tags["rlvr_zoo.digest"] == "1f3a9c0de77b"


# ------------------------------------------------------------------------------------ bad input


def test_damaged_and_busy_runs_are_named_and_the_others_sent(
    comparison: Path, make_run: MakeRun, tracker: str
) -> None:
    from rlvr_zoo.track.storage import Lock

    paths = {seed: make_run("popo", seed) for seed in (0, 1)}
    busy = make_run("grpo", 0)
    (paths[0] / "record.json").write_text("{")
    lock = Lock.acquire(busy / ".mlflow.lock")
    assert lock is not None
    done = sync_comparison(comparison)
    lock.release()
    assert [each.status for each in done.runs] == ["FINISHED"]
    (a, why_a), (b, why_b) = done.not_sent
    assert (a, b) == (busy, paths[0])
    assert "another process" in why_a
    assert "damaged record" in why_b
    assert (done.status, done.num_missing) == ("RUNNING", 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema": 2}, "damaged (schema"),
        ({"kind": "race"}, "damaged (kind"),
        ({"seeds": "0,1"}, "damaged (seeds"),
        ({"entrants": [{}]}, "damaged (entrants.0.name"),
    ],
)
def test_a_damaged_plan_is_one_line(
    comparison: Path, change: dict[str, object], words: str
) -> None:
    path = comparison / "comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(RunFolderError) as caught:
        sync_comparison(comparison)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_plan_and_no_json(comparison: Path) -> None:
    (comparison / "comparison.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"comparison\.json: damaged"):
        sync_comparison(comparison)
    (comparison / "comparison.json").unlink()
    with pytest.raises(RunFolderError, match="no comparison to read"):
        sync_comparison(comparison)


def test_a_plan_of_nothing_is_finished(comparison: Path, tracker: str) -> None:
    path = comparison / "comparison.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"entrants": []}))
    done = sync_comparison(comparison, experiment="toy")
    assert (done.status, done.num_missing) == ("FINISHED", 0)
