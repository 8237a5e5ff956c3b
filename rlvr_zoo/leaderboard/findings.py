"""What a board shows and what it does not, in sentences that are computed from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rlvr_zoo.leaderboard.board import Board, Pair, Suite
from rlvr_zoo.leaderboard.words import count, listing, points

REFERENCE = "grpo"
"""The entrant that the others are asked to beat, where it is on the board."""

Write = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What can be said of one suite, and what cannot."""

    headline: str
    """One sentence."""
    details: tuple[str, ...]
    """Sentences."""


def finding(board: Board, suite: Suite, write: Write = str, asked: str | None = None) -> Finding:
    """What the pairs of one suite show, and who is shown to beat `asked` (default: `reference`).

    `write` makes names fit for where they are shown.
    """
    asked = reference(board) if asked is None else asked
    pairs = [pair for pair in board.pairs if pair.suite == suite.name]
    controls = {row.name for row in board.rows if row.control}
    contests = [pair for pair in pairs if not {pair.a, pair.b} & controls]
    against = [pair for pair in pairs if len({pair.a, pair.b} & controls) == 1]
    if not contests:
        return Finding(
            headline=f"On {write(suite.name)} no two entrants are ranked, so nothing can be said of"
            " who is better.",
            details=tuple(_controls(against, controls, write)),
        )
    parts = [_how_many(contests, f"On {write(suite.name)} ", bool(against))]
    details: list[str] = []
    if any(asked in (pair.a, pair.b) for pair in contests):
        parts.append(_beats(contests, asked, write))
        details += _beaten(contests, asked, write)
    return Finding(
        headline="; ".join(parts) + ".",
        details=(
            *details,
            *_first_tier(board, suite, write),
            *_controls(against, controls, write),
            *_pass_at(contests, suite, asked, write),
            *_limit(suite),
            *_saturated(board, suite, asked, write),
        ),
    )


def better(pair: Pair) -> tuple[str, str]:
    """The one with the higher accuracy, and the other."""
    return (pair.a, pair.b) if pair.difference.value > 0 else (pair.b, pair.a)


def reference(board: Board) -> str:
    """The entrant that the others are asked to beat: `REFERENCE`, else the first; empty: none is
    ranked."""
    ranked = [row for row in board.rows if not row.not_ranked and not row.control]
    by_name = {row.name: row for row in ranked}
    same = [row for row in ranked if row.algorithm == REFERENCE]
    found = [*([by_name[REFERENCE]] if REFERENCE in by_name else []), *same, *ranked]
    return found[0].name if found else ""


def _how_many(pairs: list[Pair], where: str, beside_controls: bool) -> str:
    shown = sum(pair.shown for pair in pairs)
    whose = " of contenders" if beside_controls else ""
    number = count(len(pairs), "pair") + whose
    if not shown:
        return f"{where}none of {number} differs beyond noise"
    verb = "differs" if shown == 1 else "differ"
    return f"{where}{shown} of {number} {verb} beyond noise"


def _beats(pairs: list[Pair], asked: str, write: Write) -> str:
    winners = [better(pair)[0] for pair in pairs if pair.shown and better(pair)[1] == asked]
    who = listing([write(name) for name in winners]) or "nobody"
    return f"{who} {'are' if len(winners) > 1 else 'is'} shown to beat {write(asked)}"


def _beaten(pairs: list[Pair], asked: str, write: Write) -> Iterator[str]:
    mine = [pair for pair in pairs if asked in (pair.a, pair.b)]
    losers = [better(pair)[1] for pair in mine if pair.shown and better(pair)[0] == asked]
    open_ = sum(not pair.shown for pair in mine)
    if losers:
        names = listing([write(name) for name in losers])
        yield f"{write(asked)} is shown to beat {names}."
    if open_:
        yield f"Whether {write(asked)} differs from {_others(open_)} is left open."


def _others(number: int) -> str:
    return "one other" if number == 1 else f"{number} others"


def _first_tier(board: Board, suite: Suite, write: Write) -> Iterator[str]:
    first = [
        row.name
        for row in board.rows
        if not row.control and suite.name in row.scores and row.scores[suite.name].tier == 1
    ]
    if len(first) > 1:
        names = listing([write(name) for name in first])
        yield f"Nobody is shown to be better than any of {names}: they share the first tier."
    elif first:
        yield f"{write(first[0])} alone has nobody shown to be better."


def _controls(pairs: list[Pair], controls: set[str], write: Write) -> Iterator[str]:
    """Who is not shown to beat a control, which is the least that learning must do."""
    if not pairs:
        return
    beaten = [pair for pair in pairs if pair.shown and better(pair)[1] in controls]
    if len(beaten) == len(pairs):
        yield "Every contender is shown to beat every control."
        return
    yield f"Contenders are shown to beat controls in {len(beaten)} of {count(len(pairs), 'pair')}."
    for control in sorted(controls):
        short = [
            pair.b if pair.a == control else pair.a
            for pair in pairs
            if control in (pair.a, pair.b) and pair not in beaten
        ]
        if short:
            names = listing([write(name) for name in short])
            yield f"Not shown to beat the control {write(control)}: {names}."


def _pass_at(pairs: list[Pair], suite: Suite, asked: str, write: Write) -> Iterator[str]:
    """What learning did to variety: pass@k at all samples, tested as accuracies are."""
    found = [pair for pair in pairs if pair.pass_difference is not None]
    if not found:
        return
    shown = [pair for pair in found if (pair.pass_p_holm or 0.0) < 0.05]
    name = f"pass@{suite.num_samples}"
    if not shown:
        yield f"Of {name}, no pair of contenders differs beyond noise."
        return
    yield f"Of {name}, {len(shown)} of {count(len(found), 'pair')} differ beyond noise."
    for word, sign in (("higher", 1), ("lower", -1)):
        names = [
            pair.a if pair.b == asked else pair.b
            for pair in shown
            if asked in (pair.a, pair.b) and _over(pair, asked) * sign > 0
        ]
        if names:
            who = listing([write(each) for each in names])
            yield f"Shown to have a {word} {name} than {write(asked)}: {who}."


def _over(pair: Pair, asked: str) -> float:
    """By how much the other one's pass@K is above that of `asked`."""
    assert pair.pass_difference is not None
    return pair.pass_difference.value * (1 if pair.b == asked else -1)


def _saturated(board: Board, suite: Suite, asked: str, write: Write) -> Iterator[str]:
    """Where there is no room above the one that is to be beaten."""
    rows = [row for row in board.rows if row.name == asked and suite.name in row.scores]
    if not rows or suite.detectable_holm is None:
        return
    score = rows[0].scores[suite.name].accuracy.value
    if 1 - score < suite.detectable_holm:
        yield (
            f"{write(asked)} is at {100 * score:.1f} %: nobody could have been shown to beat it"
            " here; the suite is too easy for that question."
        )


def _limit(suite: Suite) -> Iterator[str]:
    if suite.detectable is None:
        yield "There are too few seeds to say how small a difference would have been found."
        return
    least = points(suite.detectable)
    text = (
        f"With {count(suite.num_seeds, 'seed')} each, a true difference of {least} points between"
        " two entrants is found four times in five"
    )
    if suite.detectable_holm is not None:
        text += (
            f", and of {points(suite.detectable_holm)} points after the correction for all pairs"
        )
    yield text + "; smaller ones may well be there and not show."
