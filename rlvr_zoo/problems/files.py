"""Problems from a JSONL file, or from a folder of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlvr_zoo.api import Problem
from rlvr_zoo.errors import ProblemsError, nearest
from rlvr_zoo.problems.rows import text_of, unique


def read(path: str) -> list[Problem]:
    """All problems of a JSONL file, or of a folder's `*.jsonl` files in the order of their names.

    One object a line with `problem` and `answer`; `id` and `source` default to `FILE:LINE`.  Blank
    lines are skipped, other fields ignored, and exact repeats of a problem under one id dropped.

    Raises ProblemsError, naming file and line, for whatever cannot be used as it is.
    """
    problems = unique(item for file in _files(Path(path).expanduser()) for item in _read_file(file))
    if not problems:
        raise ProblemsError(
            f"{path}: holds no problem; write one JSON object a line with 'problem' and 'answer'"
        )
    return problems


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.glob("*.jsonl") if file.is_file())
        if not files:
            raise ProblemsError(
                f"{path}: no *.jsonl file in this folder; name a file, or a folder that has some"
            )
        return files
    if not path.exists():
        raise ProblemsError(f"{path}: no such file or folder; {_beside(path)}")
    return [path]


def _beside(path: Path) -> str:
    """A clause that offers what lies where the path was looked for."""
    folder = path.parent
    while not folder.is_dir():
        path, folder = folder, folder.parent
    found = {
        entry.name: entry
        for entry in folder.iterdir()
        if entry.is_dir() or entry.suffix == ".jsonl"
    }
    return f"in {folder}: {nearest(path.name, found)}"


def _read_file(file: Path) -> Iterator[tuple[str, Problem]]:
    for where, row in rows(file):
        name = file.name + where.removeprefix(str(file))
        yield where, _problem(row, where, name)


def rows(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(FILE:LINE, object) for every line of a JSONL file that is not blank.

    Raises ProblemsError for a file that cannot be read, and for what is no JSON object.
    """
    try:
        content = file.read_bytes()
    except OSError as error:
        raise ProblemsError(
            f"{file}: {error.strerror or error}; make it readable, or name another file"
        ) from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            where = f"{file}:{number}"
            yield where, _parse(line, where)


def _parse(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise ProblemsError(
            f"{where}: byte {error.start + 1} is not UTF-8 ({error.reason}); save the file as UTF-8"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProblemsError(
            f"{where}: not JSON ({error}); each line must hold one whole JSON object"
        ) from error
    if not isinstance(row, dict):
        raise ProblemsError(
            f"{where}: a {type(row).__name__}, not an object; "
            'write {"problem": "...", "answer": "..."}'
        )
    return row


def _problem(row: Mapping[str, Any], where: str, name: str) -> Problem:
    solution = row.get("solution")
    return Problem(
        id=text_of(row, "id", where, default=name),
        prompt=text_of(row, "problem", where),
        answer=text_of(row, "answer", where),
        source=text_of(row, "source", where, default=name),
        solution=solution if isinstance(solution, str) else "",
    )
