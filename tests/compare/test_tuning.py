"""The same search for every algorithm: its budget, its end, and its going on."""

import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlvr_zoo.compare.comparison import Cell, parse_entrants
from rlvr_zoo.compare.tuning import Search, Tuning, applied, parse_range, search_of
from rlvr_zoo.errors import ConfigError, RunFolderError

from .conftest import finish, finisher

BASE: dict[str, Any] = {"protocol": "micro", "train": {"max_steps": 3}}
PEAKS = {"popo": 3e-4, "grpo": 3e-5}


def score(cell: Cell) -> float:
    """Highest at the algorithm's own learning rate."""
    away = math.log10(cell.config.optimizer.lr / PEAKS[cell.config.algo])
    return 1.0 - abs(away) / 4


def grid_search(*over: str) -> Search:
    return search_of(BASE, "popo", over or ("optimizer.lr=3e-5,1e-4,3e-4",), seeds=2)


def test_each_algorithm_gets_its_own_best_and_all_get_one_budget(tmp_path: Path) -> None:
    tuning = Tuning(grid_search(), ["popo", "grpo"], tmp_path)
    cells: list[Cell] = []
    tuning.run(3, lambda some: (cells.extend(some), finisher(score)(some)))
    assert tuning.best() == {"popo": {"optimizer.lr": 3e-4}, "grpo": {"optimizer.lr": 3e-5}}
    per_algo = [sum(cell.config.algo == algo for cell in cells) for algo in PEAKS]
    assert per_algo == [6, 6]
    assert all(cell.config.problems.held_out == "validation" for cell in cells)
    assert not any(cell.config.suites.names for cell in cells)
    assert min(cell.seed for cell in cells) >= 1000, "seeds are not a comparison's"


def test_the_preset_comes_first(tmp_path: Path) -> None:
    tuning = Tuning(grid_search(), ["grpo"], tmp_path)
    tuning.run(1, finisher(score))
    assert tuning.best() == {"grpo": {"optimizer.lr": 1e-4}}


def test_a_range_is_searched_within_its_ends_and_not_below_the_preset(tmp_path: Path) -> None:
    tuning = Tuning(search_of(BASE, "popo", (), seeds=1), ["popo"], tmp_path)
    tuning.run(6, finisher(score))
    tried = [settings["optimizer.lr"] for settings, _ in tuning.scores()["popo"]]
    assert tried[0] == 1e-4 and all(1e-5 <= lr <= 1e-3 for lr in tried) and len(set(tried)) == 6
    best = tuning.best()["popo"]["optimizer.lr"]
    assert abs(math.log(best / 3e-4)) <= abs(math.log(1e-4 / 3e-4))


def test_an_interrupted_search_goes_on_where_it_was(tmp_path: Path) -> None:
    def break_off(cells: list[Cell]) -> None:
        finish(cells[0], score(cells[0]))
        raise KeyboardInterrupt

    whole = Tuning(grid_search(), ["popo", "grpo"], tmp_path / "whole")
    whole.run(3, finisher(score))
    with pytest.raises(KeyboardInterrupt):
        Tuning(grid_search(), ["popo", "grpo"], tmp_path / "parts").run(3, break_off)
    again: list[Cell] = []

    def finish_rest(cells: list[Cell]) -> None:
        again.extend(cells)
        finisher(score)([cell for cell in cells if not cell.path.exists()])

    parts = Tuning(grid_search(), ["popo", "grpo"], tmp_path / "parts")
    parts.run(3, finish_rest)
    assert parts.scores() == whole.scores()
    Tuning(grid_search(), ["popo", "grpo"], tmp_path / "parts").run(3, again.extend)
    assert len(again) == 12, "nothing is asked for twice"


def test_a_trial_whose_run_failed_is_run_again_and_never_passed_over(tmp_path: Path) -> None:
    def mostly(cells: list[Cell]) -> None:
        finisher(score)([cell for cell in cells if cell.config.optimizer.lr != 3e-4])

    tuning = Tuning(grid_search(), ["popo"], tmp_path)
    tuning.run(3, mostly)
    assert [value for _, value in tuning.scores()["popo"]].count(None) == 1
    with pytest.raises(RunFolderError, match=r"popo with lr=0\.0003 failed"):
        tuning.save()
    tuning.run(3, finisher(score))
    assert tuning.best() == {"popo": {"optimizer.lr": 3e-4}}


def test_fewer_trials_than_the_grid_has_are_counted_as_they_are(tmp_path: Path) -> None:
    tuning = Tuning(grid_search(), ["popo"], tmp_path)
    tuning.run(2, finisher(score))
    assert len(tuning.scores()["popo"]) == 2
    assert yaml.safe_load(tuning.save().read_text())["budget"].startswith("2 trials")


