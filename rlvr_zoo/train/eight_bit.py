"""AdamW with block-wise 8-bit moments, by torchao; the only file that imports it.

Moments are kept as in bitsandbytes: one scale for 256 values, dynamic exponents (arXiv:2110.02861).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor
from torchao.optim import AdamW8bit
from torchao.optim.subclass_8bit import OptimState8bit


class EightBitAdamW(AdamW8bit):  # type: ignore[misc]  # torchao has no types
    """Weights and arithmetic stay fp32.  A tensor, or a rank's part of one, of under 4,096 values
    keeps fp32 moments, and so does one that no whole number of blocks fills."""

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """On a GPU compiled, once for each shape of a parameter; on a CPU as written, where a
        compiler may be missing and takes seconds a shape."""
        on_cpu = all(p.device.type == "cpu" for g in self.param_groups for p in g["params"])
        stance: AbstractContextManager[Any] = (
            torch.compiler.set_stance("force_eager") if on_cpu else nullcontext()
        )
        with stance, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="OptimState8bit does not implement")
            return super().step(closure)

    def new_moment(self, name: str, parameter: Tensor) -> Tensor:
        """Zeros, in the form in which `exp_avg` or `exp_avg_sq` of the parameter is kept."""
        return self._new_buffer(parameter, name == "exp_avg")

    def _new_buffer(self, p: Tensor, signed: bool) -> Tensor:
        if isinstance(p, DTensor) and p.shape[0] % p.device_mesh.size():
            return torch.zeros_like(p)  # unequal parts: 8 bits on one rank, fp32 on the next
        return cast(Tensor, super()._new_buffer(p, signed))


def pieces(moment: Tensor) -> dict[str, Tensor]:
    """The plain tensors of an 8-bit moment, as a file holds them; none of an fp32 one."""
    if not isinstance(moment, OptimState8bit):
        return {}
    return {"codes": moment.codes, "scale": moment.scale}


def rows_of(saved: Mapping[str, Tensor], name: str, start: int, stop: int) -> Tensor:
    """Rows along the first axis, from the pieces of the whole `exp_avg` or `exp_avg_sq`: in 8 bits
    where whole blocks make them up, else in fp32."""
    codes, scale = saved["codes"], saved["scale"]
    whole = OptimState8bit.zeros(codes.shape, name == "exp_avg", codes.numel() // scale.numel())
    whole.codes.copy_(codes)
    whole.scale.copy_(scale)
    try:
        return cast(Tensor, whole[start:stop])
    except ValueError:  # a block across the border
        return cast(Tensor, whole.dequantize()[start:stop])
