"""What the engine was is in the protocol's digest, so that other engines' runs are not compared."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.errors import ConfigError, RunFolderError
from rlvr_zoo.evaluate import evaluation
from rlvr_zoo.resolve import parse_set, resolve_eval
from rlvr_zoo.train.backend import Backend

from .test_proven_evaluation import CopyEngine, Observer, copying, run  # noqa: F401


@pytest.fixture
def described(copying: type[CopyEngine]) -> Any:  # noqa: F811
    """The engine, as one that knows its type and version."""
    engine: Any = copying
    engine.dtype, engine.description = torch.float32, "x 1.0, on 1 server"
    return engine


def test_runs_on_engines_of_other_types_are_not_compared(described: Any, tmp_path: Path) -> None:
    one = run(tmp_path / "one", "train.max_steps=1")
    assert one.protocol_settings["engine"] == {"dtype": "float32"}
    assert one.versions["engine"] == "x 1.0, on 1 server"
    described.dtype = torch.bfloat16
    other = run(tmp_path / "other", "train.max_steps=1")
    assert other.protocol_settings["engine"]["dtype"] == "bfloat16"
    assert one.protocol_digest != other.protocol_digest


def test_samples_of_other_engines_are_not_mixed_in_a_folder(described: Any, tmp_path: Path) -> None:
    flags = parse_set(["suites.names=[micro]", "suites.limit=2", "suites.temperature=0"])
    config = resolve_eval("tiny", flags)
    evaluation.execute(config, tmp_path, Backend("fp32"), Observer())
    evaluation.execute(config, tmp_path, Backend("fp32"), Observer())
    described.description = "x 1.0, on 2 servers"
    evaluation.execute(config, tmp_path, Backend("fp32"), Observer())
    described.description = "x 1.1, on 2 servers"
    with pytest.raises(RunFolderError, match="samples with another engine_version;"):
        evaluation.execute(config, tmp_path, Backend("fp32"), Observer())
    described.description, described.dtype = "x 1.0", torch.bfloat16
    with pytest.raises(RunFolderError, match="samples with another engine_dtype;"):
        evaluation.execute(config, tmp_path, Backend("fp32"), Observer())


def test_runs_that_replay_other_rollouts_are_not_compared(tmp_path: Path) -> None:
    small = ("train.max_steps=1", "evaluate.every=0")
    digests = []
    for lr in ("1e-4", "2e-4"):  # whose second step samples otherwise
        name, settings = f"source-{lr}", ("train.max_steps=2", f"optimizer.lr={lr}")
        run(tmp_path / name, *settings, "track.rollouts=true")
        replay = (f"rollout.replay={tmp_path / name}", "rollout.engine=replay")
        digests.append(run(tmp_path / f"replay-{lr}", *small, *replay).protocol_digest)
    assert digests[0] != digests[1]
    with pytest.raises(ConfigError, match=r"another seed \(0, and here 1\)"):
        run(tmp_path / "seeded", *small, *replay, "seed=1")
    assert not (tmp_path / "seeded").exists()
