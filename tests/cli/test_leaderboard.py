"""`rlvr-zoo leaderboard`: from folders and trackers to files, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlvr_zoo.leaderboard.write import PAGE, README, RESULTS, TABLE
from rlvr_zoo.track.comparison import Comparison, Entrant, run_folder
from rlvr_zoo.track.mlflow import sync_comparison
from tests.leaderboard.conftest import Entrant as MadeUp
from tests.leaderboard.conftest import make_runs

Cli = Callable[..., Any]
TWO = {"grpo": 0.5, "popo": 0.8}


def test_it_writes_four_files_and_says_what_they_show(cli: Cli, tmp_path: Path) -> None:
    make_runs(tmp_path / "runs", TWO, seeds=3)
    outcome = cli("leaderboard", "--from", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    assert outcome.code == 0, outcome.err
    assert "1 of 1 pair differs beyond noise" in outcome.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [PAGE, README, RESULTS, TABLE]
    )
    first = (tmp_path / "out" / PAGE).read_bytes()
    cli("leaderboard", "--from", str(tmp_path / "runs"), "--out", str(tmp_path / "out"))
    assert (tmp_path / "out" / PAGE).read_bytes() == first


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("nowhere", "no such folder, and no tracker's URI"),
        ("empty", "no run to rank"),
        ("sqlite:///nowhere.db", "nowhere.db"),
    ],
)
def test_what_is_not_there_is_one_line(cli: Cli, tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "empty").mkdir()
    path = source if ":" in source else str(tmp_path / source)
    outcome = cli("leaderboard", "--from", path, "--out", str(tmp_path / "out"))
    assert outcome.code == 2 and said in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_tracker_gives_the_board_that_the_folder_gives(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"sqlite:///{tmp_path}/tracker.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.chdir(tmp_path)
    plan = Comparison(
        kind="compare",
        id="compare-micro-1",
        command="rlvr-zoo compare --algos grpo,popo",
        protocol="micro",
        entrants=tuple(Entrant(name=name, algo=name) for name in TWO),
        seeds=(0, 1, 2),
        tuning="3 trials each",
    )
    folder = tmp_path / "comparison"
    entrants = {
        name: MadeUp(accuracy=accuracy, comparison=plan.id) for name, accuracy in TWO.items()
    }
    for run in make_runs(tmp_path / "made", entrants, seeds=3):
        name, _, seed = run.name.rpartition("-")
        place = run_folder(folder, name, int(seed))
        place.parent.mkdir(parents=True, exist_ok=True)
        run.rename(place)
    plan.write(folder)
    assert sync_comparison(folder).status == "FINISHED"
    for source, out in ((uri, "from-tracker"), (str(folder), "from-folder")):
        outcome = cli("leaderboard", "--from", source, "--out", str(tmp_path / out))
        assert outcome.code == 0, outcome.err
    boards = [
        json.loads((tmp_path / out / RESULTS).read_text())
        for out in ("from-tracker", "from-folder")
    ]
    for board in boards:
        assert board["command"] == plan.command
        assert {row["tuning"] for row in board["rows"]} == {"3 trials each"}
        for row in board["rows"]:
            for run in row["runs"]:
                run["folder"] = run["mlflow_uri"] = ""
    assert boards[0] == boards[1]
