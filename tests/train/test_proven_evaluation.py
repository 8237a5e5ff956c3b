"""A sync that fails is caught where no training step sees it: in evaluations, and in `eval`."""

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from torch import Tensor

from rlvr_zoo import registry
from rlvr_zoo.errors import SyncError
from rlvr_zoo.evaluate import evaluation
from rlvr_zoo.models.tiny import ensure_tiny
from rlvr_zoo.resolve import parse_set, resolve, resolve_eval
from rlvr_zoo.rollout.base import Compute, Weights
from rlvr_zoo.rollout.transformers import TransformersEngine
from rlvr_zoo.train import setup
from rlvr_zoo.train.backend import Backend

from .forked import ROOT, command


class CopyEngine(TransformersEngine):
    """With weights of its own, as vLLM's are."""

    exact = False  # type: ignore[assignment]
    drops: int | None = None
    """The version from which on syncs do not arrive."""
    leaves_out = ""
    """A weight that does not arrive."""

    def __init__(self, model: Any, config: Any, compute: Compute) -> None:
        copied = Compute(dtype=compute.dtype, device=compute.device, is_sharded=True)
        super().__init__(model, config, copied)
        if self.leaves_out:  # it has none, as vLLM begins
            for name, tensor in self._lm.named_parameters():
                if name == self.leaves_out:
                    tensor.data.uniform_(-1e-3, 1e-3)

    def sync(self, weights: Weights, version: int) -> None:
        if self.drops is not None and version >= self.drops:
            return

        def arriving() -> Iterable[tuple[str, Tensor]]:
            return [pair for pair in weights() if pair[0] != self.leaves_out]

        super().sync(arriving, version)


@pytest.fixture
def copying(monkeypatch: pytest.MonkeyPatch, cache_dir: Path) -> type[CopyEngine]:
    """The engine `transformers`, on a copy of the weights."""
    ensure_tiny()
    load = registry.load

    class Engine(CopyEngine):
        pass

    def loaded(group: str, name: str) -> Any:
        return Engine if group == registry.ROLLOUTS else load(group, name)

    monkeypatch.setattr(registry, "load", loaded)
    return Engine


class Observer(SimpleNamespace):
    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def run(folder: Path, *settings: str) -> Any:
    small = [
        "train.max_steps=2", "rollout.rollouts_per_step=16", "problems.num_held_out=16",
        "track.mlflow=false", "suites.names=[]", *settings,
    ]  # fmt: skip
    config = resolve({}, {"algo": "grpo", **parse_set(small)})
    return setup.execute(config, folder, False, Observer())


def test_the_gap_is_in_the_record_of_every_evaluation(
    copying: type[CopyEngine], tmp_path: Path
) -> None:
    record = run(tmp_path / "run", "evaluate.every=1")
    assert [each.step for each in record.evaluations] == [0, 1, 2]
    assert all(0 <= each.logp_gap < 1e-6 for each in record.evaluations)
    logged = (tmp_path / "run/metrics.jsonl").read_text()
    assert logged.count("held-out/logp_gap") == 3


def test_a_last_evaluation_with_old_weights_ends_the_run(
    copying: type[CopyEngine], tmp_path: Path
) -> None:
    copying.drops = 2  # after both steps: no step is left to see it
    with pytest.raises(SyncError, match=r"samples another policy .* an evaluation's tokens"):
        run(tmp_path / "run")
    record = json.loads((tmp_path / "run/record.json").read_text())
    assert record["status"] == "failed" and "SyncError" in record["error"]
    assert [each["step"] for each in record["evaluations"]] == [0]


def test_the_limit_may_be_raised_for_a_run_that_is_resumed(
    copying: type[CopyEngine], tmp_path: Path
) -> None:
    copying.drops = 2
    with pytest.raises(SyncError):
        run(tmp_path / "run")
    stored = json.loads((tmp_path / "run/record.json").read_text())["config"]
    raised = resolve({}, {**stored, "rollout": {**stored["rollout"], "max_logp_gap": 10.0}})
    record = setup.execute(raised, tmp_path / "run", True, Observer())
    assert record.status == "finished" and record.evaluations[-1].logp_gap > 0.001


def test_eval_of_weights_that_did_not_arrive_is_refused(
    copying: type[CopyEngine], tmp_path: Path
) -> None:
    flags = parse_set(["suites.names=[micro]", "suites.limit=8", "suites.temperature=0"])
    config = resolve_eval("tiny", flags)
    results = evaluation.execute(config, tmp_path / "whole", Backend("fp32"), Observer())
    assert results.to_dict()["suites"]["micro"]["logp_gap"] < 1e-6
    copying.leaves_out = "model.layers.1.mlp.down_proj.weight"
    with pytest.raises(SyncError, match="samples another policy"):
        evaluation.execute(config, tmp_path / "partial", Backend("fp32"), Observer())
    assert not (tmp_path / "partial/results.json").exists()
    assert not (tmp_path / "partial/samples/micro.jsonl").exists()


@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_two_ranks_prove_together(parallel: str, tmp_path: Path, cache_dir: Path) -> None:
    """Each samples its share; all look at everyone's, and end as one."""
    ensure_tiny()
    asked = command(2, "tests.train.proof_ranks", parallel, tmp_path)
    done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    said = [(tmp_path / f"caught-{rank}").read_text() for rank in range(2)]
    assert said[0] == said[1] and "an evaluation's tokens" in said[0]
