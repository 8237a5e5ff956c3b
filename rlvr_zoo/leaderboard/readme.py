"""A board as README.md: tables that read well as text, and what they show in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlvr_zoo.leaderboard.board import Board, Row, Suite, Sweep, SweepRow
from rlvr_zoo.leaderboard.findings import finding
from rlvr_zoo.leaderboard.words import (
    NOTHING,
    amount,
    count,
    duration,
    fenced,
    markdown,
    memory,
    points,
    spread,
)


def readme(board: Board, by_hand: str = "") -> str:
    """Markdown; `by_hand` is put in as it is, above all that is computed."""
    sections = [
        f"# Leaderboard: {markdown(board.protocol)}",
        "Written by `rlvr-zoo leaderboard` from the records of runs; do not edit."
        + (" What follows, down to the first suite, is `findings.md`, by hand." if by_hand else "")
        + " The page is [index.html](index.html) (one file, no network), the numbers"
        " [results.json](results.json) and [results.csv](results.csv).",
        by_hand.strip(),
        *(_suite(board, suite) for suite in board.suites),
        _costs(board),
        *(_sweep(board, sweep) for sweep in board.sweeps),
        _left_out(board),
        _provenance(board),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def best_first(rows: Iterable[Row], suite: str) -> list[Row]:
    """Rows by accuracy on a suite, what is not ranked last, what was not measured not at all."""
    measured = [row for row in rows if suite in row.scores]
    return sorted(
        measured,
        key=lambda row: (bool(row.not_ranked), -row.scores[suite].accuracy.value),
    )


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _suite(board: Board, suite: Suite) -> str:
    found = finding(board, suite, markdown)
    rows = best_first(board.rows, suite.name)
    sizes = sorted({k for row in rows for k in row.scores[suite.name].pass_at})
    most = sizes[-1] if sizes else None
    header = ["tier", "entrant", "accuracy (95 %)", "interquartile mean"]
    header += [f"pass@{most}"] if most else []
    table = _table(
        [*header, "seeds"],
        [
            [
                str(row.scores[suite.name].tier or NOTHING),
                _name(row),
                spread(row.scores[suite.name].accuracy),
                spread(row.scores[suite.name].iqm),
                *([spread(row.scores[suite.name].pass_at.get(most))] if most else []),
                str(len(row.seeds)),
            ]
            for row in rows
        ],
    )
    measured = (
        f"{count(suite.num_problems, 'problem')}, {count(suite.num_samples, 'sample')} each."
        f" Smallest detectable difference: {_detectable(suite)}."
    )
    notes = [
        f"* {markdown(row.name)} is not ranked: {markdown(row.not_ranked)}."
        for row in rows
        if row.not_ranked
    ]
    words = " ".join([f"**{found.headline}**", *found.details])
    title = f"## {markdown(suite.name)}"
    return "\n\n".join(filter(None, [title, words, measured, table, "\n".join(notes)]))


def _detectable(suite: Suite) -> str:
    if suite.detectable is None:
        return "unknown, there are too few seeds"
    text = f"{points(suite.detectable)} points"
    if suite.detectable_holm is not None:
        text += f", {points(suite.detectable_holm)} corrected for all pairs"
    return text


def _name(row: Row) -> str:
    return markdown(row.name) + (" (control)" if row.control else "")


def _costs(board: Board) -> str:
    """What one run took, mean over seeds."""
    header = ["entrant", "generated tokens", "trained tokens", "time", "rollout", "verdicts"]
    header += ["updates", "evaluation", "peak memory", "parameters held"]
    rows = [
        [
            _name(row),
            amount(row.costs.generated_tokens),
            amount(row.costs.trained_tokens),
            duration(row.costs.total_s),
            duration(row.costs.rollout_s),
            duration(row.costs.verify_s),
            duration(row.costs.update_s),
            duration(row.costs.evaluate_s),
            memory(row.costs.peak_memory_bytes),
            ", ".join(f"{markdown(k)} {amount(n)}" for k, n in row.costs.parameters.items()),
        ]
        for row in board.rows
    ]
    return f"## Costs\n\nOf one run, mean over seeds.\n\n{_table(header, rows)}"


def _sweep(board: Board, sweep: Sweep) -> str:
    suites = [suite.name for suite in board.suites]
    table = _table(
        [*(markdown(knob) for knob in sweep.knobs), *map(markdown, suites), "seeds"],
        [
            [
                *(markdown(value(row, knob)) for knob in sweep.knobs),
                *(spread(row.scores.get(suite)) for suite in suites),
                str(len(row.seeds)),
            ]
            for row in sweep.rows
        ],
    )
    title = f"## Sweep: {markdown(sweep.name)}"
    return f"{title}\n\nOf {markdown(sweep.algorithm)}; never ranked.\n\n{table}"


def value(row: SweepRow, knob: str) -> str:
    """What a knob was set to."""
    found = row.values.get(knob, NOTHING)
    return found if isinstance(found, str) else json.dumps(found, default=str)


def _left_out(board: Board) -> str:
    if not board.left_out:
        return "## Left out\n\nNo run was left out."
    lines = [f"* {markdown(each.where)}: {markdown(each.reason)}" for each in board.left_out]
    what = count(len(board.left_out), "run")
    return f"## Left out\n\n{what} that no number counts:\n\n" + "\n".join(lines)


def _provenance(board: Board) -> str:
    lines = [f"* protocol {markdown(board.protocol)}, digest {markdown(board.digest)}"]
    lines.append(f"* {board.run_hours:.2f} hours of runs, one after the other")
    lines += [f"* {markdown(machine)}" for machine in board.hardware]
    lines += [f"* {text}" for text in _versions(board.versions)]
    commits = sorted({run.commit for row in board.rows for run in row.runs if run.commit})
    lines += [f"* rlvr-zoo at commit {markdown(', '.join(commits))}"] if commits else []
    command = f"\n\n{fenced(board.command)}" if board.command else ""
    return "## How it was made" + command + "\n\n" + "\n".join(lines)


def _versions(versions: Mapping[str, Any]) -> Iterator[str]:
    for package, found in sorted(versions.items()):
        yield f"{markdown(package)} {markdown(', '.join(found))}"
