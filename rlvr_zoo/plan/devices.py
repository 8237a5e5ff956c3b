"""GPUs by name: what a plan needs to know of them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rlvr_zoo.errors import ConfigError, NotFoundError, nearest

GIB = 1 << 30
GPUS_OF_A_MACHINE = 8
"""A machine is taken to have at most so many, unless `--gpus` names more."""


@dataclass(frozen=True)
class Gpu:
    """One GPU's limits, dense rates without sparsity."""

    name: str
    memory_gib: float
    """What torch reports as total memory; some of the label's is kept by the driver."""
    bf16_tflops: float
    """Matrix products in bf16, accumulated in fp32."""
    fp32_tflops: float
    """Matrix products in fp32, TF32 off."""
    bandwidth_gb_s: float
    """Memory, 10^9 bytes a second."""

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * GIB)


GPUS = {
    gpu.name: gpu
    for gpu in (  # vendors' data sheets, SXM where there is a choice
        Gpu("a100-40", 39.4, 312.0, 19.5, 1555.0),
        Gpu("a100-80", 79.2, 312.0, 19.5, 2039.0),
        Gpu("h100", 79.1, 989.0, 67.0, 3350.0),
        Gpu("h200", 139.8, 989.0, 67.0, 4800.0),
        Gpu("b200", 178.4, 2250.0, 75.0, 8000.0),
        Gpu("l40s", 44.4, 362.0, 91.6, 864.0),
        Gpu("rtx4090", 23.5, 165.0, 82.6, 1008.0),
        Gpu("rtx3090", 23.6, 71.0, 35.6, 936.0),
    )
}


@dataclass(frozen=True)
class Devices:
    """Equal machines with equal GPUs."""

    gpu: Gpu
    gpus_per_machine: int
    num_machines: int = 1

    @property
    def world_size(self) -> int:
        return self.gpus_per_machine * self.num_machines

    def doubled_to(self, world_size: int) -> Devices:
        """Twice as many GPUs, again and again, until there are `world_size`: in one machine up to
        eight, then in more machines."""
        each, machines = self.gpus_per_machine, self.num_machines
        while each * machines < world_size:
            if machines == 1 and 2 * each <= GPUS_OF_A_MACHINE:
                each *= 2
            else:
                machines *= 2
        return Devices(self.gpu, each, machines)

    def __str__(self) -> str:
        machines = f"x{self.num_machines}" if self.num_machines > 1 else ""
        return f"{self.gpu.name}x{self.gpus_per_machine}{machines}"


def parse(text: str) -> Devices:
    """`h100x8`, or `h100x8x2` for two machines; `h100` is one GPU.

    Raises ConfigError for what cannot be read, NotFoundError for an unknown GPU.
    """
    match = re.fullmatch(r"(.+?)((?:x\d{1,3}){0,2})", text.strip().lower())
    if match is None:
        raise ConfigError(f"--gpus {text!r}: write it as NAMExCOUNT, for example h100x8")
    name, counts = match[1], [int(number) for number in match[2].split("x")[1:]]
    count, machines = [*counts, 1, 1][:2] if counts else (1, 1)
    if name not in GPUS:
        raise NotFoundError(f"--gpus {text!r}: unknown GPU {name!r}; {nearest(name, GPUS)}")
    if count < 1 or machines < 1:
        raise ConfigError(f"--gpus {text!r}: set 1 or more")
    return Devices(GPUS[name], count, machines)
