"""Room on the disk for checkpoints, on disks that are made up."""

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, cast

import pytest

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.plan.devices import GIB
from rlvr_zoo.train import checkpoint, setup
from rlvr_zoo.train.disk_space import check_disk_space, verdict
from rlvr_zoo.train.learner import Learner

from .conftest import configured

OUT = Path("/runs/a")
RUN = ("train.max_steps=100", "checkpoint.every=10")


def judged(free_gib: float, *settings: str, step: int = 0, existing: int = 0) -> tuple[str, str]:
    """Of checkpoints of 10 GiB."""
    return verdict(
        OUT, free_gib * GIB, 10.0 * GIB, configured("grpo", *RUN, *settings), step, existing
    )


def test_three_are_there_while_the_third_is_saved() -> None:
    assert judged(30) == ("", "")
    refusal, warning = judged(29.9)
    assert not refusal and "\n" not in warning
    for part in (str(OUT), "29.9 GiB free", "take 30.0 GiB", "3 of 10.0 GiB", "set checkpoint.k"):
        assert part in warning


@pytest.mark.parametrize(
    ("free_gib", "settings", "help_"),
    [
        (45, "checkpoint.keep=6", "set checkpoint.keep=3,"),
        (20, "checkpoint.keep=2", "set checkpoint.keep=1,"),
        (10, "checkpoint.keep=2", "set checkpoint.every=0"),
        (19, "checkpoint.keep=1", "set checkpoint.every=0"),
    ],
)
def test_the_help_is_enough(free_gib: float, settings: str, help_: str) -> None:
    _, warning = judged(free_gib, settings)
    assert help_ in warning
    changed = help_.removeprefix("set ").rstrip(",")
    assert judged(free_gib, settings, changed) == ("", "")


def test_a_disk_that_cannot_take_one_is_no_place_for_a_run() -> None:
    refusal, warning = judged(9.9)
    assert not warning and "\n" not in refusal
    for part in (str(OUT), "9.9 GiB free", "10.0 GiB", "--output"):
        assert part in refusal
    assert judged(10)[0] == ""


def test_a_resumed_run_has_some_already() -> None:
    assert judged(10, step=50, existing=2) == ("", "")  # the oldest goes after each
    assert "keep=3" in judged(20, "checkpoint.keep=5", step=50, existing=2)[1]
    assert judged(20, "checkpoint.keep=5", "checkpoint.every=50", step=50, existing=1) == ("", "")
    assert judged(9, step=90, existing=2)[0]


class Disk(NamedTuple):
    total: int
    free: int


class Alone:
    """What is asked of a Backend."""

    is_main = True

    def broadcast(self, value: Any) -> Any:
        return value


def test_what_a_learner_s_checkpoint_takes_is_what_is_asked_of_the_disk(
    learner_of: Callable[..., Learner],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = ("algorithm.predictor_hidden_size=32",)
    learner = learner_of("popo", *settings)
    policy = sum(p.numel() for p in learner.policy.parameters())
    head = sum(p.numel() for p in learner.modules["head"].parameters())
    size = 16 * policy + 12 * head
    assert sum(checkpoint.contents(learner).parts("fp32").values()) == size

    def said(checkpoints: float) -> str:
        disk = Disk(total=9**9, free=int(checkpoints * size))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
        config, backend = configured("popo", *RUN, *settings), cast(Any, Alone())
        return check_disk_space(tmp_path / "checkpoints", learner, config, backend, 0)

    with pytest.raises(ConfigError, match=r"MiB: not even one fits"):
        said(0.99)
    assert "set checkpoint.every=0" in said(1.01)
    assert said(3.01) == ""


def test_a_disk_that_does_not_say_is_trusted(
    learner_of: Callable[..., Learner], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(total=0, free=0))
    backend: Any = Alone()
    learner = learner_of("grpo")
    assert check_disk_space(tmp_path / "checkpoints", learner, configured("grpo"), backend, 0) == ""


class Watcher(SimpleNamespace):
    """An observer that keeps warnings."""

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def test_a_run_looks_before_it_trains(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint of the random model by GRPO takes 5.5 MiB."""
    watcher: Any = Watcher(warnings=[])

    def run(folder: Path, free_mib: int, resume: bool = False) -> Any:
        disk = Disk(total=9**9, free=free_mib << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: disk)
        config = configured(
            "grpo", f"model.path={model_dir}", "train.max_steps=2", "checkpoint.every=1",
            "rollout.rollouts_per_step=16", "problems.num_held_out=16", "track.mlflow=false",
            "suites.names=[]",
        )  # fmt: skip
        return setup.execute(config, folder, resume, watcher)

    with pytest.raises(ConfigError, match="not even one fits"):
        run(tmp_path / "refused", 3)
    assert not (tmp_path / "refused").exists() and not watcher.warnings
    done = run(tmp_path / "run", 8)
    assert done.status == "finished"
    assert [(each.step, each.num_ranks, each.models) for each in done.launches] == [(0, 1, "whole")]
    said = [warning for warning in watcher.warnings if "MiB free" in warning]
    assert len(said) == 1

    shutil.rmtree(tmp_path / "run/checkpoints/step-00000002")  # a resumed run repeats that step
    kept = {path: path.read_bytes() for path in (tmp_path / "run").glob("*.json*")}
    assert len(kept) >= 4
    with pytest.raises(ConfigError, match="not even one fits"):
        run(tmp_path / "run", 3, resume=True)
    assert kept == {path: path.read_bytes() for path in kept}
    resumed = run(tmp_path / "run", 80, resume=True)
    assert [each.step for each in resumed.launches] == [0, 1]
