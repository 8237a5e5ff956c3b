"""Evaluations on vLLM agree with transformers, and end where another policy was measured."""

import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from rlvr_zoo.models.load import LoadedModel
from rlvr_zoo.models.tiny import Recipe, build_tokenizer
from tests.vllm_cpu.conftest import settings
from tests.vllm_cpu.measure import ROUNDING, change, gap, requests, weights_of
from tests.vllm_cpu.test_training import rlvr_zoo

NO_SYNC = """
import rlvr_zoo.rollout.vllm as vllm
load = vllm.Colocated.load
vllm.Colocated.load = lambda self, weights, version: None if version >= {} else load(
    self, weights, version
)
"""


def accuracies(folder: Path, engine: str, *flags: str) -> dict[str, float]:
    """Share of correct samples, by problem."""
    done = rlvr_zoo(
        folder, "eval", "--model=tiny", "--suite=micro", f"--engine={engine}",
        f"--output={engine}", *flags,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    suite = json.loads((folder / engine / "results.json").read_text())["suites"]["micro"]
    if engine == "vllm":
        assert 0 <= suite["logp_gap"] < 1e-5
    return {problem: mean(each) for problem, each in suite["outcomes"].items()}


def test_accuracy_under_top_p_is_that_of_transformers(tmp_path: Path) -> None:
    """Engines draw other samples: means of 4 on each of 256 problems, within 3 standard errors."""
    flags = [
        "--temperature=1", "--set=suites.top_p=0.95", "--set=suites.num_samples=4",
    ]  # fmt: skip
    ours = accuracies(tmp_path, "transformers", *flags)
    theirs = accuracies(tmp_path, "vllm", *flags)
    differences = [theirs[problem] - ours[problem] for problem in ours]
    assert len(differences) == 256 and any(differences), "not the same samples"
    assert abs(mean(differences)) < 3 * stdev(differences) / len(differences) ** 0.5


def test_eval_of_weights_that_never_arrived_is_refused(tmp_path: Path) -> None:
    """vLLM begins with made-up weights, and would score them."""
    done = rlvr_zoo(
        tmp_path, "eval", "--model=tiny", "--suite=micro", "--engine=vllm", "--output=out",
        before=NO_SYNC.format(0),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "samples another policy" in done.stderr and "an evaluation's tokens" in done.stderr
    assert not (tmp_path / "out/results.json").exists()
    assert not (tmp_path / "out/samples/micro.jsonl").exists()


def test_a_runs_last_evaluation_is_proven(tmp_path: Path) -> None:
    done = rlvr_zoo(
        tmp_path, "run", "--algo=grpo", "--max-steps=2", "--output=run",
        "--set=rollout.engine=vllm", "--set=track.mlflow=false", "--set=suites.names=[]",
        "--set=problems.num_held_out=16", before=NO_SYNC.format(2),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "an evaluation's tokens" in done.stderr
    steps = (tmp_path / "run/metrics.jsonl").read_text().count("train/loss")
    assert steps == 2, "no step was left to see it"


SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 2048,
}


def llama(vocab_size: int) -> Any:
    config = LlamaConfig(vocab_size=vocab_size, tie_word_embeddings=False, **SHAPE)
    return LlamaForCausalLM(config)


def qwen3(vocab_size: int) -> Any:
    config = Qwen3Config(vocab_size=vocab_size, tie_word_embeddings=True, **SHAPE)
    return Qwen3ForCausalLM(config)


@pytest.mark.parametrize("make", [llama, qwen3])
def test_weights_of_other_architectures_arrive(make: Any) -> None:
    from rlvr_zoo.rollout.vllm import VllmEngine

    torch.manual_seed(0)
    tokenizer = build_tokenizer(Recipe())
    lm = make(len(tokenizer)).eval()
    lm.config.architectures = [type(lm).__name__]  # as every checkpoint says
    model = LoadedModel(lm, tokenizer, 2048, frozenset({int(tokenizer.eos_token_id)}), "", "")
    engine = VllmEngine(model, settings())
    try:
        engine.sync(weights_of(model), 0)
        assert gap(engine, model, requests(model)) < ROUNDING
        change(model)
        assert gap(engine, model, requests(model)) > ROUNDING
        engine.sync(weights_of(model), 1)
        assert gap(engine, model, requests(model)) < ROUNDING
    finally:
        engine.close()
