"""Which runs a comparison has, what it refuses, and how parts of it find together."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from rlvr_zoo.compare.comparison import (
    Cell,
    cells_of,
    grid,
    identify,
    joined,
    parse_entrants,
    select,
)
from rlvr_zoo.compare.knobs import parse_knobs
from rlvr_zoo.compare.runner import Runner, Slots, standing
from rlvr_zoo.errors import ConfigError, NotFoundError, RunFolderError
from rlvr_zoo.track.comparison import Comparison, Entrant
from rlvr_zoo.track.folder import RunFolder

from .conftest import finish

BASE: dict[str, Any] = {"protocol": "micro", "train": {"max_steps": 3}}


def comparison(*entrants: Entrant, seeds: int = 2, base: dict[str, Any] = BASE) -> Comparison:
    return Comparison(
        kind="compare",
        id=identify("compare", base, "micro"),
        protocol="micro",
        command="rlvr-zoo compare ...",
        entrants=entrants or tuple(parse_entrants("popo,grpo")),
        seeds=tuple(range(seeds)),
        base=base,
    )


def test_every_entrant_has_every_seed_and_a_folder_of_its_own(tmp_path: Path) -> None:
    cells = cells_of(comparison(), tmp_path)
    assert [(cell.entrant.name, cell.seed) for cell in cells] == [
        ("popo", 0), ("grpo", 0), ("popo", 1), ("grpo", 1),
    ]  # fmt: skip
    assert [cell.config.seed for cell in cells] == [0, 0, 1, 1]
    assert len({cell.path for cell in cells}) == 4
    assert {cell.config.track.comparison for cell in cells} == {comparison().id}
    assert {cell.config.train.max_steps for cell in cells} == {3}


def test_an_entrant_that_breaks_the_protocol_is_refused(tmp_path: Path) -> None:
    loud = Entrant(name="loud", algo="grpo", settings={"rollout.temperature": 0.5})
    with pytest.raises(ConfigError, match=r"popo and loud differ in rollout\.temperature, which"):
        cells_of(comparison(*parse_entrants("popo"), loud), tmp_path)


def test_what_the_protocol_leaves_open_may_differ(tmp_path: Path) -> None:
    fast = Entrant(name="fast", algo="grpo", settings={"optimizer.lr": 1e-3})
    cells = cells_of(comparison(*parse_entrants("popo"), fast), tmp_path)
    assert [cell.config.optimizer.lr for cell in cells] == [1e-4, 1e-3] * 2


def test_controls_are_written_behind_a_plus(tmp_path: Path) -> None:
    entrants = parse_entrants("grpo+random_reward, raft+supervised")
    cells = cells_of(comparison(*entrants, seeds=1), tmp_path)
    assert [cell.config.train.control for cell in cells] == ["random_reward", "supervised"]
    assert [cell.config.algo for cell in cells] == ["grpo", "raft"]


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("popo,popo", ConfigError, "popo is there twice"),
        (" ,", ConfigError, "which algorithms"),
        ("popa", NotFoundError, "popo"),
    ],
)
def test_names_that_cannot_be(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        parse_entrants(text)


def test_an_unknown_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.control"):
        cells_of(comparison(*parse_entrants("grpo+luck")), tmp_path)


def test_supervision_needs_an_algorithm_that_asks_for_no_samples(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.control=supervised: popo .* take --algo raft"):
        cells_of(comparison(*parse_entrants("popo+supervised")), tmp_path)


def test_all_is_everything_once() -> None:
    names = [entrant.name for entrant in parse_entrants("all")]
    assert {"popo", "popo-nosim", "grpo", "ppo"} <= set(names) and len(names) == len(set(names))


def test_it_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    entrants = grid("popo", {"algorithm.momentum": [0.9, 0.99]})
    comparison(*entrants).write(tmp_path)
    assert Comparison.read(tmp_path) == comparison(*entrants)


def test_a_damaged_plan_is_named(tmp_path: Path) -> None:
    (tmp_path / "comparison.json").write_text('{"schema": 1')
    with pytest.raises(RunFolderError, match=r"comparison\.json"):
        Comparison.read(tmp_path)


def test_seeds_and_entrants_can_be_added(tmp_path: Path) -> None:
    first = comparison(*parse_entrants("popo"), seeds=3)
    second = joined(comparison(*parse_entrants("grpo"), seeds=5), first, tmp_path)
    assert [entrant.name for entrant in second.entrants] == ["popo", "grpo"]
    assert second.seeds == (0, 1, 2, 3, 4) and second.id == first.id


def test_another_comparison_is_not_mixed_in(tmp_path: Path) -> None:
    longer = {**BASE, "train": {"max_steps": 4}}
    with pytest.raises(RunFolderError, match=r"differs in train\.max_steps"):
        joined(comparison(base=longer), comparison(), tmp_path)
    other = [replace(each, settings={"optimizer.lr": 1.0}) for each in parse_entrants("popo")]
    with pytest.raises(RunFolderError, match="holds popo with other settings"):
        joined(comparison(*other), comparison(), tmp_path)


def test_a_part_is_named_by_algorithm_and_seed(tmp_path: Path) -> None:
    cells = cells_of(comparison(), tmp_path)
    assert [cell.name for cell in select(cells, "algo=popo,seed=1")] == ["popo seed 1"]
    assert len(list(select(cells, "algo=popo,algo=grpo"))) == 4
    assert len(list(select(cells, ""))) == 4
    with pytest.raises(ConfigError, match=r"seed=7: not in this comparison, which has 0, 1"):
        list(select(cells, "seed=7"))
    with pytest.raises(ConfigError, match="write it as algo=NAME"):
        list(select(cells, "popo"))


def test_a_grid_has_every_combination() -> None:
    knobs = parse_knobs(["similarity_coef=0.1,0.3", "optimizer.lr=1e-4,3e-4"])
    names = [entrant.name for entrant in grid("popo", knobs)]
    assert names == [
        "popo similarity_coef=0.1 lr=0.0001", "popo similarity_coef=0.1 lr=0.0003",
        "popo similarity_coef=0.3 lr=0.0001", "popo similarity_coef=0.3 lr=0.0003",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["alpha", "=1", "alpha=", "alpha=1,1"])
def test_knobs_that_cannot_be(text: str) -> None:
    with pytest.raises(ConfigError, match="--over"):
        parse_knobs([text])


def test_an_unknown_knob_is_named(tmp_path: Path) -> None:
    entrants = grid("popo", parse_knobs(["similarity=0.1"]))
    with pytest.raises(ConfigError, match="similarity_coef"):
        cells_of(comparison(*entrants), tmp_path)


def test_what_is_done_is_known_and_another_run_is_not_taken_for_it(tmp_path: Path) -> None:
    popo, grpo, *_ = cells_of(comparison(), tmp_path)
    assert standing(popo) == "missing"
    finish(popo)
    finish(grpo, status="interrupted")
    assert (standing(popo), standing(grpo)) == ("done", "begun")
    longer = cells_of(comparison(base={**BASE, "train": {"max_steps": 9}}), tmp_path)[0]
    with pytest.raises(RunFolderError, match=r"another .*train\.max_steps"):
        standing(longer)


def test_a_run_that_another_process_holds_is_left_to_it(tmp_path: Path) -> None:
    (popo, *_) = cells_of(comparison(), tmp_path)
    finish(popo, status="running")
    watcher = Skipping()
    with RunFolder.open(popo.path):
        assert standing(popo) == "busy"
        Runner(Slots(((),)), watcher).run([popo])
    assert watcher.names == ["popo seed 0"]


class Skipping:
    """Nothing may start."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def skipped(self, cell: Cell) -> None:
        self.names.append(cell.name)

    def started(self, cell: Cell, resumed: bool) -> None:
        raise AssertionError(cell.name)

    at_step = ended = cast(Any, started)


def test_gpus_are_shared_out_in_whole_parts() -> None:
    assert Slots.on(8, 2, None, 0).gpus == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert Slots.on(8, 3, None, 0).gpus == ((0, 1, 2), (3, 4, 5))
    assert Slots.on(8, 2, 1, 0).gpus == ((0, 1),)
    assert Slots.on(2, 4, None, 0).gpus == ()


def test_without_gpus_cores_are_shared_out_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert len(Slots.on(0, 1, None, 1).gpus) == 8
    assert len(Slots.on(0, 2, None, 2).gpus) == 2
    assert len(Slots.on(0, 1, None, 0).gpus) == 1
    assert len(Slots.on(0, 1, 3, 0).gpus) == 3
