"""The files of a leaderboard: what they hold, that they come back, and that no text breaks out."""

import csv
import io
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from rlvr_zoo.errors import ConfigError, NotFoundError, StorageError
from rlvr_zoo.leaderboard import words
from rlvr_zoo.leaderboard.board import Board, Interval, Pair
from rlvr_zoo.leaderboard.findings import finding
from rlvr_zoo.leaderboard.readme import best_first, readme
from rlvr_zoo.leaderboard.write import PAGE, README, RESULTS, TABLE, read, write

from .boards import CONTROLS, board, hostile


def table(made: Board, out: Path) -> list[dict[str, str]]:
    write(made, out)
    return list(csv.DictReader(io.StringIO((out / TABLE).read_text(encoding="utf-8"))))


# ------------------------------------------------------------------------------------ the folder


def test_a_board_comes_back_whole(tmp_path: Path) -> None:
    write(board(), tmp_path / "deep" / "micro")
    assert read(tmp_path / "deep" / "micro") == board()
    assert read(tmp_path / "deep" / "micro" / RESULTS) == board()


@pytest.mark.parametrize("make", [board, hostile])
def test_equal_boards_give_equal_bytes(make: Callable[[], Board], tmp_path: Path) -> None:
    for out in ("one", "two"):
        write(make(), tmp_path / out)
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {README, RESULTS, TABLE, PAGE}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_infinite_settings_come_back_and_the_file_is_json(tmp_path: Path) -> None:
    first = board().rows[0]
    first = replace(first, costs=replace(first.costs, peak_memory_bytes=math.inf))
    write(board(rows=(first,)), tmp_path)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    json.loads((tmp_path / RESULTS).read_bytes(), parse_constant=refuse)
    assert read(tmp_path).rows[0].costs.peak_memory_bytes == math.inf


def test_a_board_of_nothing_is_written(tmp_path: Path) -> None:
    empty = Board(
        protocol="micro",
        digest="",
        protocol_settings={},
        primary="micro",
        suites=(),
        rows=(),
        pairs=(),
    )
    write(empty, tmp_path)
    assert read(tmp_path) == empty
    assert "No run was left out" in (tmp_path / README).read_text()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: text[: len(text) // 2], "damaged leaderboard"),
        (lambda text: text.replace('"schema": 1', '"schema": 2'), "schema 2"),
        (lambda text: "[]", "schema None"),
        (lambda text: text.replace('"run_hours": 12.34', '"run_hours": "long"'), "run_hours"),
        (lambda text: text.replace('"run_hours"', '"hours"'), "hours"),
    ],
)
def test_damage_is_refused(damage: Callable[[str], str], reason: str, tmp_path: Path) -> None:
    write(board(), tmp_path)
    path = tmp_path / RESULTS
    path.write_text(damage(path.read_text()))
    with pytest.raises(ConfigError, match=reason) as refusal:
        read(tmp_path)
    assert str(path) in str(refusal.value)


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no leaderboard to read"):
        read(tmp_path)


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match="--out"):
        write(board(), tmp_path / "out")


# ------------------------------------------------------------------------------------ results.csv


def test_csv_has_a_line_for_each_entrant_and_suite(tmp_path: Path) -> None:
    lines = table(board(), tmp_path)
    assert len(lines) == 12 * 3
    first = lines[0]
    assert (first["entrant"], first["suite"], first["tier"]) == ("popo", "micro-hard", "1")
    assert float(first["accuracy"]) == 0.842
    assert float(first["pass@8_low"]) == board().rows[0].scores["micro-hard"].pass_at[8].low
    assert first["seeds"] == "0 1 2 3 4"
    assert {line["entrant"] for line in lines if line["control"] == "true"} == set(CONTROLS)


def test_csv_leaves_empty_what_has_no_number(tmp_path: Path) -> None:
    late = next(line for line in table(board(), tmp_path) if line["entrant"] == "sapo")
    assert (late["tier"], late["accuracy_low"], late["num_seeds"]) == ("", "", "2")
    assert late["not_ranked"] == "2 seeds, 3 are needed"


def test_csv_holds_no_formula(tmp_path: Path) -> None:
    lines = table(hostile(), tmp_path)
    assert lines[0]["entrant"] == "'" + hostile().rows[0].name
    assert not [cell for line in lines for cell in line.values() if re.match(r"[=+@]", cell)]


# -------------------------------------------------------------------------------------- README.md


def test_readme_has_tier_interval_and_seeds() -> None:
    text = readme(board())
    assert (
        "| 1 | popo | 84.2 % (82.2–86.2) | 86.7 % (84.2–89.2) | 99.0 % (97.0–100.0) | 5 |" in text
    )
    assert "| – | sapo | 90.0 % | 90.0 % | 99.7 % | 2 |" in text
    assert "sapo is not ranked: 2 seeds, 3 are needed." in text
    assert "| random-reward (control) | 3.10 M |" in text


def test_readme_counts_and_names_what_was_left_out() -> None:
    text = readme(board())
    assert "2 runs that no number counts" in text
    assert "* grpo/seed-7: record.json is damaged (line 3)" in text


def test_readme_says_how_it_was_made() -> None:
    text = readme(board())
    assert "```\nrlvr-zoo compare --algos popo,grpo --protocol micro-hard --seeds 5\n```" in text
    for said in ("4f1d4f1d", "12.34 hours", "torch 2.13.0", "AMD EPYC", "e0c4674, e0c4674-dirty"):
        assert said in text


