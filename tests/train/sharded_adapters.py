"""One of two ranks: adapters sharded by FSDP2 are merged, saved and loaded as in one process.

python -m tests.train.forked 2 tests.train.sharded_adapters MODEL_FOLDER
"""

import sys
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from rlvr_zoo.config import ModelConfig
from rlvr_zoo.models.load import load
from rlvr_zoo.train.adapters import (
    adapter_parameters,
    copied,
    merged,
    own,
)
from rlvr_zoo.train.sharding import put, shard
from tests.train.test_adapters import IDS, adapted, adapter_state, logits


def sharded(lm: Any, dtype: torch.dtype) -> Any:
    shard(lm, init_device_mesh("cpu", (2,)), dtype)
    assert all(isinstance(parameter, DTensor) for parameter in lm.parameters())
    return lm


def main(folder: str) -> None:
    plain = adapted(load(ModelConfig(name="random", path=folder)))
    want, before = dict(merged(plain)), adapter_state(plain)
    output = logits(plain)

    lm = sharded(copied(plain), torch.float32)
    torch.testing.assert_close(logits(lm), output, rtol=0, atol=1e-5)

    # after a forward pass it is the fp32 shards again that are gathered
    rough = sharded(copied(plain), torch.bfloat16)
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
    put(before, own(lm))
    lm(input_ids=IDS).logits.float().sum().backward()
    assert all(p.grad is not None for p in adapter_parameters(lm))
    assert sum(p.grad is not None for p in lm.parameters()) == len(adapter_parameters(lm))
    for name, weight in merged(lm):
        assert torch.equal(weight, want[name]), name


if __name__ == "__main__":
    distributed.init_process_group("gloo")
    main(sys.argv[1])
    distributed.destroy_process_group()
