"""How large suites are, read off their task files: no problem is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from rlvr_zoo import registry
from rlvr_zoo.config import SuitesConfig

DEFAULT_COMPLETION_TOKENS = 256
"""lm-eval's own, where a task says nothing."""


@dataclass(frozen=True)
class SuiteSize:
    """A suite as the settings want it sampled."""

    name: str
    num_problems: int | None
    """None where its files do not say."""
    num_samples: int
    completion_tokens: int


class _Loader(yaml.SafeLoader):
    """Passes over `!function`, which lm-eval resolves."""


_Loader.add_multi_constructor("!", lambda loader, suffix, node: None)


def sizes(config: SuitesConfig) -> list[SuiteSize]:
    """The suites of a run, groups opened, each once.  Raises NotFoundError for an unknown name."""
    found: dict[str, SuiteSize] = {}
    for name in config.names:
        tasks = _tasks(Path(registry.load(registry.SUITES, name)))
        for each in _opened(name, tasks):
            found.setdefault(each, _size(each, tasks.get(each, {}), config))
    return list(found.values())


def _tasks(folder: Path) -> dict[str, dict[str, Any]]:
    """Tasks and groups of a folder by name, what they include laid under."""
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        tree = _read(path)
        name = tree.get("group") or tree.get("task")
        if isinstance(name, str):
            found[name] = tree
    return found


def _read(path: Path) -> dict[str, Any]:
    tree = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    included = path.parent / str(tree.get("include", ""))
    return {**(_read(included) if "include" in tree and included.is_file() else {}), **tree}


def _opened(name: str, tasks: dict[str, dict[str, Any]]) -> Iterator[str]:
    members = tasks.get(name, {}).get("task")
    if isinstance(members, list):
        for member in members:
            yield from _opened(str(member), tasks)
    else:
        yield name


def _size(name: str, task: dict[str, Any], config: SuitesConfig) -> SuiteSize:
    kwargs = task.get("generation_kwargs") or {}
    greedy = not kwargs.get("do_sample", False)
    temperature = kwargs.get("temperature", 0.0 if greedy else 1.0)
    if config.temperature is not None:
        temperature = config.temperature
    samples = 1 if temperature == 0 else int(task.get("repeats", 1))
    count = ((task.get("dataset_kwargs") or {}).get("pin") or {}).get("count")
    problems = None if count is None else int(count)
    if config.limit:
        problems = config.limit if problems is None else min(problems, config.limit)
    limit = config.max_completion_tokens
    limit = limit or int(kwargs.get("max_gen_toks", DEFAULT_COMPLETION_TOKENS))
    return SuiteSize(name, problems, config.num_samples or samples, limit)
