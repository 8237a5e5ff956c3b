"""Is the trainer fast enough?  Steps of Qwen2.5-shaped models with random weights, as one JSON.

    scripts/gpu_check.sh            on a machine with a GPU, in under 8 minutes
    python scripts/gpu_check.py --toy      tiny shapes on a CPU: only whether it works

Every measurement is a process of its own (`gpu_measure.py`), so that its peak of memory is its own
and its failure ends nothing else.  The document is written anew after each, to $OUT/gpu_check.json
or --out, and printed at the end; what else there is to say goes to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUDGET_S = 465.0
"""Of all measurements; what has no time left is not started."""
LEAST_S = 20.0
"""A measurement with less time than this is not worth its start."""

# In the order of what they are worth: (measurement, seconds that it may take).
MEASUREMENTS = {
    "7b/grpo": 170.0,
    "7b/popo": 110.0,
    "1.5b/grpo": 120.0,
    "1.5b/popo": 60.0,
    "1.5b/trl": 120.0,
    "7b/ppo": 110.0,
    "1.5b/ppo": 60.0,
    "7b/trl": 170.0,
}
TOY = {f"{size}/{what}": 60.0 for size in ("toy", "toy-8bit") for what in ("grpo", "popo", "ppo")}
TOY |= {"toy/trl": 60.0, "toy-8bit/trl": 60.0}

FORMULAS = {
    "flops": "completion tokens x sum over models [6 N where the loss reads it, 2 N for each pass"
    " without gradient that Spec.prepare asks for]; N: parameters that the pass multiplies by,"
    " so not the embedding table that is looked up, and the output layer only for log-probs and"
    " entropies; attention scores, recomputed activations and passes beyond the Spec not counted",
    "mfu": "flops / update_s / peak, peak: dense bf16 of the GPU's data sheet",
    "mfu_with_prompts": "the same with prompt tokens, which the passes read, too",
    "update_tokens_per_s": "completion tokens trained on / update_s",
    "rollout_tokens_per_s": "completion tokens sampled / rollout_s",
    "update_s": "mean over the timed steps from a batch of rollouts to changed weights; the first"
    " step, the warm-up, is not timed",
    "peak_gib": "torch.cuda.max_memory_allocated of the whole process, 2^30 bytes; on a CPU its"
    " resident set",
}

Document = dict[str, Any]


def finish(
    command: Sequence[str], result: Path, limit_s: float, env: Mapping[str, str] | None = None
) -> Document:
    """Runs a measurement to its end or its limit; what it wrote to `result` until then, with a
    `status` (ok, skipped, failed, time) and a `reason`.  Raises nothing for what goes wrong in it.
    """
    start = time.monotonic()
    with tempfile.TemporaryFile() as log:
        try:
            process = subprocess.Popen(
                command, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        except OSError as error:
            return {"status": "failed", "reason": str(error)}
        try:
            code: int | None = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            code = None
        finally:  # its compiler's workers, too
            end_all(process)
        log.seek(0)
        lines = log.read().decode(errors="replace").splitlines()
    found = read(result)
    found["seconds"] = round(time.monotonic() - start, 1)
    if code is None:
        return found | {
            "status": "time",
            "reason": f"ended after {limit_s:.0f} s, at stage {found.get('stage', 'start')!r}",
        }
    if code == 0 and found.get("status") in ("ok", "skipped"):
        return found
    said = [line for line in lines if line.strip()]
    reason = said[-1].strip() if said else f"no word, exit code {code}"
    return found | {"status": "failed", "reason": reason, "exit_code": code, "log": lines[-30:]}


def end_all(process: subprocess.Popen[bytes]) -> None:
    """Ends the process and those that it started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def read(result: Path) -> Document:
    try:
        found: Document = json.loads(result.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def measure_all(
    limits_s: Mapping[str, float], arguments: Sequence[str], budget_s: float
) -> Iterator[tuple[str, Document]]:
    """Each measurement as it comes, until there is no time left."""
    end = time.monotonic() + budget_s
    # several 7B models fill the GPU: pieces that do not fit together would end a run
    env = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1"}
    env |= {"TOKENIZERS_PARALLELISM": "false", "PYTHONUNBUFFERED": "1"} | dict(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        for name, limit_s in limits_s.items():
            left_s = end - time.monotonic()
            if left_s < LEAST_S:
                reason = f"{max(left_s, 0):.0f} s of {budget_s:.0f} s were left"
                yield name, {"status": "time", "reason": reason}
                continue
            size, what = name.split("/")
            result = Path(folder) / f"{size}-{what}.json"
            command = [sys.executable, str(HERE / "gpu_measure.py"), size, what, str(result)]
            yield name, finish([*command, *arguments], result, min(limit_s, left_s), env)


# ------------------------------------------------------------------------------------------ goals


def goals(measured: Mapping[str, Document], large: str, gpu: str) -> list[Document]:
    """Goals on an H200 beside what was measured; `met` is null elsewhere or where that is not."""
    of = {name: found.get("update", {}) for name, found in measured.items()}

    def ratio(over: str, under: str, what: str) -> float | None:
        top, bottom = of.get(over, {}).get(what), of.get(under, {}).get(what)
        return round(top / bottom, 4) if top and bottom else None

    found: list[Document] = []

    def goal(text: str, target: float, value: float | None, at_most: bool = False) -> None:
        judged = value is not None and "h200" in gpu.lower()
        good = (value <= target if at_most else value >= target) if judged else None
        found.append({"goal": text, "target": target, "measured": value, "met": good})

    for name in sorted(name for name in measured if name.startswith(f"{large}/")):
        if not name.endswith("/trl"):
            goal(f"{name}: utilisation in the update", 0.40, of[name].get("mfu"))
    for size in sorted({name.split("/")[0] for name in measured}):
        faster = ratio(f"{size}/grpo", f"{size}/trl", "update_tokens_per_s")
        goal(f"{size}: update tokens/s of grpo, times TRL's", 1.3, faster)
        slower = ratio(f"{size}/popo", f"{size}/grpo", "update_s")
        text = "update seconds of popo, times grpo's (the rollout is the same, and left out)"
        goal(f"{size}: {text}", 1.35, slower, at_most=True)
    return found


def steps(measured: Mapping[str, Document]) -> Document:
    """Seconds of whole steps: each update, and the rollout that was timed beside grpo's."""
    found: Document = {}
    for name, one in measured.items():
        update_s = one.get("update", {}).get("update_s")
        size = name.split("/")[0]
        rollout = measured.get(name if name.endswith("/trl") else f"{size}/grpo", {})
        rollout_s = rollout.get("rollout", {}).get("seconds_for_full_length")
        if update_s and rollout_s:
            found[name] = round(update_s + rollout_s, 4)
    return found


def document(given: argparse.Namespace, measured: Mapping[str, Document]) -> Document:
    machine = next((found["machine"] for found in measured.values() if "machine" in found), {})
    large = "toy-8bit" if given.toy else "7b"
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "toy": given.toy,
        "machine": machine,
        "formulas": FORMULAS,
        "goals": goals(measured, large, machine.get("gpu") or ""),
        "step_s": steps(measured),
        "measurements": {
            name: {key: value for key, value in found.items() if key != "machine"}
            for name, found in measured.items()
        },
    }


def write(path: Path, text: str) -> None:
    """All of it or nothing, as the machine may be taken away at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    found.add_argument("--toy", action="store_true", help="tiny shapes, on a CPU too")
    found.add_argument("--only", nargs="+", default=[], metavar="SIZE/WHAT", help="of the list")
    found.add_argument("--rows", type=int, default=0, help="completions of a step")
    found.add_argument("--budget-s", type=float, default=BUDGET_S, help="for all of it")
    out = Path(os.environ["OUT"]) / "gpu_check.json" if os.environ.get("OUT") else None
    found.add_argument("--out", type=Path, default=out, help="the document; $OUT/gpu_check.json")
    return found


def main() -> None:
    given = parser().parse_args()
    limits_s = TOY if given.toy else MEASUREMENTS
    if unknown := sorted(set(given.only) - limits_s.keys()):
        sys.exit(f"--only {' '.join(unknown)}: not among {' '.join(limits_s)}")
    if given.only:
        limits_s = {name: limits_s[name] for name in given.only}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the child is ended
    arguments = ["--rows", str(given.rows)] if given.rows else []
    measured: dict[str, Document] = {}
    for name, found in measure_all(limits_s, arguments, given.budget_s):
        measured[name] = found
        print(f"{name}: {found['status']} {found.get('reason', '')}", file=sys.stderr)
        if given.out:
            write(given.out, json.dumps(document(given, measured), indent=1))
    print(json.dumps(document(given, measured), indent=1))


if __name__ == "__main__":
    main()
