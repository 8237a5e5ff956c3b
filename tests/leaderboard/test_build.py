"""Entries to a board: what is ranked, what is apart, and that equal records give equal bytes."""

from pathlib import Path

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.board import Board
from rlvr_zoo.leaderboard.build import build
from rlvr_zoo.leaderboard.curve import accuracy
from rlvr_zoo.leaderboard.records import read_records
from rlvr_zoo.leaderboard.results import to_json
from rlvr_zoo.track.comparison import Comparison, run_folder
from rlvr_zoo.track.comparison import Entrant as PlannedEntrant

from .conftest import Entrant, make_runs

FAR = {"good": 0.8, "bad": 0.45, "same": 0.8}


def board_of(path: Path, primary: str | None = None) -> Board:
    records = read_records([path])
    return build(records.entries, records.left_out, primary=primary)


def test_what_is_far_apart_is_told_apart_and_equals_are_not(tmp_path: Path) -> None:
    make_runs(tmp_path, FAR, seeds=5)
    board = board_of(tmp_path)
    assert board.primary == "micro"
    assert [suite.name for suite in board.suites] == ["micro", "held-out"]
    tiers = {row.name: row.scores["micro"].tier for row in board.rows}
    assert tiers == {"good": 1, "same": 1, "bad": 3}
    shown = {(pair.a, pair.b): pair.shown for pair in board.pairs if pair.suite == "micro"}
    assert shown == {("bad", "good"): True, ("bad", "same"): True, ("good", "same"): False}
    assert board.rows[-1].name == "bad"
    low, high = board.suites[0].detectable, board.suites[0].detectable_holm
    assert low is not None and high is not None and 0 < low < high < 0.5


def test_scores_are_what_the_records_say(tmp_path: Path) -> None:
    make_runs(tmp_path, FAR, seeds=3)
    board = board_of(tmp_path, primary="held-out")
    assert board.primary == "held-out"
    entries = read_records([tmp_path]).entries
    for row in board.rows:
        mine = [entry for entry in entries if entry.record.algorithm == row.name]
        for suite, score in row.scores.items():
            seeds = {entry.record.seed: entry.final()[suite].accuracy for entry in mine}
            assert score.by_seed == pytest.approx(seeds)
            assert score.accuracy.value == pytest.approx(sum(seeds.values()) / 3)
            assert score.pass_at[1].value == pytest.approx(score.accuracy.value)
            assert score.accuracy.low is not None and score.accuracy.low < score.accuracy.value
    assert sorted(board.rows[0].scores["micro"].pass_at) == [1, 2, 4]
    assert board.rows[0].costs.generated_tokens == 10_000
    assert board.run_hours == pytest.approx(9 * 30 / 3600)


def test_controls_and_few_seeds_are_listed_and_not_ranked(tmp_path: Path) -> None:
    entrants = {
        **FAR,
        "coin": Entrant(accuracy=0.99, control="random_reward"),
        "young": Entrant(accuracy=0.99, seeds=(0, 1)),
    }
    make_runs(tmp_path, entrants, seeds=3)
    board = board_of(tmp_path)
    rows = {row.name: row for row in board.rows}
    assert rows["coin+random_reward"].not_ranked == "a control"
    assert rows["young"].not_ranked == "2 of the 3 seeds that a rank needs"
    assert rows["young"].scores["micro"].accuracy.low is None
    assert all(rows[name].scores["micro"].tier is None for name in ("coin+random_reward", "young"))
    assert rows["good"].scores["micro"].tier == 1, "a control pushes nobody down"
    assert not any("young" in (pair.a, pair.b) for pair in board.pairs)
    assert [row.name for row in board.rows][:2] != ["coin+random_reward", "young"]
    assert ("young", "no run of seed 2") in [(each.where, each.reason) for each in board.left_out]


def test_several_settings_of_one_algorithm_are_named_by_what_differs(tmp_path: Path) -> None:
    make_runs(tmp_path / "a", {"grpo": Entrant(accuracy=0.6)}, seeds=3)
    make_runs(tmp_path / "b", {"grpo": Entrant(accuracy=0.6, lr=1e-3)}, seeds=3)
    assert {row.name for row in board_of(tmp_path).rows} == {"grpo lr=0.0001", "grpo lr=0.001"}


