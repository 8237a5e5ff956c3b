"""One of two ranks: six steps on parameters that FSDP2 shards, or in Parts as DeepSpeed has them,
straight, and resumed half-way from a file.

python -m tests.train.forked 2 tests.train.sharded_optimizer FOLDER
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from rlvr_zoo.train.optimizer import load_state, set_lr, state_of
from rlvr_zoo.train.part import Part, clip_parts
from rlvr_zoo.train.sharding import put, shape_of, whole
from tests.train.test_optimizer import HAS_TORCHAO, HELD, made, parameters


def sharded(starts: Sequence[Tensor], mesh: DeviceMesh) -> list[nn.Parameter]:
    model = nn.Module()
    model.held = nn.ParameterList([nn.Parameter(start.detach().clone()) for start in starts])
    fully_shard(model, mesh=mesh)
    held = list(model.held)
    assert all(isinstance(parameter, DTensor) for parameter in held)
    return held


def in_parts(starts: Sequence[Tensor], mesh: DeviceMesh) -> list[nn.Parameter]:
    held: list[nn.Parameter] = []
    for start in starts:
        padded = torch.full((-(-start.numel() // mesh.size()),), float("nan"))
        part = Part(padded, start.shape, True)
        put({"": start.detach()}, {"": part})
        held.append(part)
    assert sum(part.numel() for part in held) < sum(start.numel() for start in starts)
    return held


WAYS = {"fsdp": sharded, "parts": in_parts}


def train(
    optimizer: torch.optim.Optimizer, held: list[nn.Parameter], steps: range, mesh: DeviceMesh
) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in held:
            grad = torch.randn(shape_of(parameter), generator=draw)
            if isinstance(parameter, Part):
                parameter.grad = None
                for share in (0.25, 0.75):  # two micro-batches, of which rank 1 has no row
                    parameter.add_gradient(grad * share * (mesh.get_rank() == 0))
            else:
                parameter.grad = distribute_tensor(grad, mesh, parameter.placements)
        set_lr(optimizer, 1e-3 * (step + 1))
        optimizer.step()


def clipped(mesh: DeviceMesh) -> None:
    """Gradients in Parts are clipped as whole ones are."""
    for bound in (0.5, float("inf")):
        alone, held = parameters(), in_parts(parameters(), mesh)
        for part, parameter in zip(held, alone, strict=True):
            assert isinstance(part, Part)
            part.add_gradient(parameter.detach() / 2)
            parameter.grad = parameter.detach().clone()
        norm = clip_parts(held, bound)
        torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(alone, bound), rtol=1e-6, atol=0)
        for part, parameter in zip(held, alone, strict=True):
            assert isinstance(part, Part) and part.grad is not None
            grad = part.gathered(part.grad)
            torch.testing.assert_close(grad, parameter.grad, rtol=1e-6, atol=0)


def save(optimizer: torch.optim.Optimizer, held: list[nn.Parameter], path: Path) -> None:
    is_main = distributed.get_rank() == 0
    state = state_of(optimizer, keep=is_main)
    assert bool(state["state"]) == is_main
    weights = [whole(parameter).detach() for parameter in held]
    if is_main:
        torch.save({"weights": weights, "optimizer": state}, path)
    distributed.barrier()


def run(way: str, kind: str, folder: Path, mesh: DeviceMesh) -> None:
    held = WAYS[way](parameters(), mesh)
    optimizer = made(kind, held)
    train(optimizer, held, range(3), mesh)
    save(optimizer, held, folder / f"half-{way}-{kind}.pt")
    train(optimizer, held, range(3, 6), mesh)
    save(optimizer, held, folder / f"straight-{way}-{kind}.pt")

    saved = torch.load(folder / f"half-{way}-{kind}.pt", weights_only=True, map_location="cpu")
    held = WAYS[way](saved["weights"], mesh)
    optimizer = made(kind, held)
    load_state(optimizer, saved["optimizer"])
    train(optimizer, held, range(3, 6), mesh)
    save(optimizer, held, folder / f"resumed-{way}-{kind}.pt")


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    cpus = init_device_mesh("cpu", (2,))
    clipped(cpus)
    for each_way, each_kind in HELD:
        if each_kind != "8bit" or HAS_TORCHAO:
            run(each_way, each_kind, Path(sys.argv[1]), cpus)
    distributed.destroy_process_group()
