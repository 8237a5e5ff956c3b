"""Peak memory and time of log-probs over a vocabulary: chunk by chunk beside plain, both ways.

Not a test.

    OMP_NUM_THREADS=1 python tests/perf/vocabulary.py > vocabulary.json

Sides take turns, a fresh process each time, on a GPU if there is one: forward pass, and backward
pass to hidden states and weight.  Memory is the peak beyond what is there before, gradients
included: of the process on a CPU (which must be Linux), of torch's allocator on a GPU.  Seconds on
a CPU are the process's own, so that other work on the machine counts for less.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional as F

from rlvr_zoo.functional.vocabulary import logp_and_entropy, token_logp_and_entropy

PLAIN = 0
"""The chunk size that stands for the plain computation."""
GIB = 2**30

Measured = dict[str, float]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--width", type=int, default=896, help="as Qwen2.5-0.5B; 7B: 3584")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1024])
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--entropy", action="store_true", help="entropies beside log-probs")
    parser.add_argument("--bf16", action="store_true", help="autocast, as train.precision=bf16")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.side is not None:
        print(json.dumps(measure(options, options.side)))
        return
    sides = [PLAIN, *options.chunks]
    rounds = [{side: in_a_process(side) for side in sides} for _ in range(options.rounds)]
    report = {
        "torch": torch.__version__,
        "machine": machine(options.device),
        "threads": torch.get_num_threads(),
        **{name: value for name, value in vars(options).items() if name != "side"},
        "sides": {name_of(side): summary(rounds, side) for side in sides},
    }
    print(json.dumps(report, indent=2))
    show(report)


def machine(device: str) -> str:
    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or "CPU"


def name_of(side: int) -> str:
    return "plain" if side == PLAIN else f"{side} tokens"


def in_a_process(side: int) -> Measured:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", str(side)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: Measured = json.loads(done.stdout)
    print(name_of(side), measured, file=sys.stderr)
    return measured


def summary(rounds: list[dict[int, Measured]], side: int) -> Measured:
    """Medians, and medians of the ratio to plain within a round."""
    names = rounds[0][side]
    found = {name: median(each[side][name] for each in rounds) for name in names}
    for name in ("extra_gib", "seconds"):
        ratios = [each[side][name] / each[PLAIN][name] for each in rounds]
        found |= {f"{name}_of_plain": median(ratios), f"{name}_of_plain_max": max(ratios)}
    return found


def show(report: dict[str, dict[str, Measured]]) -> None:
    print(f"{'':<14}{'extra GiB':>10}{'of plain':>10}{'s':>10}{'of plain':>10}", file=sys.stderr)
    for name, side in report["sides"].items():
        print(
            f"{name:<14}{side['extra_gib']:10.2f}{side['extra_gib_of_plain']:10.3f}"
            f"{side['seconds']:10.3f}{side['seconds_of_plain']:10.3f}",
            file=sys.stderr,
        )


# ------------------------------------------------------------------- one side, in its own process


def measure(options: argparse.Namespace, side: int) -> Measured:
    on_gpu = options.device == "cuda"
    torch.manual_seed(0)
    weight_VD = torch.empty(options.vocabulary, options.width, device=options.device)
    weight_VD.normal_(std=0.02).requires_grad_()
    work(options, side, weight_VD, options.tokens if on_gpu else 16)  # libraries set themselves up
    weight_VD.grad = None
    before = reset_peak(on_gpu)
    forward_s, seconds = work(options, side, weight_VD, options.tokens)
    extra = peak(on_gpu) - before
    return {"extra_gib": extra / GIB, "forward_s": forward_s, "seconds": seconds}


def work(
    options: argparse.Namespace, side: int, weight_VD: Tensor, num_tokens: int
) -> tuple[float, float]:
    """Seconds of the forward pass, and of both."""
    device = options.device
    hidden_MD = torch.randn(num_tokens, options.width, device=device, requires_grad=True)
    target_M = torch.randint(options.vocabulary, (num_tokens,), device=device)
    g_M = torch.randn(num_tokens, device=device)
    start = now(device)
    with torch.autocast(device, torch.bfloat16, enabled=options.bf16):
        if side == PLAIN:
            logits_MV = F.linear(hidden_MD, weight_VD).float()
            if options.temperature != 1.0:
                logits_MV = logits_MV / options.temperature
            found = logp_and_entropy(logits_MV, target_M, entropy=options.entropy)
            del logits_MV
        else:
            found = token_logp_and_entropy(
                hidden_MD, weight_VD, target_M, options.temperature,
                entropy=options.entropy, chunk_tokens=side,
            )  # fmt: skip
    middle = now(device)
    logp_M, entropy_M = found
    loss = (g_M * logp_M).sum()
    if entropy_M is not None:
        loss = loss + (g_M.flip(0) * entropy_M).sum()
    del found, logp_M, entropy_M
    loss.backward()
    return middle - start, now(device) - start


def now(device: str) -> float:
    if device != "cuda":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def reset_peak(on_gpu: bool) -> int:
    """Bytes in use, from which on the peak counts."""
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return resident("VmRSS")


def peak(on_gpu: bool) -> int:
    return torch.cuda.max_memory_allocated() if on_gpu else resident("VmHWM")


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    main()
