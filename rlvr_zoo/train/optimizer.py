"""AdamW with its moments in fp32, in 8 bits, or in the host's memory; and their way to a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim.adamw import adamw

from rlvr_zoo.config import OptimizerConfig
from rlvr_zoo.errors import ConfigError
from rlvr_zoo.train.extras import optional
from rlvr_zoo.train.part import Part
from rlvr_zoo.train.sharding import local, shape_of

MOMENTS = ("exp_avg", "exp_avg_sq")


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: OptimizerConfig, device: torch.device
) -> torch.optim.Optimizer:
    """AdamW over fp32 parameters, which may be sharded by FSDP2.

    Biases and norms (one axis) are not decayed, as is usual.  Raises ConfigError where moments are
    to go to the host and there is no GPU, or torchao is missing.
    """
    groups = [
        {
            "params": [p for p in parameters if len(shape_of(p)) > 1],
            "weight_decay": config.weight_decay,
        },
        {"params": [p for p in parameters if len(shape_of(p)) <= 1], "weight_decay": 0.0},
    ]
    settings: dict[str, Any] = {
        "lr": config.lr,
        "betas": (config.beta1, config.beta2),
        "eps": config.eps,
    }
    if config.moments == "8bit":
        with optional("torchao", "low-memory", "optimizer.moments=8bit"):
            from rlvr_zoo.train.eight_bit import EightBitAdamW
        return cast(torch.optim.Optimizer, EightBitAdamW(groups, **settings))
    if config.moments == "offload":
        if device.type == "cpu":
            raise ConfigError(
                "optimizer.moments=offload: without a GPU they are in the host's memory anyway;"
                " set optimizer.moments=fp32"
            )
        return OffloadedAdamW(groups, **settings)
    return torch.optim.AdamW(groups, **settings, fused=device.type in ("cpu", "cuda"))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step.  torchao's is a tensor, which its compiled step reads."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


class OffloadedAdamW(torch.optim.AdamW):
    """AdamW whose moments live in the host's memory and visit the GPU one parameter at a time.

    The numbers are those of fused AdamW.  A step moves 16 bytes a parameter over the bus.
    torchao's CPUOffloadOptimizer copies gradients away before they can be clipped.
    """

    def __init__(self, params: Any, **settings: Any) -> None:
        """As torch.optim.AdamW."""
        super().__init__(params, **settings, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update.  Returns when the moments are back, so that they may be read."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        if torch.cuda.is_available():
            torch.cuda.current_stream().synchronize()
        return loss

    def _update(self, parameter: nn.Parameter, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        weight, grad = local(parameter), local(cast(Tensor, parameter.grad))
        if not state:
            state["step"] = torch.zeros((), device=weight.device)
            state |= {name: self.new_moment(name, parameter) for name in MOMENTS}
        visiting = [state[name].to(weight.device, non_blocking=True, copy=True) for name in MOMENTS]
        first, second = visiting
        adamw(
            [weight],
            [grad],
            [first],
            [second],
            [],
            [state["step"]],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for name, moment in zip(MOMENTS, visiting, strict=True):
            state[name].copy_(moment, non_blocking=True)

    def new_moment(self, name: str, parameter: Tensor) -> Tensor:
        """Zeros for this rank's part of a moment, pinned where a GPU reads them."""
        mine = local(parameter)
        pinned = mine.device.type == "cuda"
        return torch.zeros(mine.shape, dtype=mine.dtype, pin_memory=pinned)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Moments stay on the host, where Optimizer would put them beside their parameters."""
        untouched: dict[int, Any] = {number: {} for number in range(len(_parameters(self)))}
        load_state(self, {"state": untouched | state_dict["state"]})


# ------------------------------------------------------------------------------- to a file and back


@torch.no_grad()
def state_of(optimizer: torch.optim.Optimizer, keep: bool = True) -> dict[str, Any]:
    """Steps and moments of whole parameters, numbered as in `param_groups`, for `torch.save`; a
    parameter that no gradient has reached yet has an empty entry.

    To be called on every rank, as sharded ones are gathered, one at a time; ranks that do not
    `keep` them get an empty state.  What is not sharded is the optimizer's own tensor, no copy.
    """
    found: dict[int, dict[str, Any]] = {}
    for number, parameter in enumerate(_parameters(optimizer)):
        mine = optimizer.state.get(parameter, {})
        values = {name: _whole(value, parameter, keep) for name, value in mine.items()}
        if keep:
            found[number] = values
    return {"state": found}


@torch.no_grad()
def load_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Puts back what `state_of` gave, at this or another number of ranks; bit for bit, but for
    8-bit blocks across which parameters are now cut: these are rounded once.

    Tensors are best loaded to the CPU (`map_location`), where each rank takes its part.  Raises
    ValueError for a state of other parameters, or of too few; the optimizer is then as it was.
    """
    parameters = _parameters(optimizer)
    saved: Mapping[int, Mapping[str, Any]] = state["state"]
    _refuse_others(saved, parameters)
    optimizer.state.clear()
    for number, parameter in enumerate(parameters):
        if not (values := saved[number]):
            continue
        mine: dict[str, Tensor] = {"step": _step(optimizer, values["step"], parameter)}
        for name in MOMENTS:
            mine[name] = _new_moment(optimizer, name, parameter)
            local(mine[name]).copy_(_part(values[name], name, parameter))
        optimizer.state[parameter] = mine


