"""Which runs count, and what is said of those that do not."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from shutil import copytree

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.records import Records, read_records
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.provenance import Code
from rlvr_zoo.track.reader import RECORD
from rlvr_zoo.track.record import RunRecord

from .conftest import Entrant, change, make_runs

TWO: Mapping[str, float] = {"grpo": 0.6, "popo": 0.7}


def reasons(records: Records) -> dict[str, str]:
    return {each.where: each.reason for each in records.left_out}


def test_every_run_is_found_once_whatever_is_named_twice(tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", TWO, seeds=2)
    records = read_records([tmp_path / "runs", tmp_path])
    assert len(records.entries) == 4 and not records.left_out
    seen = [(entry.record.algorithm, entry.record.seed) for entry in records.entries]
    assert seen == [("grpo", 0), ("grpo", 1), ("popo", 0), ("popo", 1)]


def test_steps_add_up(tmp_path: Path) -> None:
    make_runs(tmp_path, {"grpo": 0.6}, seeds=1, steps=4)
    (entry,) = read_records([tmp_path]).entries
    assert [step.tokens for step in entry.steps] == [1000.0, 2000.0, 3000.0, 4000.0]
    assert [round(step.seconds, 6) for step in entry.steps] == [2.6, 5.2, 7.8, 10.4]
    assert set(entry.steps[0].signals) == {"entropy", "length", "no_signal"}
    assert entry.steps[-1].signals["no_signal"] == pytest.approx(0.6)


def test_bad_runs_are_named_and_left_out(tmp_path: Path) -> None:
    runs = {path.name: path for path in make_runs(tmp_path, TWO, seeds=5)}
    (runs["grpo-0"] / RECORD).write_text('{"schema": 1')
    change(runs["grpo-1"], status="failed", error="DivergedError: no end", steps_done=3)
    change(runs["grpo-2"], code=Code(), versions={"torch": "2"})
    change(runs["popo-0"], model_digest="")
    (runs["popo-1"] / RECORD).unlink()
    record = RunRecord.read(runs["popo-2"] / RECORD)
    change(runs["popo-2"], evaluations=record.evaluations[:-1])
    copytree(runs["popo-3"], tmp_path / "popo-3-again")
    text = (runs["popo-4"] / RECORD).read_text()
    (runs["popo-4"] / RECORD).write_text(text.replace('"schema": 1', '"schema": 7'))
    records = read_records([tmp_path])
    found = reasons(records)
    assert "damaged record" in found.pop("grpo-0")
    assert found.pop("grpo-1") == "failed after step 3: DivergedError: no end"
    assert "no provenance: the record has no commit" in found.pop("grpo-2")
    assert "no digest of the start weights" in found.pop("popo-0")
    assert "no record to read" in found.pop("popo-1")
    assert found.pop("popo-2") == "not measured on micro after its last step"
    assert found.pop("popo-3-again") == "the same entrant and seed as popo-3"
    assert "of schema 7" in found.pop("popo-4")
    assert not found
    names = [f"{entry.record.algorithm}-{entry.record.seed}" for entry in records.entries]
    assert names == ["grpo-3", "grpo-4", "popo-3"]


def test_other_settings_are_another_entrant(tmp_path: Path) -> None:
    make_runs(tmp_path / "a", {"grpo": Entrant(accuracy=0.6)}, seeds=2)
    make_runs(tmp_path / "b", {"grpo": Entrant(accuracy=0.6, lr=1e-3)}, seeds=2)
    records = read_records([tmp_path])
    assert len(records.entries) == 4 and not records.left_out
    assert len({entry.entrant for entry in records.entries}) == 2


def test_other_problems_are_left_out(tmp_path: Path) -> None:
    make_runs(tmp_path, TWO, seeds=3)
    odd = tmp_path / "popo-2"
    record = RunRecord.read(odd / RECORD)
    last = record.evaluations[-1]
    fewer = dict(list(last.outcomes.items())[:-1])
    mean = sum(map(sum, fewer.values())) / (len(fewer) * last.num_samples)
    other = replace(last, outcomes=fewer, accuracy=mean, num_problems=len(fewer))
    change(odd, evaluations=(*record.evaluations[:-1], other))
    assert "measured on other problems" in reasons(read_records([tmp_path]))["popo-2"]


def test_protocols_are_not_mixed_but_can_be_chosen(tmp_path: Path) -> None:
    make_runs(tmp_path / "a", TWO, seeds=1)
    make_runs(tmp_path / "b", TWO, seeds=1, temperature=0.5)
    with pytest.raises(ConfigError, match=r"differ in rollout\.temperature; choose one with --dig"):
        read_records([tmp_path])
    digest = RunRecord.read(tmp_path / "b" / "popo-0" / RECORD).protocol_digest
    records = read_records([tmp_path], digest[:6])
    assert {entry.folder for entry in records.entries} == {"b/grpo-0", "b/popo-0"}


def spend(run: Path, tokens: float, refused: float = 0.0) -> None:
    """One more step that cost so much."""
    with RunFolder.open(run) as folder:
        folder.append_metrics(
            10,
            {
                "rollout/tokens_mean": 10.0,
                "rollout/generated_tokens": tokens,
                "rollout/groups_refused": refused,
            },
        )


def test_who_samples_beyond_the_budget_is_left_out(tmp_path: Path) -> None:
    make_runs(tmp_path, {**TWO, "dapo": 0.9}, seeds=1, max_generated_tokens=10_000)
    spend(tmp_path / "dapo-0", 900.0)
    assert not read_records([tmp_path]).left_out, "the last step may go over it"
    spend(tmp_path / "dapo-0", 5000.0)
    assert "unequal budget: 15,900 tokens" in reasons(read_records([tmp_path]))["dapo-0"]


def test_without_a_budget_whoever_sends_groups_back_is_left_out(tmp_path: Path) -> None:
    make_runs(tmp_path, {**TWO, "dapo": 0.9}, seeds=1)
    spend(tmp_path / "dapo-0", 1000.0, refused=400.0)
    found = reasons(read_records([tmp_path]))
    assert "unequal budget: it sent back" in found["dapo-0"] and len(found) == 1


def test_a_twin_that_does_not_count_leaves_the_good_one_alone(tmp_path: Path) -> None:
    make_runs(tmp_path / "b", TWO, seeds=1)
    copytree(tmp_path / "b" / "popo-0", tmp_path / "a" / "popo-0")
    spend(tmp_path / "a" / "popo-0", 1000.0, refused=400.0)
    records = read_records([tmp_path])
    assert {entry.folder for entry in records.entries} == {"b/grpo-0", "b/popo-0"}


def test_another_version_is_left_out_by_name(tmp_path: Path) -> None:
    make_runs(tmp_path, TWO, seeds=3)
    record = RunRecord.read(tmp_path / "popo-1" / RECORD)
    change(tmp_path / "popo-1", versions={**record.versions, "torch": "1.0"})
    assert reasons(read_records([tmp_path])) == {
        "popo-1": "made with another version: torch 1.0 (others: 2.13.0)"
    }


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"algorithm": {', '"algorithms": {', "damaged"),
        ('"group_size": 8', '"group_size": 0', "damaged"),
        ('"total_s": 30.0', '"total_s": "NaN"', "costs"),
        ('"temperature": 1.0', '"temperature": 0.5', "not those of its protocol digest"),
        ('"num_samples": 4', '"num_samples": 3', "not of all samples"),
    ],
)
def test_a_record_that_contradicts_itself_is_left_out(
    tmp_path: Path, old: str, new: str, said: str
) -> None:
    make_runs(tmp_path, TWO, seeds=3)
    path = tmp_path / "popo-1" / RECORD
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    found = reasons(read_records([tmp_path]))
    assert list(found) == ["popo-1"] and said in found["popo-1"]


def test_metrics_that_are_cut_are_noticed(tmp_path: Path) -> None:
    make_runs(tmp_path, TWO, seeds=3)
    path = tmp_path / "popo-1" / "metrics.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:5]))
    assert "of its 10 steps" in reasons(read_records([tmp_path]))["popo-1"]