def test_an_algorithm_that_had_more_trials_before_has_no_more_than_the_others(
    tmp_path: Path,
) -> None:
    Tuning(grid_search(), ["popo"], tmp_path).run(3, finisher(score))
    both = Tuning(grid_search(), ["popo", "grpo"], tmp_path)
    both.run(1, finisher(score))
    assert both.best() == {"popo": {"optimizer.lr": 1e-4}, "grpo": {"optimizer.lr": 1e-4}}
    assert yaml.safe_load(both.save().read_text())["budget"].startswith("1 trials")


def test_a_resumed_range_proposes_what_it_would_have(tmp_path: Path) -> None:
    search = search_of(BASE, "popo", (), seeds=1)
    whole = Tuning(search, ["popo"], tmp_path / "whole")
    whole.run(5, finisher(score))
    for trials in range(1, 6):
        parts = Tuning(search, ["popo"], tmp_path / "parts")
        parts.run(trials, finisher(score))
    assert parts.scores() == whole.scores()


def test_whole_numbers_stay_whole(tmp_path: Path) -> None:
    search = search_of(BASE, "popo", ["predictor_hidden_size=64..2048"], seeds=1)
    tuning = Tuning(search, ["popo"], tmp_path)
    tuning.run(3, finisher(score))
    tried = [settings["algorithm.predictor_hidden_size"] for settings, _ in tuning.scores()["popo"]]
    assert tried[0] == 1024 and all(isinstance(value, int) for value in tried)


def test_the_preset_has_to_be_among_what_is_searched(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the preset of popo has 0\.0001"):
        Tuning(grid_search("optimizer.lr=1e-3,1e-2"), ["popo"], tmp_path)


def test_an_ablation_stays_one(tmp_path: Path) -> None:
    path = tmp_path / "tuned.yaml"
    found = {"popo": {"algorithm.similarity_coef": 0.3, "optimizer.lr": 3e-4}}
    path.write_text(yaml.safe_dump({"protocol": "micro", "base": BASE, "settings": found}))
    (nosim,), _ = applied(path, parse_entrants("popo-nosim"), "micro", BASE)
    assert nosim.settings == {"optimizer.lr": 3e-4}
    with pytest.raises(ConfigError, match="popo-nosim is that setting"):
        Tuning(grid_search("similarity_coef=0.0,0.1"), ["popo-nosim"], tmp_path / "t")
    with pytest.raises(ConfigError, match=r"tuned under another train\.max_steps"):
        applied(path, parse_entrants("popo"), "micro", {**BASE, "train": {"max_steps": 9}})


def test_another_search_is_not_mixed_in(tmp_path: Path) -> None:
    Tuning(grid_search(), ["popo"], tmp_path)
    with pytest.raises(RunFolderError, match=r"another .*space"):
        Tuning(grid_search("optimizer.lr=1e-4,1e-3"), ["popo"], tmp_path)


def test_the_file_gives_a_comparison_its_settings(tmp_path: Path) -> None:
    tuning = Tuning(grid_search(), ["popo", "grpo"], tmp_path)
    tuning.run(3, finisher(score))
    path = tuning.save()
    entrants, how = applied(
        path, parse_entrants("popo,popo-nosim,grpo+random_reward"), "micro", BASE
    )
    assert [entrant.settings for entrant in entrants] == [
        {"optimizer.lr": 3e-4},
        {"optimizer.lr": 3e-4},
        {"optimizer.lr": 3e-5, "train.control": "random_reward"},
    ]
    assert "3 trials of 2 seeds" in how and "validation" in how
    with pytest.raises(ConfigError, match="has nothing on ppo; tune it, too"):
        applied(path, parse_entrants("ppo"), "micro", BASE)
    with pytest.raises(ConfigError, match="tuned for micro, not for math-7b"):
        applied(path, parse_entrants("popo"), "math-7b", BASE)
    path.write_text(yaml.safe_dump({"protocol": "micro"}))
    with pytest.raises(ConfigError, match="no `settings`"):
        applied(path, parse_entrants("popo"), "micro", BASE)


def test_ranges_as_they_are_written() -> None:
    assert parse_range("optimizer.lr=1e-5..1e-3") == ("optimizer.lr", (1e-5, 1e-3))
    assert parse_range("clip_high=0.1,0.2") == ("algorithm.clip_high", [0.1, 0.2])
    for text in ("lr=1..a", "lr=2..1", "lr"):
        with pytest.raises(ConfigError, match="--over"):
            parse_range(text)


def test_a_knob_that_an_algorithm_lacks_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="momentum"):
        Tuning(grid_search("momentum=0.9,0.99"), ["popo", "grpo"], tmp_path)
