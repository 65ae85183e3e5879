"""Cells of tables: texts that certainly mean the same become the same text.

Spreadsheets, exports and keyboards write one value in several ways: ``1`` and ``1.0``, a label followed by a
non-breaking space, Hangul in composed and decomposed form. Variants that may be meant, such as capitals, are left
alone; :func:`korser.corpora.table.warn_of_typos` reports them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from korser.utils.text import is_missing

__all__ = ["clean_cell", "identify", "may_mean_unknown", "means_unknown"]

# what programs write for an unknown value; "NA" and "none" are left alone, since they may be names of classes
MISSING = frozenset(
    {"", "nan", "NaN", "NAN", "-nan", "None", "NULL", "Null", "null", "N/A", "n/a", "#N/A", "<NA>", "NaT"}
)
UNKNOWN = ("unknown", "unk", "unspecified", "missing", "none", "nan", "n/a", "n.a.", "not available", "미상", "모름")
DOUBTFUL = ("na", "null", "other", "others", "various", "anonymous")  # or the name of a person
FILLERS = re.compile("[\u034f\u115f\u1160\u2800\u3164\ufe0e\ufe0f\uffa0]")  # and variation selectors: invisible
FORMS = re.compile("[\u3000\uff01-\uffee]")  # full-width and half-width
WHOLE_NUMBER = re.compile(r"([+-]?\d+)\.0+")


def clean_cell(text: str) -> str | None:
    r"""Return the text of a cell as it is seen; None if it stands for an unknown value.

    The text is in Unicode's composed form (NFC), without invisible characters and surrounding blanks; blanks of any
    width, breaking or not, are plain ones.

    Examples
    --------
    >>> clean_cell("\u200bvery\u00a0sad "), clean_cell("N/A")
    ('very sad', None)
    """
    if not text.isprintable():
        text = "".join(map(_printable, text))
    text = unicodedata.normalize("NFC", FILLERS.sub("", text)).strip()
    return None if text in MISSING else text


def identify(value: Any) -> str | None:
    r"""Return the name of a speaker, label, split or fold: a cleaned cell in which width and ``.0`` do not matter.

    Examples
    --------
    >>> identify(1.0), identify("1.00"), identify("\uff4a\uff4f\uff59"), identify(float("nan"))
    ('1', '1', 'joy', None)
    """
    if is_missing(value):
        return None
    text = clean_cell(FORMS.sub(lambda form: unicodedata.normalize("NFKC", form[0]), str(value)))
    number = WHOLE_NUMBER.fullmatch(text or "")
    return number[1] if number else text


def means_unknown(name: str) -> bool:
    """Return whether a name of a speaker or label says that it is not known: "unknown", "?"."""
    return name.casefold() in UNKNOWN or not any(map(str.isalnum, name))


def may_mean_unknown(name: str) -> bool:
    """Return whether a name may say that the speaker is not known: "NA", "other"."""
    return name.casefold() in DOUBTFUL


def _printable(character: str) -> str:
    """Return a blank for one of any width, and nothing for an invisible character."""
    category = unicodedata.category(character)
    if category == "Zs":
        return " "
    return "" if category == "Cf" or category == "Cc" and character not in "\t\n\r" else character
