"""`rlvr-zoo list`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from importlib import resources
from typing import Any

from rich.console import Console
from rich.table import Table

from rlvr_zoo import registry
from rlvr_zoo.errors import NotFoundError, PluginError, nearest
from rlvr_zoo.resolve import presets

Row = dict[str, Any]


def list_command(kind: str, as_json: bool) -> None:
    """Prints what there is of a kind.  Raises NotFoundError for a kind that there is not."""
    if kind not in KINDS:
        raise NotFoundError(f"cannot list {kind!r}: {nearest(kind, KINDS)}")
    rows = KINDS[kind]()
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    table = Table()
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(name, value) for name, value in row.items()))
    Console(highlight=False).print(table)


def path_command(kind: str, name: str) -> None:
    """Prints where a preset's file lies, for commands that take it.  Raises NotFoundError."""
    if kind not in ("launch", "models", "protocols"):
        raise NotFoundError(f"list {kind} --path: only launch, models and protocols are files")
    known = presets(kind)
    if name not in known:
        raise NotFoundError(f"list {kind} --path: unknown preset {name!r}: {nearest(name, known)}")
    print(resources.files("rlvr_zoo") / "presets" / kind / f"{name}.yaml")


def _cell(name: str, value: Any) -> str:
    if name == "paper" and (numbers := re.findall(r"arXiv:[\d.]+\d", value)):
        return ", ".join(numbers)  # --json has the title
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return ", ".join(value) if isinstance(value, list) else str(value)


def _algorithms() -> list[Row]:
    rows: list[Row] = []
    for found in registry.algorithms():
        if isinstance(found, PluginError):
            rows.append({"name": "(broken)", "settings": {}, "models": [], "paper": str(found)})
            continue
        spec = found.cls.spec(found.cls.Config(**found.settings))
        models = ["policy", *spec.companions, *(["head"] if spec.head else [])]
        rows.append(
            {
                "name": found.name,
                "settings": dict(found.settings),
                "models": models,
                "paper": found.cls.paper,
            }
        )
    return rows


def _presets(kind: str) -> list[Row]:
    return [
        {"name": name, "description": str(tree.get("description", ""))}
        for name, tree in presets(kind).items()
    ]


def _launch() -> list[Row]:
    shown = ("num_machines", "num_processes", "distributed_type", "mixed_precision")
    return [{"name": name, **{k: t[k] for k in shown}} for name, t in presets("launch").items()]


def _suites() -> list[Row]:
    return [
        {"name": name, "registered by": ", ".join(entry.value for entry in claims)}
        for name, claims in sorted(registry.owners(registry.SUITES).items())
    ]


KINDS: dict[str, Callable[[], list[Row]]] = {
    "algorithms": _algorithms,
    "models": lambda: _presets("models"),
    "protocols": lambda: _presets("protocols"),
    "suites": _suites,
    "launch": _launch,
}
