"""One of two ranks: adapters sharded by FSDP2 are merged, saved and loaded as in one process.

torchrun --nproc-per-node=2 sharded_adapters.py MODEL_FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from rlvr_zoo.config import ModelConfig
from rlvr_zoo.models.load import load
from rlvr_zoo.train.adapters import (
    adapter_parameters,
    adapter_state,
    copied,
    load_adapter_state,
    merged,
)

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.train.test_adapters import IDS, adapted, logits


def sharded(lm: Any, policy: MixedPrecisionPolicy) -> Any:
    mesh = init_device_mesh("cpu", (2,))
    for layer in lm.model.layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(lm, mesh=mesh, mp_policy=policy)
    assert all(isinstance(parameter, DTensor) for parameter in lm.parameters())
    return lm


def main(folder: str) -> None:
    plain = adapted(load(ModelConfig(name="random", path=folder)))
    want, before = dict(merged(plain)), adapter_state(plain)
    output = logits(plain)

    lm = sharded(copied(plain), MixedPrecisionPolicy())
    torch.testing.assert_close(logits(lm), output, rtol=0, atol=1e-5)

    # the root stays unsharded after a forward pass, in what it computed in
    rough = sharded(copied(plain), MixedPrecisionPolicy(param_dtype=torch.bfloat16))
    logits(rough)
    found = dict(merged(rough))
    assert list(found) == list(want)
    for name, weight in found.items():
        assert torch.equal(weight, want[name]), name

    state = adapter_state(lm)
    for name, value in state.items():
        assert torch.equal(value, before[name]), name
    with torch.no_grad():
        for parameter in adapter_parameters(lm):
            parameter.zero_()
    load_adapter_state(lm, before)
    lm(input_ids=IDS).logits.float().sum().backward()
    assert all(p.grad is not None for p in adapter_parameters(lm))
    assert sum(p.grad is not None for p in lm.parameters()) == len(adapter_parameters(lm))
    for name, weight in merged(lm):
        assert torch.equal(weight, want[name]), name


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    main(sys.argv[1])
    distributed.destroy_process_group()
