"""Which problems of an evaluation suite a training set holds, word for word or nearly.

A problem is a row of tokens, one spelling for each (`tokens`).  In its n-grams all numbers are one
token, so that a template with other numbers is seen; the numbers are compared apart.  A problem of
the suite is matched where at least half of its distinct 8-grams stand in one training problem: the
n-gram length and the threshold by which Tulu 3 decontaminates prompts (arXiv:2411.15124).  The
13-grams of GPT-3 (arXiv:2005.14165, appendix C) are made for documents, and pass over short
problems.  As there, an n-gram that stands in more than 10 texts is a phrase and not counted; here,
in more than 10 problems of the suite.  A problem shorter than an n-gram, or made of phrases alone,
matches only what is equal to it: `23+58=` is never `58+23=`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from rlvr_zoo.api import Problem
from rlvr_zoo.verify.compare import compare

Kind = Literal["same", "near", "similar"]

KINDS: tuple[Kind, ...] = ("same", "near", "similar")

NUM_TOKENS = 8
"""Tokens in an n-gram."""

MIN_SHARE = 0.5
"""Share of its n-grams from which on a problem of the suite is matched."""

MAX_PROBLEMS = 10
"""Problems of one suite that may share an n-gram before it is a phrase."""

_SYMBOLS = str.maketrans(
    {
        "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
        "÷": r"\div ", "°": r"^\circ ", "≤": r"\leq ", "≥": r"\geq ", "≠": r"\neq ", "π": r"\pi ",
        "θ": r"\theta ", "√": r"\sqrt ", "∞": r"\infty ", "∠": r"\angle ", "△": r"\triangle ",
        "…": r"\dots ", "⋯": r"\dots ", "\u2019": "'", "′": "'", "⁰": "^0 ", "¹": "^1 ", "²": "^2 ",
        "³": "^3 ", "⁴": "^4 ", "½": r"\frac{1}{2}",
    }
)  # fmt: skip

# Without "one", which is a pronoun more often than a number.
_DIGITS = {
    "two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8",
    "nine": "9", "ten": "10", "eleven": "11", "twelve": "12",
}  # fmt: skip
_NUMBER_WORD = re.compile(rf"(?<![a-z\\])(?:{'|'.join(_DIGITS)})(?![a-z])")

_SPELLINGS = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\\\", " "),
        (r"(?<=\d)(?:\{,\}|,\\!|,)(?=\d{3}(?!\d))", ""),
        (r"\\[,;:!> ()\[\]]|\\q?quad(?![a-z])|~|\$", " "),
        (r"\\(?:left|right|middle|big{1,2}[lrm]?|displaystyle|limits)(?![a-z])", " "),
        (r"\\(?:text(?:bf|it|rm)?|math(?:rm|bf|it|bb)|mbox|operatorname)\s*\{([^{}]*)\}", r" \1 "),
        (r"\\[dtc]frac(?![a-z])", r"\\frac"),
        (r"\\frac\s*(\d)\s*(?=\d|\{)", r"\\frac{\1}"),
        (r"\\le(?:qslant)?(?![a-z])|<=", r"\\leq "),
        (r"\\ge(?:qslant)?(?![a-z])|>=", r"\\geq "),
        (r"\\ne(?![a-z])|!=", r"\\neq "),
        (r"\\[lc]?dots[cbm]?(?![a-z])|\.\.\.", r"\\dots "),
        (r"\^\s*\{?\s*\\prime(?![a-z])\s*\}?", "'"),
        (r"(?<=\d)\s*\^\s*\{?\s*(st|nd|rd|th)(?![a-z])\s*\}?", r"\1"),
        (r"(?<!\\)\{\s*(\\?[a-z]+|\d+|[^\s\w{}\\])\s*\}", r" \1 "),  # braces around one token
    )
)

_FIGURE = re.compile(r"\[asy\].*?\[/asy\]|\\begin\{asy\}.*?\\end\{asy\}", re.DOTALL)

# `xy` and `x y` are one product, so runs of one or two letters are taken letter by letter.
_TOKEN = re.compile(
    r"\d+(?:\.\d+)?|\.\d+|\\[a-z]+|[a-z]{3,}|(?<![a-z])[a-z]'+(?![a-z])|[a-z]|[^\W_]"
    r"|[^\s\w,.;:?\"'`\\]|_"
)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A problem of the suite and a training problem that holds it, or most of it."""

    train_id: str
    suite_id: str
    kind: Kind
    """`same`: equal tokens.  `near`: `MIN_SHARE` reached, every number of the suite's problem is
    there, and the answers are equal.  `similar`: `MIN_SHARE` reached, other numbers or answer."""
    share: float
    """Share of the suite problem's n-grams that the training problem holds; 1 for `same`."""


class Suite(Protocol):
    """A name and its problems."""

    @property
    def name(self) -> str: ...
    @property
    def problems(self) -> tuple[Problem, ...]: ...


