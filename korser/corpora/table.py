"""What corpus adapters share: finding files, one table, label maps. Not a corpus itself."""

import difflib
import logging
import os
import re
import unicodedata
from pathlib import Path

import pandas as pd

from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

logger = logging.getLogger(__name__)


def nfc(text):
    """Text in Unicode's composed form: macOS writes Hangul names decomposed, others do not."""
    return unicodedata.normalize("NFC", text)


def in_order(labels):
    """Labels sorted, by value if all are numbers.

    Parameters
    ----------
    labels : iterable of str

    Returns
    -------
    tuple of str
    """
    labels = sorted(labels)
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(labels)


def find_files(data_folder, pattern, *, layout):
    """All files below a folder whose names match.

    Parameters
    ----------
    data_folder : str or Path
    pattern : re.Pattern
        Has to match the whole file name.
    layout : str
        The expected layout, for the error.

    Returns
    -------
    list of (Path, re.Match)
        Absolute paths, sorted.

    Raises
    ------
    UserError
        If the folder is missing or no file matches.
    """
    folder = Path(data_folder).expanduser().resolve() if data_folder else None
    if folder is None or not folder.is_dir():
        raise UserError(f"data_folder '{data_folder}' is not a folder: it should hold {layout}")
    found = []
    for root, _, names in os.walk(folder, followlinks=True):
        found += [(Path(root) / name, match) for name in names if (match := pattern.fullmatch(nfc(name)))]
    if not found:
        raise UserError(f"data_folder '{folder}' does not hold the expected files: {layout}")
    return sorted(found, key=lambda f: f[0])


def make_table(rows):
    """Rows as a table sorted by id, missing values None.

    Of rows with the same id the first is kept: archives that hold a folder twice are common.

    Parameters
    ----------
    rows : list of dict
        ``id``, ``path``, ``speaker``, tasks, extras.

    Returns
    -------
    pandas.DataFrame
    """
    data = pd.DataFrame(rows, dtype=object)
    data = data.where(data.notna(), None)
    copies = data["id"].duplicated()
    if copies.any():
        logger.warning("%d files lie there twice; the first of each is used", copies.sum())
    return data[~copies].sort_values("id", ignore_index=True)


def code(table, value, path, what):
    """Look up a code of a file name.

    Raises
    ------
    UserError
        If the code is unknown, naming the file.
    """
    if value not in table:
        raise UserError(f"{path}: unknown {what} code '{value}' in its name (known: {', '.join(table)}): remove it")
    return table[value]


def closest_label(label, known):
    """As :func:`korser.utils.text.nearest`, but only a label spelt nearly the same: 'hapiness' is not 'sadness'."""
    match = difflib.get_close_matches(str(label), known, n=1, cutoff=0.8)
    return f" (did you mean '{match[0]}'?)" if match else f" (known: {', '.join(known)})"


def apply_label_map(data, classes, label_map):
    """Rename labels in place.

    Parameters
    ----------
    data : pandas.DataFrame
    classes : dict of str to tuple of str
        The classes of each task before renaming.
    label_map : dict or None
        ``{task: {old: new or None}}``, see :func:`korser.corpora.load_corpus`.

    Returns
    -------
    dict of str to tuple of str
        The classes after renaming, in the old order; names that replace labels outside the scheme come last.

    Raises
    ------
    UserError
        If the map names an unknown task or label.
    """
    classes = dict(classes)
    for task, renames in (label_map or {}).items():
        if task not in classes:
            raise UserError(f"label_map: the corpus has no task '{task}'{did_you_mean(task, classes)}")
        if not isinstance(renames, dict):
            raise UserError(f"label_map.{task}: write old: new pairs, not {renames!r}")
        renames = {nfc(str(old)): None if new is None else nfc(str(new)) for old, new in renames.items()}
        known = dict.fromkeys([*classes[task], *data[task].dropna().unique()])
        for old in renames:
            if old not in known:
                raise UserError(f"label_map.{task}: there is no label '{old}'{closest_label(old, known)}")
        data[task] = data[task].map(lambda label: renames.get(label, label)).astype(object)
        data[task] = data[task].where(data[task].notna(), None)
        renamed = [renames.get(c, c) for c in classes[task]] + list(renames.values())
        classes[task] = tuple(dict.fromkeys(c for c in renamed if c is not None))
    return classes


def check_labels(data, classes, where):
    """Refuse labels outside the scheme, and a file that has two labels.

    Parameters
    ----------
    data : pandas.DataFrame
    classes : dict of str to tuple of str
    where : callable
        ``where(*rows)`` says where rows of the table were found.

    Raises
    ------
    UserError
        Names the place, the label and the way out.
    """
    copies = data[data["path"].duplicated(keep=False)].groupby("path", sort=False)
    for task, known in classes.items():
        odd = data[data[task].notna() & ~data[task].isin(known)]
        if len(odd):
            row = odd.iloc[0]
            raise UserError(
                f"{where(row)}: unknown {task} label '{row[task]}' in {len(odd)} of {len(data)} utterances (known: "
                f"{', '.join(known)}): rename it with label_map={{{task}: {{{row[task]}: ...}}}}, or drop it with null"
            )
        for path, rows in copies:
            rows = rows[rows[task].notna()].drop_duplicates(task)
            if len(rows) > 1:
                one, other = rows.iloc[0], rows.iloc[1]
                raise UserError(
                    f"{where(one, other)}: '{one['id']}' and '{other['id']}' are the same file, {path}, with the "
                    f"{task} {one[task]} here and {other[task]} there: keep the one that is right"
                )


def warn_of_slips(data, classes, found):
    """Say which classes and speakers look like another one misspelt, and which classes are not there.

    Parameters
    ----------
    data : pandas.DataFrame
    classes : dict of str to tuple of str
    found : sequence of str
        Tasks whose classes are what the corpus holds, and were stated by nobody.
    """
    for task, labels in classes.items():
        counts = data[task].value_counts()
        if task not in found:
            absent = [label for label in labels if label not in counts]
            if absent and len(counts):
                logger.warning("no utterance has the %s %s, which is among the classes", task, ", ".join(absent))
            continue
        labels = sorted(labels, key=lambda label: (-counts.get(label, 0), label != label.lower()))
        renames = [f"{label}: {first}" for first, *others in _alike(labels) for label in others]
        if renames:
            logger.warning(
                "classes of %s differ in capitals, spaces or leading zeros alone; if they are meant to be one: "
                "--label_map='{%s: {%s}}'",
                task,
                task,
                ", ".join(renames),
            )
    speakers = [" and ".join(names) for names in _alike(map(str, data["speaker"].dropna().unique())) if len(names) > 1]
    if speakers:
        logger.warning(
            "speakers %s differ in capitals, spaces or leading zeros alone, and count as different people, who may be "
            "in different parts of a split; if they are one, spell them alike",
            ", ".join(speakers[:3]) + (f" (and {len(speakers) - 3} more)" if len(speakers) > 3 else ""),
        )


def _alike(names):
    """Names in groups that differ in capitals, spaces, leading zeros (Excel drops them) or forms of a character."""
    groups = {}
    for name in names:
        plain = "".join(unicodedata.normalize("NFKC", name).casefold().split())
        groups.setdefault(re.sub(r"(?<![\d.])0+(?=\d)", "", plain), []).append(name)
    return list(groups.values())
