"""Sources of problems, and the one function that reads them: `load`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rlvr_zoo.api import Problem
from rlvr_zoo.config import ProblemsConfig
from rlvr_zoo.errors import ConfigError, nearest
from rlvr_zoo.problems import files, hub
from rlvr_zoo.problems.addition import addition, addition4
from rlvr_zoo.problems.order import ProblemOrder
from rlvr_zoo.problems.split import split

__all__ = ["GENERATORS", "ProblemOrder", "ProblemSet", "load"]

Sides = tuple[tuple[Problem, ...], tuple[Problem, ...]]

GENERATORS: Mapping[str, Callable[[int, int, bool], Sides]] = {
    "addition": addition,
    "addition4": addition4,
}
"""Name -> (num_held_out, split_seed, validation) -> (training, held-out) problems."""


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Problems to train on, at least one, and problems to measure accuracy on."""

    train: tuple[Problem, ...]
    held_out: tuple[Problem, ...]
    source: str
    """Where they come from: generator, path, or dataset and commit."""

    @property
    def description(self) -> str:
        """One line for people."""
        return f"{self.source}: {len(self.train)} to train on, {len(self.held_out)} held out"

    @property
    def digest(self) -> str:
        """SHA-256, in hex, over ids, prompts and answers of both sides in their order."""
        sides = [
            [(problem.id, problem.prompt, problem.answer) for problem in side]
            for side in (self.train, self.held_out)
        ]
        return hashlib.sha256(json.dumps(sides).encode()).hexdigest()


def load(config: ProblemsConfig) -> ProblemSet:
    """The problems that the configuration names: `path`, else `hub`, else `generator`.

    Training and held-out problems share no text; equal configurations give equal sets.

    Raises ConfigError for settings that name no source, NotFoundError for a dataset that cannot be
    had, and ProblemsError for problems that cannot be used as they are.
    """
    if config.num_held_out < 0:
        raise ConfigError(
            f"problems.num_held_out={config.num_held_out}: a count cannot be negative; 0 holds out "
            "nothing"
        )
    name, (train, held_out) = _sides(config)
    return ProblemSet(train=train, held_out=held_out, source=name)


def _sides(config: ProblemsConfig) -> tuple[str, Sides]:
    number, seed, validation = config.num_held_out, config.split_seed, config.held_out != "test"
    if config.path:
        return config.path, _split(files.read(config.path), config, config.path)
    if config.hub:
        problems = hub.read(config)
        return problems[0].source, _split(problems, config, config.hub)
    if config.generator not in GENERATORS:
        raise ConfigError(
            f"problems.generator={config.generator!r}: unknown; "
            f"{nearest(config.generator, GENERATORS)}"
        )
    return config.generator, GENERATORS[config.generator](number, seed, validation)


def _split(problems: Sequence[Problem], config: ProblemsConfig, name: str) -> Sides:
    """Training and held-out problems; for validation as many others, the test's on no side."""
    sides = split(problems, config.num_held_out, config.split_seed, name)
    if config.held_out == "validation":
        return split(sides[0], config.num_held_out, config.split_seed, name)
    return sides