def tokens(text: str) -> tuple[str, ...]:
    """Words, numbers, commands and symbols; without case, white space, and marks of punctuation.

    One spelling for what is written in several ways: fractions, dots, spaces and delimiters of
    formulas, needless braces, thousands, small numbers in words.
    """
    return tuple(_TOKEN.findall(_one_spelling(text)))


def overlaps(train: Sequence[Problem], suite: Sequence[Problem]) -> list[Overlap]:
    """All pairs that match, `same` before `near` before `similar`, by falling share."""
    return search(train, [suite])[0]


def search(train: Sequence[Problem], suites: Sequence[Sequence[Problem]]) -> list[list[Overlap]]:
    """`overlaps` of each suite, reading the training set once."""
    if not suites:  # reading ten thousand problems for nothing takes a tenth of a second
        return []
    indices = [_Index(suite) for suite in suites]
    found: list[list[Overlap]] = [[] for _ in suites]
    for problem in train:
        text = _Text(problem)
        for index, pairs in zip(indices, found, strict=True):
            pairs.extend(index.matches(text))
    for pairs in found:
        pairs.sort(key=lambda pair: (KINDS.index(pair.kind), -pair.share))
    return found


def leaked(pairs: Sequence[Overlap]) -> dict[str, str]:
    """Problems of the suite that are `same` or `near` -> the first training problem of each."""
    found: dict[str, str] = {}
    for pair in pairs:
        if pair.kind != "similar":
            found.setdefault(pair.suite_id, pair.train_id)
    return found


def warning(train: Sequence[Problem], suites: Sequence[Suite]) -> str:
    """One line that says how many problems of which suite are `same` or `near`; else empty."""
    counts, example = [], ""
    found = search(train, [suite.problems for suite in suites])
    for suite, pairs in zip(suites, found, strict=True):
        if places := leaked(pairs):
            counts.append(f"{len(places)} of {len(suite.problems)} problems of {suite.name}")
            example = example or " as ".join(next(iter(places.items())))
    if not counts:
        return ""
    return (
        f"the training set holds {' and '.join(counts)}, word for word or nearly"
        f" (e.g. {example}); see rlvr-zoo problems check"
    )


def _one_spelling(text: str) -> str:
    text = text.casefold().translate(_SYMBOLS)
    text = unicodedata.normalize("NFKC", text).casefold()  # it makes capitals of letter-like signs
    for pattern, replacement in _SPELLINGS:
        text = pattern.sub(replacement, text)
    return _NUMBER_WORD.sub(lambda match: _DIGITS[match.group()], text)


class _Text:
    """What a comparison needs of a problem."""

    __slots__ = ("grams", "numbers", "problem", "tokens")

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.tokens = tokens(problem.prompt)
        bare = self.tokens
        if "asy" in bare:  # copies of a problem often lack its drawing
            bare = tokens(_FIGURE.sub(" ", problem.prompt))
        self.numbers = Counter(token for token in bare if token[-1].isdigit())
        masked = ["0" if token in self.numbers else token for token in bare]
        self.grams = {
            hash(tuple(masked[start : start + NUM_TOKENS]))
            for start in range(len(masked) - NUM_TOKENS + 1)
        }


class _Index:
    """A suite's problems by their tokens and by their n-grams."""

    def __init__(self, suite: Sequence[Problem]) -> None:
        self._texts = [_Text(problem) for problem in suite]
        self._equal: dict[tuple[str, ...], list[int]] = defaultdict(list)
        holders: dict[int, list[int]] = defaultdict(list)
        for place, text in enumerate(self._texts):
            self._equal[text.tokens].append(place)
            for gram in text.grams:
                holders[gram].append(place)
        self._holders = {g: places for g, places in holders.items() if len(places) <= MAX_PROBLEMS}
        self._num_grams = Counter(place for places in self._holders.values() for place in places)

    def matches(self, train: _Text) -> Iterator[Overlap]:
        """The suite's problems that a training problem matches."""
        equal = self._equal.get(train.tokens, ())
        for place in equal:
            yield self._overlap(train, place, "same", 1.0)
        held = Counter(place for gram in train.grams for place in self._holders.get(gram, ()))
        for place, count in held.items():
            share = count / self._num_grams[place]
            if share >= MIN_SHARE and place not in equal:
                kind: Kind = "near" if _agree(train, self._texts[place]) else "similar"
                yield self._overlap(train, place, kind, share)

    def _overlap(self, train: _Text, place: int, kind: Kind, share: float) -> Overlap:
        return Overlap(train.problem.id, self._texts[place].problem.id, kind, share)


def _agree(train: _Text, suite: _Text) -> bool:
    """Whether no number of the suite's problem is missing, and the answers are equal."""
    if not suite.numbers <= train.numbers:
        return False
    return compare(train.problem.answer, suite.problem.answer).correct is True
