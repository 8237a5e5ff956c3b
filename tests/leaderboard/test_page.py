"""The page as text: what it holds, that it asks nobody for anything, and what it escapes."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from rlvr_zoo.leaderboard.board import Board
from rlvr_zoo.leaderboard.page import page

from .boards import HOSTILE, board, hostile, large


class Elements(HTMLParser):
    """Every element of a page with its attributes, and the text inside of some."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.inside: list[tuple[str, str]] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._open = tag

    def handle_data(self, data: str) -> None:
        self.inside.append((self._open, data))

    def text_of(self, tag: str) -> list[str]:
        return [text for name, text in self.inside if name == tag]


def data(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="board">(.*?)</script>', text)
    assert found is not None
    assert not set("<>&") & set(found[1])
    value: dict[str, Any] = json.loads(found[1])
    return value


def test_the_page_asks_nobody_for_anything() -> None:
    text = page(board())
    for tag, attributes in Elements(text).tags:
        assert tag not in {"img", "iframe", "object", "embed", "base", "form"}
        assert "src" not in attributes
        if tag == "link":
            assert attributes == {"rel": "icon", "href": "data:,"}
    assert not re.search(r"@import|url\(['\"]?(?!#)|fetch\(|XMLHttpRequest|import\(", text)


def test_its_policy_allows_its_own_style_and_script_only() -> None:
    text = page(board())
    policy = next(
        each["content"]
        for _, each in Elements(text).tags
        if "content" in each and each.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for opening, closing in (("<style>", "</style>"), ('<script type="module">', "</script>")):
        part = text[text.index(opening) + len(opening) :]
        part = part[: part.index(closing)]
        digest = base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


@pytest.mark.parametrize("make", [board, hostile, large])
def test_equal_boards_give_equal_pages(make: Callable[[], Board]) -> None:
    assert page(make()) == page(make())


def test_a_page_of_29_entrants_is_no_megabyte() -> None:
    assert len(page(large()).encode()) < 1_000_000


def test_the_page_has_the_boards_numbers() -> None:
    found = data(page(board()))
    assert [row["name"] for row in found["rows"]] == [row.name for row in board().rows]
    score = found["rows"][0]["scores"]["micro-hard"]
    assert score["accuracy"] == {"value": 0.842, "low": 0.822, "high": 0.862}
    assert score["iqm"]["value"] == 0.86726
    assert found["rows"][-1]["scores"]["micro"]["tier"] is None
    assert len(found["pairs"]) == len(board().pairs)


def test_what_can_be_said_is_there_for_whoever_is_asked_about() -> None:
    found = data(page(board()))
    assert found["reference"] == "grpo"
    assert found["findings"]["micro"]["grpo"]["headline"].endswith("nobody is shown to beat grpo.")
    assert "popo" in found["findings"]["micro"]["psr"]["headline"]
    assert "sapo" not in found["findings"]["micro"]


def test_without_grpo_the_first_contender_is_asked_about() -> None:
    made = board()
    found = data(page(replace(made, rows=tuple(row for row in made.rows if row.name != "grpo"))))
    assert found["reference"] == "popo"


def test_what_was_left_out_is_named_and_counted() -> None:
    text = page(board())
    assert "2 runs that no number here counts" in text
    assert "<code>grpo/seed-7</code> record.json is damaged (line 3)" in text
    assert "No run was left out." in page(board(left_out=()))


def test_how_it_was_made_is_there() -> None:
    text = page(board())
    for said in (board().command, board().digest, "12.34", "AMD EPYC", "3.11.2, 3.12.1", "e0c4674"):
        assert said in text


def test_a_card_that_entrants_share_is_there_once() -> None:
    made = board()
    rows = tuple(
        replace(row, card="# POPO\nOne card." if "popo" in row.name else "") for row in made.rows
    )
    text = page(board(rows=rows))
    assert text.count("One card.") == 1
    numbers = {row["name"]: row["card"] for row in data(text)["rows"]}
    assert (numbers["popo"], numbers["popo-nosim"], numbers["grpo"]) == (0, 0, None)


def test_a_card_keeps_its_tables_and_loses_its_markup() -> None:
    card = "| a | b |\n| --- | --- |\n| `x` | <script>1</script> |\n\n![p](http://e.org/p.png)"
    text = page(board(rows=(replace(board().rows[0], card=card),)))
    assert "<td><code>x</code></td>" in text
    assert "&lt;script&gt;1&lt;/script&gt;" in text
    assert "<img" not in text


def test_no_text_of_a_record_is_markup() -> None:
    text = page(hostile())
    elements = Elements(text)
    tags = [tag for tag, _ in elements.tags]
    assert tags.count("script") == 2
    assert "img" not in tags and "b>" not in tags
    for _, attributes in elements.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not attributes.get("href", "").startswith("javascript:")
    assert elements.text_of("title")[0].startswith(HOSTILE[:60])
    found = data(text)
    assert found["rows"][0]["settings"] == {HOSTILE: HOSTILE}


def test_a_board_of_nothing_is_a_page() -> None:
    text = page(
        board(rows=(), pairs=(), suites=(), sweeps=(), left_out=(), versions={}, hardware=())
    )
    assert data(text)["reference"] == ""
