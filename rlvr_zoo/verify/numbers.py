r"""Numbers as people write them, read exactly: no floats, no evaluation.

Read: integers with thousands separators, decimals, `a/b`, `\frac{a}{b}`, mixed numbers, `a \times
10^{n}`, `3e6`, powers of integers, `0.\overline{3}`, a trailing percent
sign, digits in a base (`52_8`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

_MAX_DIGITS = 1000
_MAX_EXPONENT = 1000

_INT = r"(?:\d{1,3}(?:,\s?\d{3})+(?![\d,])|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DEC = rf"{_INT}(?:\.\d*)?"
_EXPONENT = r"\^\s?(?:\{\s?([-+]?\d{1,5})\s?\}|(\d))"
_DECIMAL = re.compile(rf"{_DEC}|\.\d+")
_SCIENTIFIC = re.compile(rf"({_DEC})\s?(?:\\times|\\cdot|\*)\s?10\s?{_EXPONENT}")
_E_NOTATION = re.compile(rf"({_DEC})[eE]([-+]?\d{{1,5}})")
_POWER = re.compile(rf"(\d{{1,9}})\s?{_EXPONENT}")
_FRACTION = re.compile(rf"\\frac\s?\{{\s?([-+]?\s?{_DEC})\s?\}}\s?\{{\s?([-+]?\s?{_DEC})\s?\}}")
_SLASHED = re.compile(rf"({_DEC})\s?/\s?([-+]?{_DEC})")
_MIXED = re.compile(
    r"(\d+)\s?(?:\\frac\s?\{\s?(\d+)\s?\}\s?\{\s?(\d+)\s?\}|(?<=\s)(\d+)\s?/\s?(\d+))"
)
_REPEATING = re.compile(r"(\d*)\.(\d*)\s?\\overline\s?\{\s?(\d+)\s?\}")
_BASED = re.compile(r"(-?\s?[0-9A-Za-z]+)\s?_\s?(?:\{\s?(\d{1,2})\s?\}|(\d{1,2}))")
_SIGN = re.compile(r"\s?([-+])\s?")


@dataclass(frozen=True, slots=True)
class Number:
    """A number and how it was written."""

    value: Fraction
    places: int | None = None
    """Decimal places of a decimal, plain or scientific; None for other notations."""
    percent: bool = False
    """A percent sign stood behind it; `value` is what stood before the sign."""
    base: int | None = None
    """The subscript base; `value` then has the digits read as if they were decimal."""


def _fraction(text: str) -> Fraction:
    return Fraction(re.sub(r"[,\s+]", "", text).rstrip("."))


def _power_of(base: Fraction | int, exponent: str) -> Fraction | None:
    power = int(exponent)
    if abs(power) > _MAX_EXPONENT or (base == 0 and power <= 0):
        return None
    return Fraction(base) ** power


def _unsigned(text: str) -> Fraction | None:
    if match := _MIXED.fullmatch(text):
        whole, top, bottom = (int(group) for group in match.groups() if group)
        return whole + Fraction(top, bottom) if bottom > top > 0 else None
    if match := _REPEATING.fullmatch(text):
        before, start, period = match.groups()
        nines = (10 ** len(period) - 1) * 10 ** len(start)
        return Fraction(f"{before or 0}.{start or 0}") + Fraction(int(period), nines)
    for pattern in (_FRACTION, _SLASHED):
        if match := pattern.fullmatch(text):
            below = _fraction(match.group(2))
            return _fraction(match.group(1)) / below if below else None
    if match := _POWER.fullmatch(text):
        return _power_of(int(match.group(1)), match.group(2) or match.group(3))
    return None


def _decimal(text: str) -> tuple[Fraction, int] | None:
    """Value and decimal places of an unsigned decimal, plain or times a power of ten."""
    if _DECIMAL.fullmatch(text):
        return _fraction(text), len(text.partition(".")[2])
    match = _SCIENTIFIC.fullmatch(text) or _E_NOTATION.fullmatch(text)
    if not match:
        return None
    exponent = next(group for group in match.groups()[1:] if group)
    scale = _power_of(10, exponent)
    places = len(match.group(1).partition(".")[2]) - int(exponent)
    return None if scale is None else (_fraction(match.group(1)) * scale, max(0, places))


def _strip_group(text: str) -> str:
    """Without brackets or braces that hold all of it, where it is one number."""
    while (
        len(text) > 2
        and text[0] + text[-1] in ("()", "{}")
        and not re.search(r"[,(){}]", text[1:-1])
    ):
        text = text[1:-1].strip()
    return text


def _based(text: str) -> Number | None:
    match = _BASED.fullmatch(text)
    if not match:
        return None
    digits, base = match.group(1).replace(" ", ""), int(match.group(2) or match.group(3))
    if not digits.lstrip("-").isdecimal() or not 2 <= base <= 36:
        return None
    return Number(Fraction(int(digits)), base=base)


def read(text: str) -> Number | None:
    """The number that a tidy answer is; None where it is anything else, or too long to read."""
    if len(text) > _MAX_DIGITS:
        return None
    if based := _based(text):
        return based
    text = text.strip()
    percent = text.endswith("%")
    text = _strip_group(text.removesuffix("%").strip())
    sign, position = 1, 0
    if match := _SIGN.match(text):
        sign, position = (-1 if match.group(1) == "-" else 1), match.end()
    body = _strip_group(text[position:])
    if decimal := _decimal(body):
        return Number(sign * decimal[0], decimal[1], percent)
    value = _unsigned(body)
    return None if value is None else Number(sign * value, None, percent)


def _as_plain(number: Number) -> tuple[Fraction, ...]:
    return (number.value, number.value / 100) if number.percent else (number.value,)


def same(a: Number, b: Number) -> bool:
    """Equal exactly, but for floating-point noise in a decimal (see `close_decimal`).

    A percentage equals the same number without the sign, and the hundredth of it.
    Digits in a base equal the same digits in the same base, or with no base named.
    """
    if a.base is not None or b.base is not None:
        return a.value == b.value and (a.base == b.base or None in (a.base, b.base))
    if a.percent and b.percent:
        return close_decimal(a, b.value) or close_decimal(b, a.value)
    return any(
        close_decimal(Number(x, a.places), y) or close_decimal(Number(y, b.places), x)
        for x in _as_plain(a)
        for y in _as_plain(b)
    )


def within(a: Number, b: Number, tolerance: Fraction) -> bool:
    """At most `tolerance` apart; percentages as in `same`, and never for digits in a base."""
    if a.base is not None or b.base is not None:
        return False
    if a.percent and b.percent:
        return abs(a.value - b.value) <= tolerance
    return any(abs(x - y) <= tolerance for x in _as_plain(a) for y in _as_plain(b))


def close_decimal(decimal: Number, exact: Fraction) -> bool:
    """Whether a decimal says `exact`.

    Equal; or eight digits alike and under 1e-6 apart, which is floating-point noise; or, with at
    least six digits behind the point and six significant ones, rounded right in its last digit.
    """
    difference = abs(decimal.value - exact)
    if difference == 0:
        return True
    places = decimal.places or 0
    if places == 0:
        return False
    if difference <= min(abs(exact) / 10**7, Fraction(1, 10**6)):
        return True
    terminates = exact.denominator == 1 or _terminates(exact.denominator, places)
    significant = abs(decimal.value) * 10**places >= 10**5
    return places >= 6 and significant and not terminates and difference * 2 * 10**places <= 1


def _terminates(denominator: int, places: int) -> bool:
    """Whether so many digits behind the point would have sufficed to write it exactly."""
    return bool(10**places % denominator == 0)
