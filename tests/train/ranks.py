"""Started by test_invariance.py on every rank: `ranks.py MODEL PARALLEL MICRO_BATCH_TOKENS OUT`.

Writes the gradient of one optimizer step for every algorithm and some batches to OUT.
"""

import sys
from datetime import timedelta
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, distributed

from rlvr_zoo import registry
from rlvr_zoo.api import Group
from rlvr_zoo.errors import PluginError
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.part import Part
from rlvr_zoo.train.rows import rows_of
from rlvr_zoo.train.sharding import moved, whole
from tests.train.conftest import group, make_learner

BATCHES = {
    "mixed": [
        group(0, [1, 0, 1, 0], [7, 2, 5, 3]),
        group(1, [0, 0, 0, 0], [1, 9, 4, 4]),
        group(2, [1, 1, 1, 1], [2, 2, 8, 6]),
        group(3, [0, 0, 0, 1], [3, 5, 5, 1]),
    ],
    "one positive": [group(4, [0, 0, 1, 0], [2, 6, 3, 1])],
}
TIMEOUT = timedelta(seconds=60)
"""Of a collective: ranks that wait for one that does not come fail, and do not hang."""


def algorithms() -> list[str]:
    """Every algorithm and ablation, by the name that `--algo` takes."""
    found = [each for each in registry.algorithms() if not isinstance(each, PluginError)]
    return [each.name for each in found]


def gradients(model: Path, algo: str, tokens: int, parallel: str) -> dict[str, dict[str, Tensor]]:
    """For every batch the gradient of every trained weight, whole, on every rank."""
    learner = make_learner(
        model, algo, "optimizer.max_grad_norm=0", "rollout.group_size=4",
        f"train.micro_batch_tokens={tokens}", f"train.parallel={parallel}",
    )  # fmt: skip
    return {batch: _gradient(learner, groups) for batch, groups in BATCHES.items()}


def _gradient(learner: Learner, groups: list[Group]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep() -> None:
        for name, module in learner.modules.items():
            for key, parameter in module.named_parameters():
                held = moved(parameter)
                if held.grad is not None:
                    grad = held.gathered(held.grad) if isinstance(held, Part) else held.grad
                    found[f"{name}.{key}"] = whole(grad).clone()

    learner.optimizer.step = keep  # type: ignore[method-assign, assignment]
    rows = rows_of(groups, list(range(4 * len(groups))), 9, torch.device("cpu"))
    learner.step(rows, learner.prepare(rows), torch.arange(4 * len(groups)))
    return found


def main() -> None:
    model, parallel, tokens, out = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    for algo in algorithms():
        for batch, found in gradients(model, algo, tokens, parallel).items():
            if distributed.get_rank() == 0:
                save_file(found, Path(out) / f"{algo}, {batch}.safetensors")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
