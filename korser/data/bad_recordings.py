"""Report recordings that cannot be used or look wrong: in the log, in a table and in one error."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError
from korser.utils.files import write_csv
from korser.utils.notes import Note

__all__ = ["BAD_RECORDINGS", "LengthLimits", "find_copies", "report_recordings"]

logger = logging.getLogger(__name__)

BAD_RECORDINGS = "bad-recordings.csv"
UNUSABLE = "unusable"  # code of files that stop the command
SHOWN_ERRORS = 3


def report_recordings(notes: Mapping[str, Sequence[Note]], errors: Mapping[str, str], table: Path | None) -> None:
    """Warn of suspicious recordings, one line for each kind, and refuse those that cannot be used.

    ``notes`` are what is suspicious of each file that can be used, ``errors`` why each other one cannot, with its name.
    ``table`` is a CSV file for all of them, with ``path``, ``problem`` and ``details``; removed if there are none.

    Raises
    ------
    UserError
        One error for all files that cannot be used, naming the first few.
    """
    rows = [(path, UNUSABLE, text.removeprefix(f"{path}: ")) for path, text in errors.items()]
    rows += [(path, note.label, note.text) for path, found in notes.items() for note in found]
    listed = _write(rows, table)
    n_files = len(notes) + len(errors)
    found = pd.DataFrame(rows, columns=["path", "problem", "details"])
    for problem, files in found[found["problem"] != UNUSABLE].groupby("problem", sort=False):
        first = f"{files.iloc[0].path}: {files.iloc[0].details}"
        more = f" and {len(files) - 1} more" if len(files) > 1 else ""
        logger.warning("%d of %d audio files: %s (%s%s)%s", len(files), n_files, problem, first, more, listed)
    if errors:
        shown = list(errors.values())[:SHOWN_ERRORS]
        more = f"; and {len(errors) - SHOWN_ERRORS} more" if len(errors) > SHOWN_ERRORS else ""
        raise UserError(
            f"{len(errors)} of {n_files} audio files cannot be used: {'; '.join(shown)}{more}. Fix them or remove them "
            f"from the corpus{listed}"
        )


class LengthLimits(NamedTuple):
    """The shortest and the longest input of a model, in samples; ``longest=None``: there is no limit."""

    shortest: int = 1
    longest: int | None = None

    @classmethod
    def of(cls, *models: Any) -> LengthLimits:
        """Return the limits of what all of some models accept, which have ``min_length`` and ``max_length``."""
        longest = [model.max_length for model in models if model.max_length is not None]
        return cls(max(model.min_length for model in models), min(longest, default=None))

    def error(self, path: str | Path, samples: int, model: str = "the model") -> str | None:
        """Return the error for a file with audio of a length that a model does not accept; None if it does."""
        seconds = samples / SAMPLE_RATE
        if samples < self.shortest:
            least = self.shortest / SAMPLE_RATE
            return f"{path}: too short: {seconds:.3f} s, but {model} needs {least:.3f} s: leave it out"
        if self.longest is not None and samples > self.longest:
            return (
                f"{path}: too long: {seconds:.3f} s, but {model} takes at most {self.longest / SAMPLE_RATE:.3f} s: "
                "shorten it, leave it out, or let the frontend split it, if it can (windows: true)"
            )
        return None


def find_copies(utterances: Iterable[tuple[str, str]]) -> dict[str, Note]:
    """Return a note for each path whose audio another utterance has, too, except for the first of them.

    ``utterances`` are pairs of a path and a digest of the audio.
    """
    utterances = pd.DataFrame(list(utterances), columns=["path", "digest"])
    utterances = utterances[utterances["digest"].duplicated(keep=False)]
    copies = {}
    for _, same in utterances.groupby("digest", sort=False)["path"]:
        original, *others = same
        copies |= {path: Note("copy", f"the same audio as {original}") for path in others if path != original}
        if original in others:
            copies[original] = Note("copy", f"listed {list(same).count(original)} times")
    return copies


def _write(rows: Sequence[tuple[str, str, str]], table: Path | None) -> str:
    """Write the table; return where it is, as the end of a sentence."""
    if table is None:
        return ""
    if not rows:
        with contextlib.suppress(OSError):
            table.unlink()  # of an earlier attempt
        return ""
    try:
        write_csv(table, pd.DataFrame(rows, columns=["path", "problem", "details"]))
    except UserError as error:  # a folder that cannot be written does not hide what is wrong with the audio
        return f"; {error}"
    return f"; {'both are' if len(rows) == 2 else 'all are' if len(rows) > 2 else 'it is'} listed in {table}"
