"""Presets say what their sources say."""

import re

import pytest

from rlvr_zoo.config import RunConfig
from rlvr_zoo.models.load import TEMPLATE_DATE, PromptTemplate
from rlvr_zoo.resolve import presets, resolve

ALGORITHMS = ("popo", "grpo", "ppo", "dapo", "raft", "nsr")


def settled(algo: str) -> RunConfig:
    return resolve({}, {"algo": algo, "model": "qwen-math-7b"})


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_the_papers_run_is_the_same_for_every_algorithm(algo: str) -> None:
    """Each number as ALGORITHMS.md gives it, from the authors' repository."""
    config = settled(algo)
    assert config.protocol == "math-7b"
    assert config.model.path == "Qwen/Qwen2.5-Math-7B"
    assert config.problems.hub == "agentica-org/DeepScaleR-Preview-Dataset"
    assert "step by step" in config.model.system and r"\boxed{}" in config.model.system
    rollout, optimizer, train = config.rollout, config.optimizer, config.train
    assert (rollout.rollouts_per_step, rollout.group_size) == (8 * 8, 8)
    assert (rollout.max_prompt_tokens, rollout.max_completion_tokens) == (512, 1024)
    assert rollout.temperature == 1.0
    assert (train.max_steps, train.minibatches, train.epochs) == (1500, 1, 1)
    assert train.precision == "bf16"
    assert (optimizer.lr, optimizer.schedule, optimizer.warmup_fraction) == (1e-7, "cosine", 0.1)
    assert (optimizer.weight_decay, optimizer.max_grad_norm) == (0.01, 1.0)
    assert (config.suites.temperature, config.suites.top_p) == (0.7, 0.95)
    assert (config.evaluate.temperature, config.evaluate.top_p) == (0.7, 0.95)
    assert {"math500", "amc23", "aime24", "aime25", "olympiadbench"} == set(config.suites.names)


def test_what_is_the_algorithms_own_in_the_papers_run() -> None:
    popo = settled("popo").algorithm
    assert (popo["similarity_coef"], popo["entropy_coef"], popo["momentum"]) == (0.1, 0.01, 0.999)
    assert (popo["predictor_hidden_size"], popo["feature_noise_std"]) == (4096, 0.01)
    assert settled("grpo").algorithm["kl_coef"] == 0.01


@pytest.mark.parametrize("model", [name for name in presets("models") if "tiny" not in name])
def test_a_models_preset_is_pinned_and_starts_with_its_protocol(model: str) -> None:
    config = resolve({}, {"algo": "grpo", "model": model})
    assert re.fullmatch(r"[0-9a-f]{40}", config.model.revision)
    assert config.protocol == ("math-7b" if model.endswith("7b") else "math-small")
    assert config.model.chat == "always" and r"\boxed{}" in config.model.system
    positions = presets("models")[model]["architecture"]["max_position_embeddings"]
    assert config.model.max_context_tokens <= positions
    tokens = config.rollout.max_prompt_tokens + config.rollout.max_completion_tokens
    assert tokens <= config.model.max_context_tokens


def test_prompts_do_not_tell_the_day() -> None:
    """Llama's templates would write today's date, so that runs of two days would not compare."""

    class Tokenizer:
        chat_template = "{{ date_string }}"

        def apply_chat_template(self, turns: object, **more: str) -> str:
            return more.get("date_string", "today")

    config = resolve({}, {"algo": "grpo", "model": "llama-3.2-3b"}).model
    assert PromptTemplate(config, Tokenizer()).text("1+1?") == TEMPLATE_DATE
