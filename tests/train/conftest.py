"""A small model with random weights, and a learner around it."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from rlvr_zoo.api import Group, Problem, Rollout, Verdict
from rlvr_zoo.checks import build
from rlvr_zoo.config import ModelConfig, RunConfig
from rlvr_zoo.models.load import LoadedModel, load
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer
from rlvr_zoo.registry import algorithm
from rlvr_zoo.resolve import parse_set, resolve
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.learner import Learner


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny architecture with random weights, as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(Recipe())
    build_model(Recipe(), tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(model_dir: Path) -> LoadedModel:
    """A fresh copy, that a test may train."""
    return load(ModelConfig(name="random", path=str(model_dir)))


def configured(algo: str, *settings: str) -> RunConfig:
    """A run's configuration from `--set` assignments."""
    return resolve({}, {"algo": algo, **parse_set(settings)})


def make_learner(model_dir: Path, algo: str, *settings: str) -> Learner:
    """A learner on the model in a folder: algorithm, then `--set` assignments."""
    config = configured(algo, *settings)
    chosen = algorithm(algo)
    knobs: Any = build(chosen.cls.Config, config.algorithm, "algorithm")
    lm = load(ModelConfig(name="random", path=str(model_dir))).lm
    backend = Backend(config.train.precision, config.train.parallel)
    return Learner(lm, chosen.cls(knobs), chosen.cls.spec(knobs), config, backend)


@pytest.fixture
def learner_of(model_dir: Path) -> Callable[..., Learner]:
    """Builds a learner on the random model."""
    return partial(make_learner, model_dir)


def group(number: int, rewards: Sequence[float], lengths: Sequence[int]) -> Group:
    """A group with made-up tokens: rewards and completion lengths as given."""
    draw = torch.Generator().manual_seed(number)
    rollouts = [
        Rollout(
            ids=tuple(torch.randint(2, 200, (length,), generator=draw).tolist()),
            logp=tuple((-5 * torch.rand(length, generator=draw)).tolist()),
            text="",
            truncated=False,
        )
        for length in lengths
    ]
    verdicts = [Verdict(correct=reward > 0, extracted="", method="string") for reward in rewards]
    prompt = tuple(torch.randint(2, 200, (3 + number,), generator=draw).tolist())
    return Group(
        problem=Problem(id=str(number), prompt="?", answer="!"),
        prompt_ids=prompt,
        rollouts=tuple(rollouts),
        verdicts=tuple(verdicts),
    )
