"""Text of messages and number formats."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import Any

__all__ = [
    "closest_name",
    "did_you_mean",
    "drop_zero",
    "first_line",
    "interval_text",
    "is_missing",
    "number",
    "one_line",
    "p_value",
    "plain",
    "plural",
    "quantity",
    "sentence",
    "shorten",
    "signed",
    "yaml_text",
]

_YAML_WORDS = frozenset("true false yes no on off y n null".split())  # of YAML 1.1 and 1.2, in any case
_YAML_NUMBER = r"(0|[1-9]\d{0,14})(\.\d{0,9}[1-9])?"  # which is the same text again
_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


# -- names in messages ------------------------------------------------------------------------------------------------
def did_you_mean(name: object, known: Iterable[object], cutoff: float = 0.6) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, else a short list of the known names."""
    known = [str(k) for k in dict.fromkeys(known)]
    return closest_name(name, known, cutoff) or (
        f" (known: {', '.join(known)})" if 0 < len(known) <= MAX_LISTED else ""
    )


MAX_LISTED = 30  # names in a message


def closest_name(name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known name, ``""`` if none has a ratio of difflib >= cutoff."""
    folded = {}
    for each in known:
        folded.setdefault(each.casefold(), each)
    match = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=cutoff)
    return f" (did you mean '{folded[match[0]]}'?)" if match else ""


def shorten(names: Iterable[object], n: int = 3) -> str:
    """Return the first ``n`` names, and how many more there are."""
    names = [str(name) for name in names]
    return ", ".join(names[:n]) + (f" and {len(names) - n} more" if len(names) > n else "")


def yaml_text(name: object) -> str:
    """Return a name as it is written in one line of YAML: 01, yes and ? would be read as something else.

    Example
    -------
    >>> yaml_text("기쁨"), yaml_text("very sad"), yaml_text("1"), yaml_text("01"), yaml_text("no")
    ('기쁨', 'very sad', '1', '"01"', '"no"')
    """
    name = str(name)
    is_plain = re.fullmatch(rf"{_YAML_NUMBER}|[^\W\d]([\w .-]*\w)?", name) and name.casefold() not in _YAML_WORDS
    return name if is_plain else json.dumps(name, ensure_ascii=False)


def plural(n: float, noun: str) -> str:
    """Return the number with its noun.

    Example
    -------
    >>> plural(1, "seed"), plural(3, "speaker")
    ('1 seed', '3 speakers')
    """
    return f"{n:.0f} {noun}{'' if n == 1 else 's'}"


def sentence(text: object) -> str:
    """Return text with a capital and a full stop."""
    text = str(text)
    return f"{text[:1].upper()}{text[1:]}."


def one_line(text: object, limit: int | None = None) -> str:
    """Return text, such as an exception as its message, in one line, shortened to a number of characters."""
    try:
        text = " ".join(str(text).split())
    except Exception:  # whatever an exception of the user raises when it is asked for its message
        text = "(its message cannot be read)"
    return text if limit is None or len(text) <= limit else f"{text[:limit]} ..."


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, without the full stop."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")


# -- numbers ----------------------------------------------------------------------------------------------------------
def is_missing(value: Any) -> bool:
    """Return whether a scalar is None, NaN or pandas.NA."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA
        return True


def number(value: float | None, *, sign: bool = False) -> str:
    """Return three decimals without the leading zero.

    Example
    -------
    >>> number(0.5421), number(-0.01, sign=True), number(1), number(-0.0004), number(None)
    ('.542', '-.010', '1.000', '.000', '')
    """
    if is_missing(value):
        return ""
    text = f"{value:{'+' if sign else ''}.3f}"
    return ".000" if float(text) == 0 else drop_zero(text)


def drop_zero(text: str) -> str:
    """Return a number as text without the zero in front of its point.

    Example
    -------
    >>> drop_zero("0.25"), drop_zero("-0.5"), drop_zero("10.5")
    ('.25', '-.5', '10.5')
    """
    return re.sub(r"^([-+\u2212]?)0\.", r"\1.", text)


def signed(value: float | None) -> str:
    """Return three decimals with the sign, for differences."""
    return number(value, sign=True)


def interval_text(low: float | None, high: float | None) -> str:
    """Return ``[.368, .568]``, or ``""`` if there is no interval."""
    return "" if is_missing(low) else f"[{number(low)}, {number(high)}]"


def p_value(value: float | None, name: str = "") -> str:
    """Return a p value, ``< .001`` below that.

    Example
    -------
    >>> p_value(0.0117), p_value(0.0001), p_value(0.0117, "p"), p_value(0.0001, "p")
    ('.012', '< .001', 'p = .012', 'p < .001')
    """
    if is_missing(value):
        return ""
    small = value < 0.0005
    text = "< .001" if small else number(value)
    if not name:
        return text
    return f"{name} {text}" if small else f"{name} = {text}"


def quantity(value: float | None, unit: str = "") -> str:
    """Return a large number with three digits and a prefix.

    Example
    -------
    >>> quantity(94_371_712), quantity(6.9e9, "B"), quantity(None)
    ('94.4 M', '6.9 GB', '')
    """
    if is_missing(value):
        return ""
    for factor, prefix in _UNITS:
        if value >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def plain(value: Any) -> str:
    """Return text unchanged, whole numbers without decimals, others with six digits.

    Example
    -------
    >>> plain("mel"), plain(3), plain(3.0), plain(0.012345678), plain(None)
    ('mel', '3', '3', '0.0123457', '')
    """
    if is_missing(value):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
