"""Benchmark suites through the real command line: plain lm-eval's scores, kills, real problems."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rlvr_zoo_benchmarks

from .conftest import Launch

PATIENCE_S = 300
SLOW = ("--set=suites.limit=64", "--set=rollout.batch_tokens=72")
"""Seconds for a suite, so that it can be killed in the middle; a few rows at a time."""


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=PATIENCE_S)
    return process.returncode, out, err


def plain_lm_eval(tiny: Path, folder: Path, gen_kwargs: str) -> dict[str, Any]:
    """What lm-eval's own command line makes of the suite `micro` and its own `hf` model."""
    subprocess.run(
        [
            sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu",
            "--model_args", f"pretrained={tiny},dtype=float32", "--batch_size", "256",
            "--include_path", str(rlvr_zoo_benchmarks.TASKS), "--tasks", "micro",
            "--output_path", str(folder), "--log_samples", "--gen_kwargs", gen_kwargs,
        ],
        check=True, capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    (samples,) = folder.rglob("samples_micro_*.jsonl")
    return {row["doc"]["id"]: row for row in map(json.loads, samples.read_text().splitlines())}


def test_plain_lm_eval_gives_the_same_scores(launch: Launch, tiny: Path, tmp_path: Path) -> None:
    code, out, err = finish(
        launch(
            "eval", "--model=tiny", "--suite=micro", "--temperature=0", "--output=ours", "--json"
        )
    )
    assert code == 0, err
    ours = json.loads(out)["suites"]["micro"]
    theirs = plain_lm_eval(tiny, tmp_path / "theirs", "do_sample=false,temperature=0")
    assert len(theirs) == ours["num_problems"] == 256
    for problem, row in theirs.items():
        assert ours["outcomes"][problem] == [row["accuracy"]], problem  # greedy: equal answers
    assert 0.2 < ours["accuracy"] < 0.6

    code, out, err = finish(launch("eval", "--model=tiny", "--suite=micro", "--json"))
    assert code == 0, err
    ours = json.loads(out)["suites"]["micro"]
    sampling = "do_sample=true,temperature=0.7,top_p=0.95"
    theirs = plain_lm_eval(tiny, tmp_path / "sampled", sampling)
    for metric in ("accuracy", "pass_at_2", "pass_at_4", "maj_at_4", "no_answer"):
        mean = sum(row[metric] for row in theirs.values()) / 256
        value = ours["accuracy"] if metric == "accuracy" else ours["metrics"][metric]["value"]
        assert mean == pytest.approx(value, abs=0.08), metric  # 4 standard errors of two runs


def wait_for_lines(path: Path, number: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and path.read_bytes().count(b"\n") >= number:
            return
        time.sleep(0.002)
    pytest.fail(f"{path} did not get {number} lines: {process.communicate()[1]}")


def test_a_killed_evaluation_goes_on_where_it_was(launch: Launch, tmp_path: Path) -> None:
    slow = ("eval", "--model=tiny", "--suite=micro", "--samples=8", *SLOW)
    code, out, err = finish(launch(*slow, "--output=whole", "--json"))
    assert code == 0, err
    whole = json.loads(out)["suites"]["micro"]

    samples = tmp_path / "parts/samples/micro.jsonl"
    for lines, blow in ((100, signal.SIGKILL), (250, signal.SIGINT)):
        process = launch(*slow, "--output=parts")
        wait_for_lines(samples, lines, process)
        process.send_signal(blow)
        code, _, err = finish(process)
        assert code == (130 if blow == signal.SIGINT else -signal.SIGKILL), err
    assert "the same command with --output parts goes on" in err
    before = samples.read_bytes()
    assert not (tmp_path / "parts/results.json").exists()
    code, out, err = finish(launch(*slow, "--output=parts", "--json"))
    assert code == 0, err
    assert json.loads(out)["suites"]["micro"] == whole
    assert samples.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert len(samples.read_bytes().splitlines()) == 512, "no sample was made twice"


def test_a_run_killed_while_it_evaluates_goes_on(launch: Launch, tmp_path: Path) -> None:
    flags = (
        "--algo=grpo", "--max-steps=2", "--set=rollout.rollouts_per_step=16",
        "--set=problems.num_held_out=8", "--set=checkpoint.every=0", *SLOW,
    )  # fmt: skip
    code, _, err = finish(launch("run", *flags, "--output=whole"))
    assert code == 0, err

    for step, resume in ((0, []), (2, ["--resume"])):
        samples = tmp_path / f"parts/suites/step-{step:08d}/micro.jsonl"
        process = launch("run", *([] if resume else flags), *resume, "--output=parts")
        wait_for_lines(samples, 100, process)
        process.kill()
        finish(process)
        before = samples.read_bytes()
        assert before.count(b"\n") < 256, "it was killed in the middle"
    code, _, err = finish(launch("run", "--resume", "--output=parts"))
    assert code == 0, err
    assert samples.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    ours, theirs = (
        json.loads((tmp_path / f / "record.json").read_text()) for f in ("parts", "whole")
    )
    assert ours["status"] == "finished"
    assert ours["evaluations"] == theirs["evaluations"]
    lines = (tmp_path / "parts/evaluations.jsonl").read_text().splitlines()
    assert [(e["step"], e["name"]) for e in map(json.loads, lines)] == [
        (0, "held-out"), (0, "micro"), (2, "held-out"), (2, "micro"),
    ]  # fmt: skip


def test_every_real_problem_is_asked(launch: Launch, tmp_path: Path, data_dir: Path) -> None:
    """All suites, all problems, a few tokens of each: the tiny model knows no such mathematics."""
    process = launch(
        "eval", "--model=tiny", "--suite=rlvr_math", "--samples=1", "--max-tokens=4", "--json",
        f"--data={data_dir}", "--set=rollout.batch_tokens=16384",
    )  # fmt: skip
    code, out, err = finish(process)
    assert code == 0, err
    suites = json.loads(out)["suites"]
    assert {name: suite["num_problems"] for name, suite in suites.items()} == {
        "aime24": 30, "aime25": 30, "amc23": 40, "aimo_amc": 83, "math500": 500,
        "olympiadbench": 675, "gsm8k": 1319,
    }  # fmt: skip
    for suite in suites.values():
        assert suite["accuracy"] < 0.05 and suite["low"] <= suite["accuracy"] <= suite["high"]
        assert suite["high"] > 0 and suite["metrics"]["truncated"]["value"] > 0.9
