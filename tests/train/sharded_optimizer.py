"""One of two ranks: six steps on sharded parameters, straight, and resumed half-way from a file.

torchrun --nproc-per-node=2 sharded_optimizer.py FOLDER
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

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.train.test_optimizer import HAS_TORCHAO, KINDS, made, parameters


def sharded(starts: Sequence[Tensor], mesh: DeviceMesh) -> list[nn.Parameter]:
    model = nn.Module()
    model.held = nn.ParameterList([nn.Parameter(start.detach().clone()) for start in starts])
    fully_shard(model, mesh=mesh)
    held = list(model.held)
    assert all(isinstance(parameter, DTensor) for parameter in held)
    return held


def train(
    optimizer: torch.optim.Optimizer, held: list[nn.Parameter], steps: range, mesh: DeviceMesh
) -> None:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for parameter in held:
            grad = torch.randn(parameter.shape, generator=draw)
            parameter.grad = distribute_tensor(grad, mesh, parameter.placements)
        set_lr(optimizer, 1e-3 * (step + 1))
        optimizer.step()


def save(optimizer: torch.optim.Optimizer, held: list[nn.Parameter], path: Path) -> None:
    is_main = distributed.get_rank() == 0
    state = state_of(optimizer, keep=is_main)
    assert bool(state["state"]) == is_main
    weights = [parameter.full_tensor().detach() for parameter in held]
    if is_main:
        torch.save({"weights": weights, "optimizer": state}, path)
    distributed.barrier()


def run(kind: str, folder: Path) -> None:
    mesh = init_device_mesh("cpu", (2,))
    held = sharded(parameters(), mesh)
    optimizer = made(kind, held)
    train(optimizer, held, range(3), mesh)
    save(optimizer, held, folder / f"half-{kind}.pt")
    train(optimizer, held, range(3, 6), mesh)
    save(optimizer, held, folder / f"straight-{kind}.pt")

    saved = torch.load(folder / f"half-{kind}.pt", weights_only=True, map_location="cpu")
    held = sharded(saved["weights"], mesh)
    optimizer = made(kind, held)
    load_state(optimizer, saved["optimizer"])
    train(optimizer, held, range(3, 6), mesh)
    save(optimizer, held, folder / f"resumed-{kind}.pt")


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    for each in KINDS:
        if each != "8bit" or HAS_TORCHAO:
            run(each, Path(sys.argv[1]))
    distributed.destroy_process_group()
