"""A server killed in the middle of a run: one line says so, and the resumed run ends as if it had
lived."""

import json
import subprocess
import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from tests.vllm_cpu.serving import serving

STEPS = 6


def start(folder: Path, name: str, *further: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "rlvr_zoo", "run", f"--output={name}", *further]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def ended(run: "subprocess.Popen[str]") -> tuple[int, str]:
    """Its exit code, and what it said on stderr."""
    _, said = run.communicate(timeout=300)
    return run.returncode, said


def anew(url: str) -> list[str]:
    """A run in which the server batches nothing, so that its log-probs repeat to the last bit."""
    return [
        "--algo=grpo", f"--max-steps={STEPS}", "--set=rollout.engine=vllm",
        f"--set=rollout.vllm.servers=[{url}]", "--set=rollout.vllm.max_num_seqs=1",
        "--set=rollout.rollouts_per_step=32", "--set=problems.num_held_out=16",
        "--set=checkpoint.every=1", "--set=track.mlflow=false", "--set=suites.names=[]",
    ]  # fmt: skip


def trained_steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("train/loss") if path.exists() else 0


def test_a_run_goes_on_exactly_where_its_server_died(tiny: Path, tmp_path: Path) -> None:
    with serving(tiny, tmp_path) as server:
        status, said = ended(start(tmp_path, "whole", *anew(server.url)))
        assert status == 0, said
        cut = start(tmp_path, "cut", *anew(server.url))
        end = time.monotonic() + 300
        while trained_steps(tmp_path / "cut") < 2:
            assert time.monotonic() < end and cut.poll() is None
            time.sleep(0.02)
        server.kill()
        status, said = ended(cut)
    assert status == 2, said
    (error,) = [line for line in said.splitlines() if line.startswith("rlvr-zoo: error:")]
    assert f"{server.url} does not answer" in error and "--resume" in error
    assert "Traceback" not in said
    assert 2 <= trained_steps(tmp_path / "cut") < STEPS
    with serving(tiny, tmp_path) as another:
        servers = f"--set=rollout.vllm.servers=[{another.url}]"
        status, said = ended(start(tmp_path, "cut", "--resume", servers))
    assert status == 0, said
    assert json.loads((tmp_path / "cut/record.json").read_text())["status"] == "finished"
    policies = [
        load_file(tmp_path / run / f"checkpoints/step-{STEPS:08d}/policy/model.safetensors")
        for run in ("whole", "cut")
    ]
    assert all((policies[0][name] == policies[1][name]).all() for name in policies[0])
