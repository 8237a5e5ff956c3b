"""Renew what the tasks pin, from a folder of JSONL files: python -m rlvr_zoo_benchmarks.pin DIR

Writes `manifest.csv` beside each task, and the count and digest in its YAML file.  Raise the
task's version where they change.  Other folders of tasks: `... pin DIR TASKS`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import yaml

from rlvr_zoo.errors import ProblemsError, RlvrZooError
from rlvr_zoo.problems import GENERATORS, content
from rlvr_zoo.problems.pinned import Pin, from_folder, rows_of, write_manifest
from rlvr_zoo_benchmarks import TASKS


class _Loader(yaml.SafeLoader):
    """Reads lm-eval's `!function` tags as the names that they are."""


_Loader.add_constructor("!function", lambda loader, node: str(node.value))


def renew(task: Path, folder: Path) -> str:
    """Pin the content that is there; a line that says what it is."""
    text = task.read_text(encoding="utf-8")
    try:
        pin = yaml.load(text, _Loader)["dataset_kwargs"]["pin"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        cause = " ".join(str(error).split())
        raise ProblemsError(
            f"{task}: no task with dataset_kwargs.pin ({cause}); write it as docs/suites.md shows"
        ) from error
    if generator := pin.get("generator"):
        problems = list(GENERATORS[generator](pin["count"], pin["seed"], False)[1])
    else:
        problems = from_folder(Pin(**pin), folder)
        write_manifest(task.parent / "manifest.csv", rows_of(problems))
    digest = content.digest([content.hashes(problem) for problem in problems])
    text = re.sub(r"(?m)^( +count:).*$", rf"\1 {len(problems)}", text)
    text = re.sub(r"(?m)^( +digest:).*$", rf"\1 {digest}", text)
    task.write_text(text, encoding="utf-8")
    return f"{pin['name']}: {len(problems)} problems, {digest}"


def main(folder: str, tasks: str = str(TASKS)) -> int:
    """Renew every task of a folder of them."""
    try:
        for task in sorted(Path(tasks).glob("*/*.yaml")):
            print(renew(task, Path(folder)))
    except RlvrZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
