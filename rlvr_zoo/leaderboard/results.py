"""A board as results.json, all of it in full precision, and results.csv, a line for each score."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from rlvr_zoo.errors import ConfigError
from rlvr_zoo.leaderboard.board import SCHEMA, Board, Row
from rlvr_zoo.track.lines import encode_number

_ADAPTER = TypeAdapter(Board)


def plain(board: Board) -> dict[str, Any]:
    """The board as JSON can hold it; NaN and infinities are the strings of `track.lines`."""
    found = _plain(_ADAPTER.dump_python(board, mode="python"))
    assert isinstance(found, dict)
    return found


def to_json(board: Board) -> bytes:
    """UTF-8 JSON, `schema` first; equal boards give equal bytes."""
    text = json.dumps({"schema": SCHEMA, **plain(board)}, indent=1, allow_nan=False)
    return text.encode("ascii") + b"\n"


def from_json(data: bytes, where: object) -> Board:
    """Reads what `to_json` wrote; tuples in settings and configurations come back as lists.

    Raises ConfigError, which names `where`, for damage and for another schema.
    """
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ConfigError(f"{where}: damaged leaderboard ({error}); write it anew") from error
    schema = value.pop("schema", None) if isinstance(value, dict) else None
    if schema != SCHEMA:
        raise ConfigError(
            f"{where}: a leaderboard of schema {schema}, and this rlvr-zoo reads {SCHEMA};"
            " write it anew from the runs"
        )
    try:
        return _ADAPTER.validate_python(value, strict=False, extra="forbid")
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        raise ConfigError(
            f"{where}: damaged leaderboard ({at}: {first['msg']}); write it anew"
        ) from error


def to_csv(board: Board) -> bytes:
    """A line for each entrant and suite; shares are 0 to 1, an empty cell has no number."""
    lines = list(_lines(board))
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(lines[0]) if lines else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _cell(value) for key, value in line.items()} for line in lines)
    return text.getvalue().encode("utf-8")


def _lines(board: Board) -> Iterator[dict[str, Any]]:
    sizes = sorted(
        {k for row in board.rows for score in row.scores.values() for k in score.pass_at}
    )
    for suite in board.suites:
        for row in board.rows:
            if suite.name in row.scores:
                yield _identity(board, row) | _score(row, suite.name, sizes) | _costs(row)


def _identity(board: Board, row: Row) -> dict[str, Any]:
    return {
        "protocol": board.protocol,
        "digest": board.digest,
        "entrant": row.name,
        "algorithm": row.algorithm,
        "control": row.control,
        "num_seeds": len(row.seeds),
        "seeds": " ".join(str(seed) for seed in row.seeds),
        "not_ranked": row.not_ranked,
    }


def _score(row: Row, suite: str, sizes: list[int]) -> dict[str, Any]:
    score = row.scores[suite]
    intervals = {"accuracy": score.accuracy, "iqm": score.iqm}
    intervals |= {f"pass@{k}": each for k in sizes if (each := score.pass_at.get(k))}
    cells: dict[str, Any] = {"suite": suite, "tier": score.tier}
    for name in ("accuracy", "iqm", *(f"pass@{k}" for k in sizes)):
        number = intervals.get(name)
        cells[name] = number.value if number else None
        cells[f"{name}_low"] = number.low if number else None
        cells[f"{name}_high"] = number.high if number else None
    by_seed = (f"{seed}:{accuracy!r}" for seed, accuracy in score.by_seed.items())
    return cells | {"accuracy_by_seed": " ".join(by_seed)}


def _costs(row: Row) -> dict[str, Any]:
    costs = row.costs
    return {
        "generated_tokens": costs.generated_tokens,
        "trained_tokens": costs.trained_tokens,
        "total_s": costs.total_s,
        "rollout_s": costs.rollout_s,
        "verify_s": costs.verify_s,
        "update_s": costs.update_s,
        "evaluate_s": costs.evaluate_s,
        "peak_memory_bytes": costs.peak_memory_bytes,
        "parameters": " ".join(f"{name}:{size}" for name, size in costs.parameters.items()),
    }


def _cell(value: Any) -> Any:
    """A spreadsheet takes text that begins with one of these for a formula, and runs it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return "'" + value
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return encode_number(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return value
