"""Read tables of labels, ratings and votes: helpers of adapters of corpora that people rated."""

from __future__ import annotations

import csv
import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from korser.metrics.raters import agreed
from korser.utils.decoding import read_korean
from korser.utils.errors import UserError
from korser.utils.text import one_line, plural, shorten

__all__ = ["RULES", "Rule", "consensus", "read_rating", "read_table", "rater_columns", "raters_of", "report_unmatched"]

logger = logging.getLogger(__name__)

Rule = Literal["majority", "plurality"]
RULES: tuple[Rule, ...] = ("majority", "plurality")


def consensus(votes: Iterable[str | None], rule: Rule = "majority") -> str | None:
    """Return the label on which raters agree, None if they do not; None among the votes does not count.

    Of the ``majority`` are more than half of the votes, of a ``plurality`` more than any other label has.

    Example
    -------
    >>> votes = ["sad", "sad", "angry", "neutral", None]
    >>> consensus(votes), consensus(votes, "plurality"), consensus(votes[1:], "plurality")
    (None, 'sad', None)
    """
    counts = Counter(vote for vote in votes if vote is not None)
    return [*counts, None][agreed(np.array(list(counts.values())), rule)]  # -1 is the last


def rater_columns(task: str, votes: Iterable[Any]) -> dict[str, Any]:
    """Return the votes of an utterance as columns ``<task>_rater1``, ``<task>_rater2``, ..."""
    return {f"{task}_rater{k}": vote for k, vote in enumerate(votes, 1)}


def raters_of(data: pd.DataFrame, tasks: Iterable[str]) -> dict[str, list[str]]:
    """Return the rater columns of each task that has some, for ``data.attrs["raters"]``."""
    found = {}
    for task in tasks:
        numbers = [int(match[1]) for name in data if (match := re.fullmatch(rf"{task}_rater(\d+)", name))]
        if numbers:
            found[task] = [f"{task}_rater{k}" for k in sorted(numbers)]
    return found


def read_rating(text: str, place: str) -> float | None:
    """Return a rating, None if it is empty or ``NaN``; ``place`` names file and row in the error."""
    try:
        value = float(text.strip() or "nan")
    except ValueError:
        raise UserError(f"{place}: expected a number, found '{text}'") from None
    return None if value != value else value


def read_table(
    path: Path, columns: Sequence[str] = (), *, separator: str = ",", read: Callable[[Path], str] = read_korean
) -> pd.DataFrame:
    r"""Read a CSV file, which must have some columns, as text; blanks in the names of columns do not count.

    Between tabs (``separator="\t"``) quotation marks are text. ``read`` is the function of :mod:`korser.utils.decoding`
    that knows the encoding, by default UTF-8 or CP949.

    Raises
    ------
    UserError
        If it is not a table, or has not all of ``columns``.
    """
    try:
        quoting = csv.QUOTE_NONE if separator == "\t" else csv.QUOTE_MINIMAL
        text = io.StringIO(read(path))
        table = pd.read_csv(text, sep=separator, dtype=str, keep_default_na=False, quoting=quoting)
    except ValueError as error:  # an empty file, or rows of different lengths
        raise UserError(f"{path} cannot be read ({one_line(error)}): copy it again from the corpus") from error
    table.columns = ["".join(str(name).split()) for name in table.columns]
    missing = [name for name in columns if name not in table]
    if missing:
        raise UserError(
            f"{path}: no column '{missing[0]}': expected {', '.join(columns)}; found {', '.join(table.columns)}"
        )
    return table


def report_unmatched(recordings: Collection[str], described: Collection[str]) -> None:
    """Log how many rows of the annotation have no recording, and how many recordings have no row."""
    absent = sorted(set(described) - set(recordings))
    if absent:
        logger.info(
            "left out: %s of the annotation without a recording (%s)", plural(len(absent), "row"), shorten(absent)
        )
    unlabelled = sorted(set(recordings) - set(described))
    if unlabelled:
        logger.warning(
            "no row of the annotation, so no labels, for %s (%s)",
            plural(len(unlabelled), "recording"),
            shorten(unlabelled),
        )