def _refuse_others(
    saved: Mapping[int, Mapping[str, Any]], parameters: Sequence[nn.Parameter]
) -> None:
    numbers = set(range(len(parameters)))
    if numbers != saved.keys():
        raise ValueError(
            f"the optimizer's state lacks {len(numbers - saved.keys())} of {len(parameters)}"
            f" parameters and has {len(saved.keys() - numbers)} others"
        )
    for number, parameter in enumerate(parameters):
        values = saved[number]
        if values and values.keys() != {"step", *MOMENTS}:
            raise ValueError(f"the optimizer's state {number} has {sorted(values)}")
        if any(_shape(values[name]) != shape_of(parameter) for name in MOMENTS if values):
            raise ValueError(f"the optimizer's state {number} is of another parameter")


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _whole(value: Tensor, parameter: Tensor, keep: bool) -> Tensor | dict[str, Tensor]:
    """A step, a moment, or the pieces of one in 8 bits, of the whole parameter, where kept."""
    mine = local(value)
    if type(mine) is not Tensor:
        from rlvr_zoo.train.eight_bit import pieces

        return {name: _gathered(piece, parameter, keep) for name, piece in pieces(mine).items()}
    return _gathered(mine, parameter, keep)


def _gathered(mine: Tensor, parameter: Tensor, keep: bool) -> Tensor:
    """Of all ranks' parts, on the host.  A rank that does not `keep` it joins in and returns what
    it had: ranks share their machine's memory, so that only one may hold the whole.

    Not by torchao's own full_tensor, which does not wait for what it gathers.
    """
    if mine.ndim == 0:
        return mine
    if isinstance(parameter, Part):
        found = parameter.gathered(mine.to(parameter.device))
        return found.cpu() if keep else mine
    if not isinstance(parameter, DTensor):
        return mine
    is_moment = mine.shape == parameter.to_local().shape  # else scales, as many on every rank
    sharded = DTensor.from_local(
        mine.to(parameter.device),
        parameter.device_mesh,
        parameter.placements,
        shape=parameter.shape if is_moment else None,
        stride=parameter.stride() if is_moment else None,
    )
    found = sharded.full_tensor()
    return found.cpu() if keep else mine


def _part(saved: Tensor | Mapping[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """What this rank holds of a whole moment of the parameter: some of its rows, if sharded."""
    if isinstance(saved, Tensor) and isinstance(parameter, Part):
        return parameter.cut(saved)
    if isinstance(saved, Tensor) and not isinstance(parameter, DTensor):
        return saved
    start, stop = _rows(parameter)
    if isinstance(saved, Tensor):
        return saved[start:stop]
    from rlvr_zoo.train.eight_bit import rows_of

    return rows_of(saved, name, start, stop)


def _shape(saved: Tensor | Mapping[str, Tensor]) -> torch.Size:
    return (saved if isinstance(saved, Tensor) else saved["codes"]).shape


def _rows(parameter: Tensor) -> tuple[int, int]:
    if not isinstance(parameter, DTensor):
        return 0, len(parameter)
    numbers = torch.arange(len(parameter))  # shared out as the parameter is: nothing is sent
    mine = distribute_tensor(
        numbers, parameter.device_mesh, parameter.placements, src_data_rank=None
    ).to_local()
    return (int(mine[0]), int(mine[-1]) + 1) if len(mine) else (0, 0)


def _new_moment(optimizer: torch.optim.Optimizer, name: str, parameter: Tensor) -> Tensor:
    make = getattr(optimizer, "new_moment", None)
    return make(name, parameter) if make else torch.zeros_like(parameter)


def _step(optimizer: torch.optim.Optimizer, step: Tensor, parameter: Tensor) -> Tensor:
    """A copy of the count, where the optimizer wants it: fused kernels read it on their device."""
    fused = optimizer.defaults.get("fused")
    return step.detach().clone().to(parameter.device if fused else "cpu")
