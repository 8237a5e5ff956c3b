"""One rank of test_sharded_network.py: gradients of a sharded network beside a whole one's.

Ranks have different rows, so that they need different numbers of chunks.  Prints, for every kind
of model, the greatest relative distance of a gradient.
"""

import json
from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from transformers import Qwen2Config, Qwen2ForCausalLM

from rlvr_zoo.train.network import Network
from rlvr_zoo.train.recompute import recompute_activations
from rlvr_zoo.train.sharding import shard


def build(tied: bool, layers: int = 2) -> Network:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=tied,
    )  # fmt: skip
    return Network(Qwen2ForCausalLM(config).eval(), logits_tokens=4)


def loss(network: Network, rank: int) -> Tensor:
    num_rows = 2 + 3 * rank
    ids_NL = torch.randint(60, (num_rows, 9), generator=torch.Generator().manual_seed(rank))
    mask_NT = torch.ones(num_rows, 6)
    mask_NT[0, 4:] = 0
    out = network(ids_NL, torch.full((num_rows,), 3), mask_NT, ["logp", "entropy", "hidden"], 0.7)
    return out["logp"].sum() + 0.1 * out["entropy"].sum() + out["hidden"].square().sum()


def distances() -> Iterator[tuple[str, float]]:
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for tied in (False, True):
        for recompute in (False, True):
            whole, sharded = build(tied), build(tied)
            if recompute:
                recompute_activations(sharded.lm)
            shard(sharded, mesh, torch.float32)
            for rank in range(dist.get_world_size()):
                loss(whole, rank).backward()
            loss(sharded, dist.get_rank()).backward()
            gaps = []
            for got, want in zip(sharded.parameters(), whole.parameters(), strict=True):
                gap = (got.grad.full_tensor() - want.grad).abs().max() / want.grad.abs().max()
                gaps.append(gap.item())
            yield f"{tied=} {recompute=}", max(gaps)


if __name__ == "__main__":
    dist.init_process_group("gloo")
    found = dict(distances())
    if dist.get_rank() == 0:
        print(json.dumps(found))
    dist.destroy_process_group()
