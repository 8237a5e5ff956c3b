"""Started by test_memory_ranks.py on both ranks: `memory_ranks.py MODEL`.

Has ranks of a sharded model run out of memory before collectives of a step, and in layers, and
prints for every case how far the gradient is from that of a step that had enough.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from rlvr_zoo.train.collectives import CollectiveCounter
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.rows import Rows, rows_of
from rlvr_zoo.train.sharding import whole
from tests.train.conftest import make_learner
from tests.train.ranks import BATCHES, TIMEOUT

TOKENS = 60
"""Of a micro-batch: some passes a step."""
CASES = {  # algorithm, settings, before every how many collectives memory runs out
    "a copy and a head": ("popo", (), 4),
    "a critic, recomputed": ("ppo", ("train.gradient_checkpointing=true",), 15),
    "adapters": ("popo", ("lora.rank=4", "train.gradient_checkpointing=true"), 15),
}


def full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")


class Memory:
    """Runs out once, before a collective of a number, where one is given; counts them."""

    def __init__(self, counter: CollectiveCounter) -> None:
        self._count_next = counter.count_next
        counter.count_next = self.count  # type: ignore[method-assign]
        self.set(None)

    def set(self, runs_out_at: int | None) -> None:
        self._runs_out_at, self.num_seen = runs_out_at, 0

    def count(self) -> bool:
        self.num_seen += 1
        if self.num_seen - 1 == self._runs_out_at:
            full()
        return self._count_next()


def refuse_what_is_not_finite(learner: Learner) -> None:
    """As a plug-in's own loss may, in a pass that will be discarded, too."""
    loss = learner._algorithm.loss

    def checked(*arguments: Any) -> Any:
        value, metrics = loss(*arguments)
        assert torch.isfinite(value)
        return value, metrics

    learner._algorithm.loss = checked  # type: ignore[method-assign]


@contextmanager
def one_layer_is_full(learner: Learner, backward: bool) -> Iterator[None]:
    """The second layer of this rank's policy needs too much, once, on its way there or back."""
    left = [1]

    def once(*_: object) -> None:
        if left and left.pop():
            full()

    def on_the_way_back(module: nn.Module, inputs: Any, output: Any) -> None:
        (output if isinstance(output, Tensor) else output[0]).register_hook(once)

    norm = learner.policy.lm.base_model.layers[1].post_attention_layernorm
    hook = norm.register_forward_hook(on_the_way_back if backward else once)
    yield
    hook.remove()
    assert not left, "the layer was not reached"


def gradient(learner: Learner, rows: Rows, prepared: Any) -> dict[str, Tensor]:
    """Of a step that begins with micro-batches of TOKENS; no weight is moved."""
    found: dict[str, Tensor] = {}

    def keep() -> None:
        for name, module in learner.modules.items():
            for key, parameter in module.named_parameters():
                if parameter.grad is not None:
                    found[f"{name}.{key}"] = whole(parameter.grad).clone()

    learner.optimizer.step = keep  # type: ignore[method-assign, assignment]
    learner._passes.micro_batch_tokens = TOKENS
    learner.step(rows, prepared, torch.arange(len(rows.ids_NL)))
    return found


def gap(got: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    norm = torch.stack([tensor.norm() for tensor in want.values()]).norm()
    return float(torch.stack([(got[n] - want[n]).norm() for n in want]).norm() / norm)


def gaps(
    model: Path, algo: str, settings: tuple[str, ...], every: int
) -> Iterator[tuple[str, float, int]]:
    """(where memory ran out, distance of the gradient, tokens of a micro-batch in the end)."""
    learner = make_learner(
        model, algo, *settings, "optimizer.max_grad_norm=0", "rollout.group_size=4",
        f"train.micro_batch_tokens={TOKENS}", "train.parallel=fsdp",
    )  # fmt: skip
    rank = distributed.get_rank()
    rows = rows_of(BATCHES["mixed"], list(range(16)), 9, torch.device("cpu"))
    memory = Memory(learner._backend.collectives)
    refuse_what_is_not_finite(learner)

    prepared = learner.prepare(rows)
    for at in range(0, memory.num_seen, every):
        memory.set(at if rank == at // every % 2 else None)
        again = learner.prepare(rows)
        for name, tensor in prepared.rows.items():
            torch.testing.assert_close(again.rows[name], tensor, rtol=1e-4, atol=1e-5)
        assert learner.micro_batch_tokens == TOKENS // 2
        learner._passes.micro_batch_tokens = TOKENS

    memory.set(None)
    want = gradient(learner, rows, prepared)
    last = memory.num_seen - 1
    for at in range(0, last + 1, every):
        one, both = (at if rank == at // every % 2 else None), (at if rank else last - at)
        for kind, runs_out_at in (("one", one), ("both", both)):
            memory.set(runs_out_at)
            found = gap(gradient(learner, rows, prepared), want)
            yield f"collective {at}, {kind}", found, learner.micro_batch_tokens
    memory.set(None)
    for backward in (False, True):
        for ranks in ({1}, {0, 1}):
            with one_layer_is_full(learner, backward) if rank in ranks else nullcontext():
                found = gap(gradient(learner, rows, prepared), want)
            yield f"a layer, {backward=}, {ranks=}", found, learner.micro_batch_tokens


def main(model: Path) -> None:
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    torch.use_deterministic_algorithms(True)  # fills what is not initialised with NaN
    found = {case: list(gaps(model, *given)) for case, given in CASES.items()}
    if distributed.get_rank() == 0:
        print(json.dumps(found))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
