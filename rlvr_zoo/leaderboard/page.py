"""A board as one HTML file that needs nothing else: style, script and numbers are inside it.

The parts lie in `page/`.  All text of records is hostile here: the template escapes what it
prints, the script makes text nodes of the rest, cards lose their markup, and the page's own policy
allows no script and no style but ours, and no request.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from rlvr_zoo.leaderboard.board import Board
from rlvr_zoo.leaderboard.findings import finding, reference
from rlvr_zoo.leaderboard.results import plain
from rlvr_zoo.leaderboard.words import count

_STYLES = ("style.css", "charts.css")
_SCRIPTS = ("base.js", "plot.js", "tables.js", "charts.js", "dialog.js", "main.js")
_DIGITS = 6
"""Significant digits of a number on the page; results.json has them all."""


def page(board: Board) -> str:
    """The page's HTML; equal boards give equal text."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    style = "\n".join(_part(name) for name in _STYLES)
    script = "\n".join(_part(name) for name in _SCRIPTS)
    cards = _cards(board)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_part("index.html"))
    return template.render(
        board=board,
        count=count,
        commits=sorted({run.commit for row in board.rows for run in row.runs if run.commit}),
        settings=json.dumps(plain(board)["protocol_settings"], indent=1, ensure_ascii=False),
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_data(board, cards)),
        cards=[Markup(_markdown(card)) for card in cards],
    )


def _part(name: str) -> str:
    return files("rlvr_zoo.leaderboard").joinpath("page", name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)};"
        " base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _cards(board: Board) -> list[str]:
    """Each card once: an algorithm's ablations share it."""
    return list(dict.fromkeys(row.card for row in board.rows if row.card))


def _data(board: Board, cards: list[str]) -> str:
    """JSON that no text in it can end: `<`, `>` and `&` stand as escapes."""
    data = _rounded(plain(board))
    for row in data["rows"]:
        row["card"] = cards.index(row["card"]) if row["card"] else None
    data["reference"] = reference(board) or ""
    data["findings"] = {}
    for suite in board.suites:
        data["findings"][suite.name] = {
            asked: asdict(finding(board, suite, asked=asked)) for asked in ["", *_ranked(board)]
        }
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _ranked(board: Board) -> list[str]:
    return [row.name for row in board.rows if not row.not_ranked]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value


def _markdown(card: str) -> str:
    """CommonMark and tables as HTML; what is HTML in it is shown as text, and images are not."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    found = parser.render(card)
    assert isinstance(found, str)
    return found