def test_sweeps_stand_apart(tmp_path: Path) -> None:
    make_runs(tmp_path / "board", FAR, seeds=3)
    for clip in (0.4, 0.1, 0.2):
        swept = Entrant(accuracy=clip + 0.4, algorithm="good", knobs={"clip": clip},
                        comparison="sweep-good-clip-1")  # fmt: skip
        make_runs(tmp_path / f"sweep-{clip}", {"good": swept}, seeds=3)
    board = board_of(tmp_path)
    assert {row.name for row in board.rows} == set(FAR)
    (sweep,) = board.sweeps
    assert (sweep.algorithm, sweep.knobs) == ("good", ("clip",))
    assert [row.values["clip"] for row in sweep.rows] == [0.1, 0.2, 0.4]
    values = [row.scores["held-out"].value for row in sweep.rows]
    assert values == sorted(values)
    with pytest.raises(ConfigError, match="only runs of sweeps"):
        board_of(tmp_path / "sweep-0.1")


def test_curves_have_bands_and_costs(tmp_path: Path) -> None:
    make_runs(tmp_path, FAR, seeds=3, steps=10, every=5)
    row = board_of(tmp_path).rows[0]
    assert [(p.step, p.tokens) for p in row.curve] == [(0, 0.0), (5, 5000.0), (10, 10_000.0)]
    assert row.curve[-1].low is not None and row.curve[-1].low <= row.curve[-1].value
    assert [p.step for p in row.signals["no_signal"]] == [5, 10]
    assert row.signals["no_signal"][0].value == pytest.approx(0.3 + 0.3 * 0.3)


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    make_runs(tmp_path, FAR, seeds=3)
    assert to_json(board_of(tmp_path)) == to_json(board_of(tmp_path))


def test_an_unknown_suite_is_named(tmp_path: Path) -> None:
    make_runs(tmp_path, FAR, seeds=3)
    with pytest.raises(ConfigError, match=r"--primary micor: not measured; .*'micro'"):
        board_of(tmp_path, primary="micor")


def test_planned_runs_that_are_not_there_are_named(tmp_path: Path) -> None:
    make_runs(tmp_path / "made", {"grpo": Entrant(accuracy=0.6, comparison="c-1")}, seeds=2)
    for seed in (0, 1):
        place = run_folder(tmp_path / "all", "grpo", seed)
        place.parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "made" / f"grpo-{seed}").rename(place)
    entrants = (PlannedEntrant(name="grpo"), PlannedEntrant(name="popo"))
    plan = Comparison(kind="compare", id="c-1", entrants=entrants, seeds=(0, 1, 2), command="x")
    other = Comparison(kind="compare", id="c-2", entrants=entrants, seeds=(9,), command="y")
    records = read_records([tmp_path / "all"])
    board = build(records.entries, records.left_out, plans=[plan, other])
    assert [each.where for each in board.left_out] == [
        "grpo/seed-2", "popo/seed-0", "popo/seed-1", "popo/seed-2"
    ]  # fmt: skip
    assert board.command == "x"


def test_curves_end_where_scores_do_though_seeds_end_at_other_steps(tmp_path: Path) -> None:
    make_runs(tmp_path / "a", {"grpo": Entrant(accuracy=0.6, seeds=(0, 1))}, steps=10)
    make_runs(tmp_path / "b", {"grpo": Entrant(accuracy=0.6, seeds=(2,))}, steps=8)
    entries = read_records([tmp_path / "a"]).entries + read_records([tmp_path / "b"]).entries
    points = accuracy(entries)
    ends = [entry.final()["held-out"].accuracy for entry in entries]
    assert points[-1].value == pytest.approx(sum(ends) / 3)
    assert points[-1].tokens == pytest.approx((10_000 + 10_000 + 8_000) / 3)
    assert [point.step for point in points] == [0, 5, 9]
