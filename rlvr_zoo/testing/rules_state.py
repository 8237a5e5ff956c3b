"""The rule about a real, small model: one optimizer step, a checkpoint, and the step after it."""

from __future__ import annotations

import copy
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlvr_zoo.api import Ema, Frozen, Group, Problem, Rollout, Verdict
from rlvr_zoo.config import OptimizerConfig, RunConfig, TrainConfig
from rlvr_zoo.models.tiny import Recipe, build_model, build_tokenizer, no_progress_bars
from rlvr_zoo.testing.subject import Broken, Subject
from rlvr_zoo.testing.synthetic import mixed_rewards
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.backend import Backend
from rlvr_zoo.train.checkpoint import State
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.rows import Rows, rows_of

_CONFIG = RunConfig(
    algo="",
    optimizer=OptimizerConfig(lr=1e-3),
    train=TrainConfig(micro_batch_tokens=256, max_steps=2),
)


class _Processor(Backend):
    """On the CPU also where there is a GPU: there, sums are not the same to the last bit."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu")


@cache
def _model() -> tuple[Any, Any]:
    """A small Qwen2 with random weights, and its tokenizer."""
    recipe = Recipe(num_layers=1, hidden_size=32, intermediate_size=64, num_heads=2)
    tokenizer = build_tokenizer(recipe)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build_model(recipe, tokenizer), tokenizer


def state_survives_a_checkpoint(subject: Subject) -> float:
    """After a step of a real model, companions are where the spec says; a learner that loads the
    checkpoint takes the same next step to the last bit."""
    learner, rows = _learner(subject), _rows(subject.group_size)
    before = _state(learner)
    _step(learner, rows)
    after = _state(learner)
    if all(torch.equal(tensor, after[n]) for n, tensor in before.items() if n.startswith("policy")):
        raise Broken("an optimizer step on right and wrong answers leaves the policy as it was")
    _companions_followed(subject, before, after)
    with tempfile.TemporaryDirectory() as folder, no_progress_bars():
        state = State(step=1, optimizer_steps=learner.num_optimizer_steps)
        parts = checkpoint.snapshot(learner)
        path = checkpoint.save(Path(folder), learner, parts, _model()[1], state, keep=1)
        resumed = _learner(subject)
        checkpoint.load(path, resumed)
    _step(learner, rows)
    _step(resumed, rows)
    found = _state(resumed)
    for name, tensor in _state(learner).items():
        if not torch.equal(tensor, found[name]):
            raise Broken(
                f"after a checkpoint the next step is another one: {name} differs; usually the"
                " algorithm keeps state on `self`, which no checkpoint holds: put what is trained"
                " into Spec.head, and take the rest from the batch"
            )
    return 0.0


def _companions_followed(
    subject: Subject, before: dict[str, Tensor], after: dict[str, Tensor]
) -> None:
    for model, kind in subject.spec.companions.items():
        for name in (name for name in before if name.startswith(f"{model}.")):
            if isinstance(kind, Frozen) and not torch.equal(before[name], after[name]):
                raise Broken(f"{name} of a frozen companion moved; do not write into a model")
            if isinstance(kind, Ema):
                moved = after["policy." + name.removeprefix(f"{model}.")]
                want = kind.decay * before[name] + (1 - kind.decay) * moved
                if not torch.allclose(after[name], want, rtol=1e-5, atol=1e-7):
                    detail = f"{name} did not follow by {kind.decay}; do not write into a model"
                    raise Broken(detail)


def _learner(subject: Subject) -> Learner:
    lm = copy.deepcopy(_model()[0])
    algorithm = subject.algorithm()
    return Learner(lm, algorithm, subject.spec, _CONFIG, _Processor("fp32"))


def _step(learner: Learner, rows: Rows) -> None:
    targets = learner.prepare(rows)
    learner.step(rows, targets, torch.arange(len(rows.ids_NL)))


def _state(learner: Learner) -> dict[str, Tensor]:
    """Every tensor that decides the next step."""
    modules: dict[str, nn.Module] = {"policy": learner.policy}
    modules |= {name: companion.network for name, companion in learner.companions.items()}
    if learner.head is not None:
        modules["head"] = learner.head
    found = {f"{m}.{n}": p for m, module in modules.items() for n, p in module.named_parameters()}
    for number, state in learner.optimizer.state_dict()["state"].items():
        found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _rows(size: int) -> Rows:
    """Groups of made-up tokens: some right, one right."""
    draw = torch.Generator().manual_seed(5)
    groups = []
    for number, rewards in enumerate((mixed_rewards(size)[0], mixed_rewards(size)[3])):
        lengths = torch.randint(2, 9, (size,), generator=draw).tolist()
        rollouts = tuple(
            Rollout(
                ids=tuple(torch.randint(2, 200, (length,), generator=draw).tolist()),
                logp=(-5.0,) * length,
                text="",
                truncated=False,
            )
            for length in lengths
        )
        groups.append(
            Group(
                problem=Problem(id=str(number), prompt="?", answer="!"),
                prompt_ids=tuple(range(5, 9 + number)),
                rollouts=rollouts,
                verdicts=tuple(
                    Verdict(correct=reward > 0, extracted="", method="string") for reward in rewards
                ),
            )
        )
    seeds = range(1000, 1000 + 2 * size)
    return rows_of(groups, list(seeds), 40, torch.device("cpu"))
