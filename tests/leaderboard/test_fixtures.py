from pathlib import Path

import pytest

from rlvr_zoo.track.reader import RunReader
from tests.leaderboard.conftest import Entrant, change, make_runs


def test_made_up_runs_are_runs(tmp_path: Path) -> None:
    popo = Entrant(accuracy=0.9, lr=1e-5, seeds=(3, 4))
    runs = make_runs(tmp_path, {"grpo": 0.6, "popo": popo}, seeds=3, mlflow=True)
    assert [run.name for run in runs] == ["grpo-0", "grpo-1", "grpo-2", "popo-3", "popo-4"]
    records = [RunReader(run).record() for run in runs]
    assert len({record.protocol_digest for record in records}) == 1
    assert records[-1].evaluations[-2].accuracy == pytest.approx(0.9, abs=0.15)
    assert sum(1 for _ in RunReader(runs[0]).metrics()) == 15
    (other,) = make_runs(tmp_path / "other", {"grpo": 0.6}, 1, temperature=0.7)
    assert RunReader(other).record().protocol_digest != records[0].protocol_digest
    assert RunReader(change(other, status="failed")).record().status == "failed"
