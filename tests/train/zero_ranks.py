"""One of two ranks of test_zero.py, which writes what DeepSpeed's parts became to OUT.

torchrun --nproc-per-node=2 -m tests.train.zero_ranks MODEL OUT
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from rlvr_zoo.config import ModelConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.models.load import load
from rlvr_zoo.train import checkpoint
from rlvr_zoo.train.learner import Learner
from rlvr_zoo.train.part import part_of
from rlvr_zoo.train.recompute import recompute_activations
from rlvr_zoo.train.sharding import whole
from rlvr_zoo.train.zero import Zero
from tests.train.conftest import make_learner
from tests.train.ranks import TIMEOUT
from tests.train.sharded_network import build, loss
from tests.train.test_zero import CASES, run


def networks(zero: Zero) -> dict[str, float]:
    """The greatest distance of a gradient, by kind; ranks have different numbers of chunks."""
    found = {}
    for tied in (False, True):
        for recompute in (False, True):
            alone, split = build(tied), build(tied)
            if recompute:
                recompute_activations(split.lm)
            zero.shard(split)
            for rank in range(2):
                loss(alone, rank).backward()
            loss(split, distributed.get_rank()).backward()
            zero.rest()
            gaps = []
            for got, want in zip(split.parameters(), alone.parameters(), strict=True):
                part = part_of(got)
                assert part is not None and part.grad is not None and want.grad is not None
                gap = part.gathered(part.grad) - want.grad
                gaps.append((gap.abs().max() / want.grad.abs().max()).item())
            found[f"{tied=} {recompute=}"] = max(gaps)
    return found


def share_gathered(zero: Zero) -> float:
    """The most of a deep model that is whole after a forward pass, or on its way to be, once
    DeepSpeed knows in what order weights are used."""
    network = build(tied=False, layers=16)
    zero.shard(network)
    held: list[Any] = list(network.parameters())
    found = 0
    for _ in range(4):
        end = loss(network, 0)
        found = max(found, sum(p.ds_numel for p in held if p.ds_status.name != "NOT_AVAILABLE"))
        end.backward()
        zero.rest()
    return found / sum(p.ds_numel for p in held)


def refuses_other_heads(zero: Zero) -> bool:
    network = build(tied=False)
    head: Any = network.lm.get_output_embeddings()
    head.forward = lambda hidden: hidden @ head.weight.T
    try:
        zero.shard(network)
    except ConfigError as error:
        return "train.parallel=fsdp" in str(error)
    return False


def holds_parts_only(learner: Learner) -> bool:
    return all(
        parameter.numel() == 0 and part_of(parameter) is not None
        for module in learner.modules.values()
        for parameter in module.parameters()
    )


def save(learner: Learner, model: Path, out: Path) -> Path:
    parts = checkpoint.snapshot(learner, is_main=distributed.get_rank() == 0)
    if distributed.get_rank() == 0:
        tokenizer = load(ModelConfig(name="random", path=str(model))).tokenizer
        out.mkdir()
        checkpoint.save(out, learner, parts, tokenizer, checkpoint.State(step=2), keep=1)
    distributed.barrier()
    return out / "step-00000002"


def main(model: Path, out: Path) -> None:
    distributed.init_process_group("gloo", timeout=TIMEOUT)
    zero = Zero(torch.device("cpu"))
    assert refuses_other_heads(zero)
    torch.save(networks(zero), out / "networks.pt")
    assert share_gathered(zero) < 3 / 16
    for case, (algo, settings) in CASES.items():
        if "adapters" in case and find_spec("peft") is None:
            continue
        asked = (*settings, "train.parallel=deepspeed")
        learner, resumed = (make_learner(model, algo, *asked, f"seed={seed}") for seed in (0, 7))
        half = run(learner, 0, 2)
        assert holds_parts_only(learner)
        checkpoint.load(save(learner, model, out / case), resumed)
        end = run(learner, 2, 4)
        run(resumed, 2, 4)
        for ours, theirs in zip(learner.parameters, resumed.parameters, strict=True):
            assert torch.equal(whole(ours), whole(theirs)), case
        if distributed.get_rank() == 0:
            torch.save({"half": half, "end": end}, out / f"{case}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
