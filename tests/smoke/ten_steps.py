"""Ten steps of `micro` with every algorithm, on one process, and on two with whole models and with
sharded ones: what test_ten_steps.py starts as `ten_steps.py FOLDER`.

Four sharded ranks take three times as long; test_ranks.py has them with one algorithm, and
tests/train/test_invariance.py with every algorithm's gradient.

One process imports everything, and forks the ranks.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

from rlvr_zoo import problems, registry
from rlvr_zoo.config import ProblemsConfig
from rlvr_zoo.errors import PluginError
from rlvr_zoo.models.quiet import quiet_transformers
from rlvr_zoo.resolve import merge, parse_set, resolve
from rlvr_zoo.train.setup import execute
from tests.train.forked import fork, together

ALONE = "alone"
WORLDS = {"whole models on two": (2, "ddp"), "sharded over two": (2, "fsdp")}
"""Folder of the runs -> how many ranks, and how they hold models."""
STEPS = 10
PROBLEMS = "problems.jsonl"
SMALL = (
    f"problems.path={PROBLEMS}",
    "rollout.rollouts_per_step=20",
    "rollout.group_size=4",
    "train.minibatches=2",  # of 5 groups
    "train.micro_batch_tokens=40",  # 2 rows or more: ranks have unequal numbers of micro-batches
    "problems.num_held_out=65",  # shared out unevenly, too
    "evaluate.every=0",
    "checkpoint.every=0",  # only the last
    "suites.names=[]",
    "track.mlflow=false",
)


class Silent:
    """An observer of a run that says nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: None


def algorithms() -> list[str]:
    """Every algorithm and ablation, by the name that `--algo` takes."""
    found = [each for each in registry.algorithms() if not isinstance(each, PluginError)]
    return [each.name for each in found]


def write_problems() -> None:
    """A few of the protocol's ten thousand, which take every rank of every run a while to read."""
    few = problems.load(ProblemsConfig()).train[:400]
    lines = [json.dumps({"problem": each.prompt, "answer": each.answer}) for each in few]
    Path(PROBLEMS).write_text("\n".join(lines))


def train(parallel: str, out: str) -> None:
    """A run of every algorithm, in a folder of its name."""
    for algo in algorithms():
        tree = {"algo": algo, "train": {"max_steps": STEPS, "parallel": parallel}}
        execute(resolve({}, merge(parse_set(SMALL), tree)), Path(out, algo), False, Silent())


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    quiet_transformers()
    write_problems()
    alone = partial(train, "auto", ALONE)
    worlds = [partial(fork, n, partial(train, how, out)) for out, (n, how) in WORLDS.items()]
    if failed := together([alone, *worlds]):
        sys.exit(f"worlds {failed} failed")
