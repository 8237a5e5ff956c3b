"""scripts/gpu_check.py on a CPU: every measurement in small, and what comes of a failing one."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from rlvr_zoo.api import Ema, Spec

SCRIPTS = Path(__file__).parents[2] / "scripts"
MODULES = ("gpu_check", "gpu_common", "gpu_measure", "gpu_trl")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        sys.modules.pop(name)


def gpu_check(*arguments: str, out: Path) -> dict[str, Any]:
    command = [sys.executable, str(SCRIPTS / "gpu_check.py"), "--toy", *arguments]
    env = dict(os.environ) | {"OUT": str(out), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert json.loads((out / "gpu_check.json").read_text()) == found
    return found


def test_a_failing_measurement_is_reported_and_ends_nothing_else(tmp_path: Path) -> None:
    """A group has 4 rollouts, so 6 rows fail in the process, and TRL is not asked for."""
    found = gpu_check("--only", "toy/popo", "toy/ppo", "--rows", "6", out=tmp_path)
    for one in found["measurements"].values():
        assert one["status"] == "failed" and "set a multiple of 4" in one["reason"]
    assert list(found["measurements"]) == ["toy/popo", "toy/ppo"]


def test_the_document_of_a_toy_run(tmp_path: Path) -> None:
    found = gpu_check("--only", "toy-8bit/grpo", out=tmp_path)
    one = found["measurements"]["toy-8bit/grpo"]
    assert one["status"] == "ok" and one["stage"] == "end", one
    assert one["update"]["tokens"] == 8 * 12 and one["update"]["update_tokens_per_s"] > 0
    assert one["rollout"]["rollout_tokens_per_s"] > 0 and one["rollout"]["logp_gap_mean"] < 0.05
    assert one["peak_gib"] > 0 and one["update"]["mfu"] is None, "a CPU has no peak in the table"
    assert found["step_s"].keys() == {"toy-8bit/grpo"}
    assert found["machine"]["gpu"] is None and all(goal["met"] is None for goal in found["goals"])


@pytest.mark.parametrize("size", ["toy", "toy-8bit"])
@pytest.mark.parametrize("algo", ["popo", "grpo", "ppo"])
def test_every_algorithm_is_measured(
    scripts: dict[str, ModuleType], algo: str, size: str, tmp_path: Path
) -> None:
    path = tmp_path / "result.json"
    shape = scripts["gpu_common"].SIZES[size]
    scripts["gpu_measure"].ours(algo, shape, scripts["gpu_common"].Report(path))
    found = json.loads(path.read_text())
    assert found["status"] == "ok" and found["update"]["skipped"] == 0
    parts = found["update"]["parts_s"]
    assert 0 < sum(parts.values()) <= found["update"]["update_s"] + 0.001
    assert all(seconds > 0 for name, seconds in parts.items() if name != "companions")
    assert ("critic" in found["parameters"]) == (algo == "ppo" and size == "toy")


def test_without_trl_its_side_is_skipped(
    scripts: dict[str, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    report = scripts["gpu_common"].Report(tmp_path / "result.json")
    scripts["gpu_trl"].trl(scripts["gpu_common"].SIZES["toy"], report)
    found = json.loads((tmp_path / "result.json").read_text())
    assert found["status"] == "skipped" and "trl cannot be imported" in found["reason"]


def test_flops_of_a_token_by_hand(scripts: dict[str, ModuleType]) -> None:
    """Trunk 100, output layer 10; update 6 x 110, policy's pass 2 x 110, the copy's 2 x 100."""
    spec = Spec(
        companions={"copy": Ema(0.9)},
        prepare={"policy": frozenset({"logp"}), "copy": frozenset({"hidden"})},
        loss={"policy": frozenset({"logp", "entropy"})},
    )
    assert scripts["gpu_measure"].flops_per_token(spec, 100, 10) == 660 + 220 + 200
    lm = scripts["gpu_common"].build_lm(scripts["gpu_common"].SIZES["toy"])
    every = sum(p.numel() for p in lm.parameters())
    assert scripts["gpu_common"].per_token(lm) == (every - 512 * 64, 512 * 64), "the table is tied"


def test_goals_by_hand(scripts: dict[str, ModuleType]) -> None:
    def update(seconds: float, mfu: float | None = None) -> dict[str, Any]:
        return {"update": {"update_s": seconds, "update_tokens_per_s": 64 / seconds, "mfu": mfu}}

    measured = {"7b/grpo": update(2.0, 0.41), "7b/popo": update(2.8, 0.39), "7b/trl": update(2.5)}
    goals = scripts["gpu_check"].goals
    found = {goal["goal"]: goal for goal in goals(measured, "7b", "NVIDIA H200")}
    assert [(goal["measured"], goal["met"]) for goal in found.values()] == [
        (0.41, True),
        (0.39, False),
        (1.25, False),
        (1.4, False),
    ]
    assert all(goal["met"] is None for goal in goals(measured, "7b", "NVIDIA H100"))
    failed = goals({"7b/grpo": {"status": "failed"}}, "7b", "NVIDIA H200")
    assert all(goal["measured"] is None and goal["met"] is None for goal in failed)


def test_a_measurement_beyond_its_limit_is_ended_and_keeps_what_it_had(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    result, mark = tmp_path / "result.json", tmp_path / "outlived"
    code = (
        "import subprocess, sys, time; from pathlib import Path;"
        f'Path({str(result)!r}).write_text(\'{{"status": "ok", "stage": "rollout"}}\');'
        f"subprocess.Popen(['sh', '-c', 'sleep 3; touch {mark}']); time.sleep(60)"
    )
    found = scripts["gpu_check"].finish([sys.executable, "-c", code], result, limit_s=1.5)
    assert found["status"] == "time" and "'rollout'" in found["reason"]
    time.sleep(2.5)
    assert not mark.exists(), "what it started goes, too"


def test_a_crash_is_told_with_its_last_words_and_keeps_what_was_measured(
    scripts: dict[str, ModuleType], tmp_path: Path
) -> None:
    result = tmp_path / "result.json"
    result.write_text('{"status": "ok", "stage": "rollout", "update": {"update_s": 2.0}}')
    code = "import os; print('CUDA out of memory', flush=True); os.abort()"
    found = scripts["gpu_check"].finish([sys.executable, "-c", code], result, 30)
    assert found["status"] == "failed" and found["reason"] == "CUDA out of memory"
    assert found["exit_code"] < 0 and found["update"]["update_s"] == 2.0
