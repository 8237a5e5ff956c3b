"""Numbers of a leaderboard as a person reads them, and text of records made harmless."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Sequence

from rlvr_zoo.leaderboard.board import Interval

NOTHING = "–"
"""Stands where there is no number."""
_MARKDOWN = re.compile(r"([\\`*\[\]|~#]|(?<!\w)_|_(?!\w))")
_INVISIBLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]+"
)


def percent(share: float | None) -> str:
    """A share as per cent with one digit, without the sign."""
    return NOTHING if share is None or not math.isfinite(share) else f"{100 * share:.1f}"


def spread(number: Interval | None) -> str:
    """A share with its interval: `83.4 % (81.0–86.1)`."""
    if number is None:
        return NOTHING
    text = f"{percent(number.value)} %"
    if number.low is None or number.high is None:
        return text
    return f"{text} ({percent(number.low)}–{percent(number.high)})"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, two digits that count."""
    if difference is None or not math.isfinite(difference):
        return NOTHING
    size = 100 * difference
    return f"{size:.1f}" if abs(size) >= 0.95 else f"{size:.2g}"


def amount(number: float) -> str:
    """A count as `12`, `3.4 k`, `1.27 M`, three digits that count."""
    if not math.isfinite(number):
        return NOTHING
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= 0.9995 * size:
            return f"{_three_digits(number / size)} {letter}"
    return f"{number:.0f}"


def duration(seconds: float) -> str:
    """`48 s`, `12.5 min`, `3.20 h`."""
    if not math.isfinite(seconds):
        return NOTHING
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if abs(seconds) >= 0.9995 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds)} s"


def memory(num_bytes: float) -> str:
    """Bytes in GiB, below a tenth of one in MiB."""
    if not math.isfinite(num_bytes):
        return NOTHING
    gib = num_bytes / 2**30
    return f"{_three_digits(gib)} GiB" if gib >= 0.1 else f"{num_bytes / 2**20:.0f} MiB"


def count(number: int, one: str, many: str = "") -> str:
    """`1 seed`, `3 seeds`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def listing(names: Sequence[str], most: int = 6) -> str:
    """`a, b and c`; of a long list, the first few and how many more."""
    if len(names) > most:
        names = [*names[: most - 1], f"{len(names) - most + 1} more"]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def one_line(text: str) -> str:
    """Text without line ends, control characters and what turns the direction of reading."""
    return re.sub(r"\s+", " ", _INVISIBLE.sub(" ", text)).strip()


def markdown(text: str) -> str:
    """Text of a record for one line or one table cell of Markdown, where it is only text."""
    return _MARKDOWN.sub(r"\\\1", html.escape(one_line(text), quote=False))


def fenced(text: str) -> str:
    """Text as a Markdown code block, whatever it holds."""
    lines = [_INVISIBLE.sub(" ", line) for line in text.splitlines()]
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([fence, *lines, fence])


def _three_digits(number: float) -> str:
    size = abs(number)
    return f"{number:.{2 if size < 9.995 else 1 if size < 99.95 else 0}f}"
