"""Who may import whom, read off the sources (DESIGN.md), and the size limits (STYLE.md, 12).

Every rule is a function from modules to complaints, and is shown a bad module that it must refuse.
"""

import ast
import graphlib
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = (ROOT, ROOT / "algorithms", ROOT / "benchmarks")
PACKAGES = ("rlvr_zoo", "rlvr_zoo_algorithms", "rlvr_zoo_benchmarks", "tests")

ORDER = (
    {"cli", "__main__"},
    {"compare"},
    {"leaderboard", "evaluate", "train", "testing"},
    {"plan"},
    {"rollout", "verify", "problems", "models", "track", "registry", "resolve", "checks", "launch"},
    {"config", "protocol"},
    {"api"},
    {"errors", "functional", "__init__"},
)
"""Rooms of rlvr_zoo: one may import its own row, without a circle, and the rows below it."""

ONE_FILE_EACH = ("vllm", "lm_eval", "accelerate", "deepspeed", "peft", "torchao", "optuna")
ONE_FOLDER_EACH = {"mlflow": "rlvr_zoo.track.mlflow"}
NOT_FOR_HELP = {*ONE_FILE_EACH, *ONE_FOLDER_EACH, "torch", "transformers", "scipy", "matplotlib"}
TENSORS = {"torch", "jaxtyping"}


@dataclass(frozen=True)
class Module:
    name: str
    text: str
    is_package: bool = False

    @property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @property
    def room(self) -> str:
        """The folder or file of rlvr_zoo that it belongs to; empty outside of rlvr_zoo."""
        return room_of(self.name)


def room_of(name: str) -> str:
    package, *rest = name.split(".")
    return "" if package != "rlvr_zoo" else rest[0] if rest else "__init__"


def read_modules() -> list[Module]:
    modules = []
    for source in SOURCES:
        for package in PACKAGES:
            for path in sorted((source / package).rglob("*.py")):
                parts = path.relative_to(source).with_suffix("").parts
                is_package = parts[-1] == "__init__"
                name = ".".join(parts[:-1] if is_package else parts)
                modules.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return modules