def test_what_was_written_by_hand_stands_on_top(tmp_path: Path) -> None:
    (tmp_path / "findings.md").write_text("Positive-only learning did *not* hurt.\n")
    write(board(), tmp_path)
    text = (tmp_path / README).read_text()
    assert text.index("Positive-only learning did *not* hurt.") < text.index("## micro-hard")


def test_findings_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "findings.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read as text"):
        write(board(), tmp_path)
    assert not (tmp_path / RESULTS).exists()


def test_no_text_of_a_record_is_markup() -> None:
    text = readme(hostile())
    outside = re.sub(r"(`{4,})\n.*?\n\1\n", "", text, flags=re.DOTALL)  # the command's block
    assert "rlvr-zoo </script>" in text and "rlvr-zoo </script>" not in outside
    assert "<" not in outside
    assert not re.search(r"(?<!\\)\]\((?!index|results)", outside)
    for line in outside.splitlines():
        if "onerror" in line and line.startswith("|"):
            header = 10 if "policy" in line else 6
            assert len(re.findall(r"(?<!\\)\|", line)) == header + 1


def test_rows_are_ordered_by_the_suite_that_is_shown() -> None:
    made = board()
    swapped = replace(made.rows[0].scores["micro"], accuracy=Interval(value=0.1))
    first = replace(made.rows[0], scores=made.rows[0].scores | {"micro": swapped})
    names = [row.name for row in best_first((first, *made.rows[1:]), "micro")]
    assert names[0] == "dr_grpo" and names[-2:] == ["popo", "sapo"]


# ------------------------------------------------------------------------------- what can be said


def decided(*winners: tuple[str, str]) -> Board:
    """Four ranked entrants and a control; only these pairs (better, worse) are shown."""
    made = board()
    names = ("popo", "grpo", "psr", "random-reward")
    rows = tuple(row for row in made.rows if row.name in names)

    def settle(pair: Pair) -> Pair:
        for a, b in winners:
            if {a, b} == {pair.a, pair.b}:
                gap = 0.1 if pair.a == a else -0.1
                return replace(pair, shown=True, difference=Interval(value=gap))
        return replace(pair, shown=False)

    pairs = tuple(settle(pair) for pair in made.pairs if pair.a in names and pair.b in names)
    return board(rows=rows, pairs=pairs)


def headline(made: Board) -> str:
    return finding(made, made.suites[0]).headline


def details(made: Board) -> str:
    return " ".join(finding(made, made.suites[0]).details)


def test_a_tie_is_said() -> None:
    made = decided()
    assert headline(made) == (
        "On micro-hard none of 3 pairs of contenders differs beyond noise;"
        " nobody is shown to beat grpo."
    )
    assert "Whether grpo differs from 2 others is left open." in details(made)
    assert "Not shown to beat the control random-reward: popo, grpo and psr." in details(made)


def test_winners_and_losers_are_named_whichever_way_the_pair_stands() -> None:
    made = decided(("psr", "grpo"), ("grpo", "popo"), ("popo", "random-reward"))
    assert headline(made) == (
        "On micro-hard 2 of 3 pairs of contenders differ beyond noise; psr is shown to beat grpo."
    )
    assert "grpo is shown to beat popo." in details(made)
    assert "Contenders are shown to beat controls in 1 of 3 pairs." in details(made)
    assert "control random-reward: grpo and psr." in details(made)


def test_a_control_that_wins_is_no_contender_that_wins() -> None:
    made = decided(("random-reward", "grpo"), ("popo", "random-reward"), ("psr", "random-reward"))
    assert "in 2 of 3 pairs" in details(made)
    assert "Not shown to beat the control random-reward: grpo." in details(made)
    assert "nobody is shown to beat grpo" in headline(made)


def test_the_smallest_difference_is_said_or_why_not() -> None:
    assert "2.1 points" in details(board()) and "3.4 points" in details(board())
    first = replace(board().suites[0], detectable=None, detectable_holm=None)
    assert "too few seeds" in details(board(suites=(first,)))


def test_without_pairs_nothing_is_said() -> None:
    assert "nothing can be said" in headline(board(pairs=()))


# ------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("said", "want"),
    [
        (words.percent(0.99961), "100.0"),
        (words.percent(math.nan), "–"),
        (words.spread(Interval(value=0.5, low=0.25, high=0.75)), "50.0 % (25.0–75.0)"),
        (words.points(0.0212), "2.1"),
        (words.points(0.0031), "0.31"),
        (words.amount(999.7), "1.00 k"),
        (words.amount(1_234_567), "1.23 M"),
        (words.amount(12), "12"),
        (words.duration(59.99), "1.00 min"),
        (words.duration(7200), "2.00 h"),
        (words.memory(2**30), "1.00 GiB"),
        (words.memory(5 * 2**20), "5 MiB"),
        (words.listing(list("abcdefgh")), "a, b, c, d, e and 3 more"),
        (words.listing(["a"]), "a"),
        (words.listing([]), ""),
        (words.markdown("dr_grpo _x_ a\u202eb\n|"), r"dr_grpo \_x\_ a b \|"),
        (words.fenced("a```b"), "````\na```b\n````"),
    ],
)
def test_numbers_and_names_are_readable(said: str, want: str) -> None:
    assert said == want
