"""Names of the columns of manifests: which name stands for which column of korser."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

__all__ = ["SEGMENT_COLUMNS", "SYNONYMS", "folded", "rename_hint", "renames"]

SYNONYMS = {  # names in other manifests, without case, blanks and punctuation
    "path": "filename file filepath wav wavfile wavpath audio audiofile audiopath recording 파일 파일명 경로",
    "speaker": "speakerid speakername spk spkid actor actorid subject participant 화자 화자번호",
    "emotion": "label labels emotions emo emotionlabel class category 감정 감정라벨",
    "gender": "sex genders speakergender 성별",
    "intensity": "emotionintensity emointensity intensities 강도 감정강도",
    "split": "set subset partition splits",
    "fold": "folds foldid",
}
SEGMENT_COLUMNS = {  # where parts of a recording begin and end
    "start": "start starttime startsec startseconds onset begin",
    "end": "end endtime endsec endseconds offset stop",
}
CLOSE = 0.8  # least difflib ratio of a name and its misspelling


def folded(name: str) -> str:
    """Return a column's name without what differs between spellings of it."""
    return re.sub(r"[\W_]", "", name).casefold()


def renames(columns: Iterable[str], used: Iterable[str] = ()) -> dict[str, str]:
    """Return ``{name: column}`` for each column of korser that a table seems to have under another name.

    Columns that are ``used`` under their own name stand for no other.
    """
    columns, used = list(columns), set(used)
    found = {}
    for name, synonyms in SYNONYMS.items():
        others = [c for c in columns if c not in used and c not in SYNONYMS and _stands_for(c, name, synonyms)]
        if name not in columns and others:
            found[name] = others[0]
    return found


def rename_hint(name: str, columns: Iterable[str]) -> str:
    """Return ``"rename 'spk' to 'speaker', "`` if a table seems to have the column under that name, else ``""``."""
    other = renames(column for column in columns if column != name).get(name)
    return f"rename '{other}' to '{name}', " if other else ""


def _stands_for(column: str, name: str, synonyms: str) -> bool:
    column = folded(column)
    return column in synonyms.split() or bool(difflib.get_close_matches(column, [name], cutoff=CLOSE))