def imports(module: Module) -> Iterator[str]:
    """Full dotted names, wherever in the file they are imported, by `import_module` too."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    for node in ast.walk(module.tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=source, names=names, level=level):
                base = package[: len(package) - level + 1] if level else []
                base = [*base, *([source] if source else [])]
                yield from (".".join([*base, alias.name]) for alias in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def within(name: str, *parents: str) -> bool:
    return any(name == parent or name.startswith(parent + ".") for parent in parents)


def outside(module: Module, *allowed: str) -> Iterator[str]:
    """Imports that are neither in the standard library nor in what is allowed."""
    for name in imports(module):
        if not within(name, *allowed, *sys.stdlib_module_names):
            yield f"{module.name} imports {name}"


# ------------------------------------------------------------------------------------- the rules


def algorithms_use_what_a_stranger_may(modules: list[Module]) -> Iterator[str]:
    public = ("rlvr_zoo.api", "rlvr_zoo.functional", "rlvr_zoo.errors")
    for module in modules:
        if within(module.name, "rlvr_zoo_algorithms"):
            yield from outside(module, *public, "rlvr_zoo_algorithms", *TENSORS)


def functional_is_tensor_maths(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        if module.room == "functional":
            yield from outside(module, "rlvr_zoo.functional", *TENSORS)


def harness_names_no_plugin(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for package in ("rlvr_zoo_algorithms", "rlvr_zoo_benchmarks"):
            if module.room and package in module.text:
                yield f"{module.name} names {package}"


def heavy_packages_have_one_place_each(modules: list[Module]) -> Iterator[str]:
    importers = defaultdict(set)
    for module in modules:
        for name in imports(module) if module.room else ():
            importers[name.split(".")[0]].add(module.name)
    for package in ONE_FILE_EACH:
        if len(importers[package]) > 1:
            yield f"{package} is imported by {' and '.join(sorted(importers[package]))}"
    for package, folder in ONE_FOLDER_EACH.items():
        for name in sorted(importers[package]):
            if not within(name, folder):
                yield f"{package} is imported by {name}, outside of {folder}"


def rooms_import_downwards(modules: list[Module]) -> Iterator[str]:
    row = {room: number for number, rooms in enumerate(ORDER) for room in rooms}
    graph: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        if module.room and module.room not in row:
            yield f"{module.name}: the room {module.room!r} has no place in ORDER"
            continue
        for name in imports(module) if module.room else ():
            target = room_of(name)
            if target in row and target != module.room:
                graph[module.room].add(target)
                if row[target] < row[module.room]:
                    yield f"{module.name} imports {name}, which stands above it"
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        yield f"rooms import each other in a circle: {' -> '.join(error.args[1])}"


def is_algorithm(node: ast.expr) -> bool:
    name = getattr(node, "id", "") or getattr(node, "attr", "")
    return re.fullmatch(r"_?(algo|algorithm)", name) is not None


def asks_who(node: ast.AST) -> bool:
    """hasattr(algorithm, ..), isinstance(algorithm, ..), type(algorithm), algorithm.name == .."""
    match node:
        case ast.Call(func=ast.Name(id="hasattr" | "isinstance" | "type"), args=[first, *_]):
            return is_algorithm(first)
        case ast.Compare(left=left, comparators=comparators):
            sides = [left, *comparators]
        case ast.Match(subject=subject):
            sides = [subject]
        case _:
            return False
    return any(
        isinstance(side, ast.Attribute) and side.attr == "name" and is_algorithm(side.value)
        for side in sides
    )


def trainer_never_asks_who(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree) if module.room == "train" else ():
            if asks_who(node):
                yield f"{module.name} asks who the algorithm is: {ast.unparse(node)[:80]}"


def files_are_short(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        limit = 200 if within(module.name, "rlvr_zoo_algorithms") else 400
        num_lines = len(module.text.splitlines())
        if num_lines > limit:
            yield f"{module.name} has {num_lines} lines, more than {limit}"


def knobs_are_few(modules: list[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree) if within(module.name, "rlvr_zoo_algorithms") else ():
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
                num_knobs = sum(isinstance(line, ast.AnnAssign) for line in node.body)
                if num_knobs > 15:
                    yield f"{module.name}: {node.name} has {num_knobs} knobs, more than 15"


Rule = Callable[[list[Module]], Iterator[str]]

BAD: dict[Rule, list[list[tuple[str, str]]]] = {
    algorithms_use_what_a_stranger_may: [
        [("rlvr_zoo_algorithms.x", "from rlvr_zoo.train import loop")],
        [("rlvr_zoo_algorithms.x", "from rlvr_zoo import config")],
        [("rlvr_zoo_algorithms.x", "import numpy as np")],
    ],
    functional_is_tensor_maths: [
        [("rlvr_zoo.functional.x", "from rlvr_zoo.errors import ConfigError")],
        [("rlvr_zoo.functional.x", "def f():\n    import scipy.stats")],
        [("rlvr_zoo.functional.x", "from ..api import Batch")],
    ],
    harness_names_no_plugin: [
        [("rlvr_zoo.registry", "import_module('rlvr_zoo_algorithms.grpo')")],
    ],
    heavy_packages_have_one_place_each: [
        [("rlvr_zoo.track.a", "import mlflow")],
        [("rlvr_zoo.cli.b", "from mlflow.x import y")],
        [
            ("rlvr_zoo.train.a", "def f():\n    import accelerate.utils"),
            ("rlvr_zoo.train.b", "importlib.import_module('accelerate')"),
        ],
    ],
    rooms_import_downwards: [
        [("rlvr_zoo.rollout.x", "from rlvr_zoo.train.loop import run")],
        [("rlvr_zoo.api", "import rlvr_zoo.config")],
        [("rlvr_zoo.errors", "from .api import Batch")],
        [("rlvr_zoo.attic", "")],
        [
            ("rlvr_zoo.train.x", "from .. import evaluate"),
            ("rlvr_zoo.evaluate.x", "import rlvr_zoo.train"),
        ],
    ],
    trainer_never_asks_who: [
        [("rlvr_zoo.train.x", "if hasattr(self.algorithm, 'value'): pass")],
        [("rlvr_zoo.train.x", "isinstance(algorithm, PPO)")],
        [("rlvr_zoo.train.x", "critic = config.algorithm.name == 'ppo'")],
        [("rlvr_zoo.train.x", "critic = algorithm.name in {'ppo'}")],
        [("rlvr_zoo.train.x", "match algorithm.name:\n    case 'ppo': pass")],
    ],
    files_are_short: [
        [("rlvr_zoo.cli.x", "\n" * 401)],
        [("rlvr_zoo_algorithms.x", "\n" * 201)],
        [("tests.unit.x", "\n" * 401)],
    ],
    knobs_are_few: [
        [("rlvr_zoo_algorithms.x", "class Config:\n" + "    k: int = 1\n" * 16)],
    ],
}

GOOD = [
    Module("rlvr_zoo_algorithms.x", "import math, torch\nfrom rlvr_zoo.functional.groups import f"),
    Module("rlvr_zoo.functional.x", "import torch\nfrom rlvr_zoo.functional.groups import f"),
    Module("rlvr_zoo.train.x", "from rlvr_zoo.evaluate import y\nisinstance(config, Config)"),
    Module("rlvr_zoo.track.x", "from rlvr_zoo.config import TrackConfig"),
    Module("rlvr_zoo.track.mlflow.x", "import mlflow"),
    Module("rlvr_zoo.track.mlflow.y", "from mlflow.entities import Run"),
]


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_sources_keep_the_rule(rule: Rule) -> None:
    assert list(rule(read_modules())) == []


@pytest.mark.parametrize(
    ("rule", "bad"),
    [pytest.param(rule, bad, id=rule.__name__) for rule, bads in BAD.items() for bad in bads],
)
def test_rule_refuses_a_bad_module(rule: Rule, bad: list[tuple[str, str]]) -> None:
    assert list(rule(GOOD)) == []
    assert list(rule(GOOD + [Module(*module) for module in bad]))


def test_sources_are_found() -> None:
    names = {module.name for module in read_modules()}
    assert names >= {"rlvr_zoo", "rlvr_zoo.api", "rlvr_zoo.functional", "rlvr_zoo_algorithms.grpo"}
    assert names >= {"rlvr_zoo_benchmarks", "tests.unit.test_architecture"}


# ----------------------------------------------------------------------------- what --help loads


def heavy_imports(importtime: str) -> set[str]:
    """Packages too heavy for a help text, in what `python -X importtime` prints."""
    names = re.findall(r"^import time: .*\| +(\S+)$", importtime, flags=re.MULTILINE)
    return {name.split(".")[0] for name in names} & NOT_FOR_HELP


def importtime(*arguments: str) -> str:
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stderr


def test_help_loads_nothing_heavy() -> None:
    assert heavy_imports(importtime("-m", "rlvr_zoo", "--help")) == set()


def test_heavy_imports_are_noticed(tmp_path: Path) -> None:
    (tmp_path / "mlflow.py").touch()
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import json, mlflow"
    assert heavy_imports(importtime("-c", code)) == {"mlflow"}
