"""The main job: both algorithms learn on the tiny model, from the same first rollouts."""

import json
from pathlib import Path

from .conftest import Launch


def test_grpo_and_popo_learn_from_equal_first_rollouts(launch: Launch, tmp_path: Path) -> None:
    first: dict[str, list[str]] = {}
    digests = set()
    for algo in ("grpo", "popo"):
        process = launch(
            "run", f"--algo={algo}", "--max-steps=12", f"--output={algo}",
            "--set=evaluate.every=0", "--set=track.num_samples=128", "--set=suites.limit=64",
        )  # fmt: skip
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        assert "held-out accuracy (256 problems) after 12 steps" in out and "next" in out
        record = json.loads((tmp_path / algo / "record.json").read_text())
        ends = {(each["name"], each["step"]): each for each in record["evaluations"]}
        assert list(ends) == [(n, step) for step in (0, 12) for n in ("held-out", "micro")]
        before, after = ends["held-out", 0], ends["held-out", 12]
        assert after["accuracy"] >= before["accuracy"] + 0.10
        assert before["low"] < before["accuracy"] < before["high"]
        suite = ends["micro", 12]
        assert suite["accuracy"] >= ends["micro", 0]["accuracy"] + 0.10
        assert suite["metrics"]["pass_at_4"]["value"] > suite["accuracy"]
        assert record["costs"]["generated_tokens"] > 0 and record["status"] == "finished"
        digests.add(record["protocol_digest"])
        samples = (tmp_path / algo / "samples.jsonl").read_text().splitlines()
        first[algo] = [line for line in samples if json.loads(line)["step"] == 1]
    assert len(digests) == 1
    assert len(first["grpo"]) == 128
    assert first["grpo"] == first["popo"]
