from dataclasses import replace
from pathlib import Path

import pytest

from rlvr_zoo.errors import ConfigError, RunFolderError
from rlvr_zoo.leaderboard.curves import mean_of, plot
from rlvr_zoo.track.folder import RunFolder
from rlvr_zoo.track.record import RunRecord


def make(path: Path, record: RunRecord) -> Path:
    with RunFolder.create(path, record.config) as folder:
        folder.write_record(record)
    return path


def test_three_seeds_have_a_t_interval() -> None:
    # Mean 0.4, standard deviation 0.2, t(0.975, 2) = 4.30265: half = 4.30265 * 0.2 / sqrt(3).
    mean = mean_of([{0: 0.2, 5: 0.5}, {0: 0.4, 5: 0.5}, {0: 0.6, 9: 0.1, 5: 0.5}])
    assert mean.steps == (0, 5)
    assert mean.accuracy == pytest.approx([0.4, 0.5])
    assert [band.low for band in mean.bands] == pytest.approx([0.0, 0.5])  # cut from -0.0968
    assert [band.high for band in mean.bands] == pytest.approx([0.896828, 0.5], abs=1e-6)


def test_two_seeds_have_none() -> None:
    assert mean_of([{0: 0.0}, {0: 1.0}]).bands[0].low is None


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_equal_runs_give_equal_pictures_in_any_order(
    tmp_path: Path, record: RunRecord, kind: str
) -> None:
    runs = [
        make(tmp_path / f"{name}{seed}", replace(record, algorithm=name, seed=seed))
        for name in ("popo", "grpo")
        for seed in (0, 1, 2)
    ]
    one, other = tmp_path / f"one.{kind}", tmp_path / f"other.{kind}"
    plot(runs, one)
    plot(runs[::-1], other)
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")
    plot(runs[:5], other)
    assert one.read_bytes() != other.read_bytes()


def test_different_protocols_are_refused_by_the_fields_that_differ(
    tmp_path: Path, record: RunRecord
) -> None:
    one = replace(record, protocol_settings={"lr": 1e-6, "rollout": {"temperature": 1.0}})
    other = replace(
        record,
        protocol_digest="ffff",
        protocol_settings={"lr": 1e-6, "rollout": {"temperature": 0.6}},
    )
    runs = [make(tmp_path / "one", one), make(tmp_path / "other", other)]
    with pytest.raises(ConfigError, match=r"they differ in rollout\.temperature$"):
        plot(runs, tmp_path / "out.png")
    assert not (tmp_path / "out.png").exists()


def test_what_cannot_be_drawn_is_refused(tmp_path: Path, record: RunRecord) -> None:
    run = make(tmp_path / "run", record)
    twin = make(tmp_path / "twin", record)
    bare = make(tmp_path / "bare", replace(record, evaluations=()))
    with pytest.raises(ConfigError, match="both grpo with seed 3; leave one out"):
        plot([run, twin], tmp_path / "out.png")
    with pytest.raises(ConfigError, match="has no evaluation 'held-out' yet"):
        plot([bare], tmp_path / "out.png")
    with pytest.raises(ConfigError, match=r"name the picture .png or .svg"):
        plot([run], tmp_path / "out.pdf")
    with pytest.raises(ConfigError, match="no runs to draw"):
        plot([], tmp_path / "out.png")
    with pytest.raises(RunFolderError, match="holds no run"):
        plot([tmp_path], tmp_path / "out.png")
