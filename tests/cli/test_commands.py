"""What the commands print."""

import json
from pathlib import Path

import pytest
import yaml

from rlvr_zoo.rollout import vllm

from .conftest import Cli


def test_dry_run_prints_the_configuration_that_resolves_to_itself(cli: Cli) -> None:
    Path("mine.yaml").write_text("seed: 3\noptimizer: {lr: 1e-4}\ntrain: {max_steps: 7}\n")
    flags = ("run", "--algo=popo-kl", "--config=mine.yaml", "--max-steps=9", "--dry-run")
    outcome = cli(*flags, "--set=algorithm.momentum=0.9")
    assert outcome.code == 0 and not Path("runs").exists()
    config = yaml.safe_load(outcome.out)
    assert (config["algo"], config["protocol"], config["seed"]) == ("popo-kl", "micro", 3)
    assert config["train"]["max_steps"] == 9, "a flag wins over the file"
    assert config["optimizer"]["lr"] == 1e-4, "the file wins over the preset"
    assert config["rollout"]["rollouts_per_step"] == 128, "the preset wins over the default"
    assert config["algorithm"]["penalty"] == "kl" and config["algorithm"]["momentum"] == 0.9

    Path("again.yaml").write_text(outcome.out)
    again = cli("run", "--config=again.yaml", "--dry-run")
    assert again.out == outcome.out


def test_the_paper_s_7b_run_resolves(cli: Cli) -> None:
    config = yaml.safe_load(cli("run", "--algo=popo", "--model=qwen-math-7b", "--dry-run").out)
    assert config["protocol"] == "math-7b"
    assert config["model"]["path"] == "Qwen/Qwen2.5-Math-7B"
    assert config["model"]["max_context_tokens"] == 4096
    assert config["algorithm"]["momentum"] == 0.999
    assert config["optimizer"]["lr"] == 1e-7 and config["train"]["max_steps"] == 1500


def test_list_algorithms(cli: Cli) -> None:
    rows = {row["name"]: row for row in json.loads(cli("list", "algorithms", "--json").out)}
    assert rows["grpo"]["models"] == ["policy", "reference"]
    assert rows["popo"]["models"] == ["policy", "siamese", "head"]
    assert rows["popo-nosim"]["models"] == ["policy"]
    assert "2605.06650" in rows["popo-uniform"]["paper"]
    table = cli("list", "algorithms")
    assert table.code == 0 and "popo-lengthnorm" in table.out


def test_list_models_and_protocols(cli: Cli) -> None:
    names = [row["name"] for row in json.loads(cli("list", "models", "--json").out)]
    assert {"tiny", "qwen-math-7b"} <= set(names)
    names = [row["name"] for row in json.loads(cli("list", "protocols", "--json").out)]
    assert {"micro", "math-7b"} <= set(names)
    assert "'models'" in cli("list", "modles").error


def test_doctor(cli: Cli) -> None:
    outcome = cli("doctor", "--json")
    found = {row["name"]: row for row in json.loads(outcome.out)}
    assert found["torch"]["ok"] and found["algorithms"]["ok"]
    assert vllm.installed() in found["engine vllm"]["what"]
    assert outcome.code == 0
    assert "torch" in cli("doctor").out


def test_serve_prints_the_command_that_it_becomes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: vllm.TESTED[0])
    command = ("serve", f"--model={tmp_path}", "--port=8001", "--dry-run", "--enforce-eager")
    outcome = cli(*command, "--max-num-seqs", "64")
    assert outcome.code == 0
    assert f" serve {tmp_path} --host 127.0.0.1 --port 8001 " in outcome.out
    assert "VLLM_SERVER_DEV_MODE=1 " in outcome.out, "or it would take no weights"
    assert " --logprobs-mode processed_logprobs " in outcome.out
    assert outcome.out.endswith(" --enforce-eager --max-num-seqs 64\n")


def test_serve_without_vllm_says_how_to_install_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vllm, "installed", lambda: "")
    outcome = cli("serve", f"--model={tmp_path}")
    assert outcome.code == 2 and "pip install 'rlvr-zoo[vllm]'" in outcome.error


def test_track_sync_of_a_folder_that_is_no_run(cli: Cli) -> None:
    outcome = cli("track", "sync", "nowhere")
    assert outcome.code == 2 and "nowhere" in outcome.error


def test_track_sync_of_a_comparison_says_what_is_missing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    plan = {"schema": 1, "kind": "compare", "id": "compare-a", "seeds": [0, 1]}
    plan["entrants"] = [{"name": "popo"}]
    (tmp_path / "comparison.json").write_text(json.dumps(plan))
    run = tmp_path / "runs" / "popo" / "seed-0"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("- no mapping")
    outcome = cli("track", "sync", ".")
    assert outcome.code == 1
    assert "(RUNNING, 2 planned runs are missing): 0 runs looked at" in outcome.out
    assert "not sent: runs/popo/seed-0" in outcome.err
