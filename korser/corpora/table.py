"""Find files, build and check tables: helpers of corpus adapters."""

from __future__ import annotations

import difflib
import logging
import os
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.cells import identify, may_mean_unknown, means_unknown
from korser.corpora.codes import lookup_code
from korser.corpora.segments import sources
from korser.utils.errors import UserError
from korser.utils.files import walk_files
from korser.utils.notes import Note
from korser.utils.text import did_you_mean, plural, shorten, yaml_text

__all__ = [
    "LABELS",
    "SIMILAR",
    "apply_label_map",
    "check_labels",
    "find_files",
    "find_table",
    "in_order",
    "make_table",
    "read_names",
    "similar_labels",
    "similar_speakers",
    "warn_of_typos",
]

logger = logging.getLogger(__name__)

PERSON_WORDS = ("s", "spk", "spkr", "speaker", "actor", "actress", "subject", "subj", "id", "no", "nr", "화자", "배우")
LABELS = ("emotion", "gender", "intensity")  # label columns that every part of korser knows
SIMILAR = 0.8  # least difflib ratio of a label and its misspelling: happiness must not suggest sadness
ABBREVIATIONS = {"f": "female", "m": "male", "woman": "female", "man": "male", "여": "여자", "남": "남자"}
QUOTE = "YAML reads 01, yes, on and 1:30 as numbers and truth values: put such labels in quotation marks"
RARER = 5  # a label so many times rarer than one of almost the same name may be a typo


def in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Return labels sorted, as numbers if all are numbers."""
    labels = sorted(labels)
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(labels)


def find_files(
    data_folder: str | Path, pattern: re.Pattern, *, layout: str, required: bool = True
) -> list[tuple[Path, re.Match]]:
    """Return the files below a folder whose names match, absolute and sorted, and the matches.

    The pattern must match the full file name; one with a slash must match the names of folders above it, too.

    Raises
    ------
    UserError
        If the folder is missing, or no file matches and some are required; states the expected ``layout``.
    """
    folder = Path(os.path.expanduser(data_folder)).resolve() if data_folder else None
    if folder is None or not folder.is_dir():
        raise UserError(f"data_folder={data_folder}: not a folder; expected {layout}")
    with_folders = "/" in pattern.pattern
    if with_folders:
        pattern = re.compile(rf"(?:.*/)?(?:{pattern.pattern})", pattern.flags)
    found, others = [], []
    for root, names in walk_files(folder):
        for name in names:
            composed = unicodedata.normalize("NFC", f"{root}/{name}" if with_folders else name)  # unlike on macOS
            match = pattern.fullmatch(composed)
            (found if match else others).append((Path(root) / name, match))
    if required and not found:
        has = "no files"
        if others:
            has = f"{plural(len(others), 'other file')} such as {min(others)[0].relative_to(folder)}"
        raise UserError(f"data_folder={folder}: does not contain the expected files: {layout}; it has {has}")
    return sorted(found, key=lambda item: item[0])


def read_names(
    data_folder: str | Path,
    pattern: str,
    codes: Mapping[str, Mapping[str, str | None]],
    columns: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
    *,
    layout: str,
) -> pd.DataFrame:
    """Return the table of a corpus whose file names state the speaker and other columns.

    Parameters
    ----------
    data_folder : str or Path
    pattern : str
        Regular expression of the file names without their ending, WAV or FLAC; see :func:`find_files`. Its named groups
        are columns, but for those whose names begin with ``_``.
    codes : dict of str to (dict of str to str or None)
        ``{task: {code: class}}``; if a group of the pattern is a task, its codes are replaced by classes.
    columns : callable, optional
        ``columns(row)`` returns the columns of a file, or None to leave it out. The row has ``id`` (the name of the
        file), ``path``, ``speaker`` and a column for each task and group; None if the name does not state it.
    layout : str
        The expected layout, for errors.
    """
    rows, left_out = [], []
    for path, match in find_files(data_folder, re.compile(rf"(?:{pattern})\.(?i:wav|flac)"), layout=layout):
        groups = match.groupdict()
        row = {"id": path.stem, "path": str(path), "speaker": None, **dict.fromkeys(codes), **groups}
        row = columns(row) if columns else row
        if row is None:
            left_out.append(path.stem)
            continue
        labels = {task: lookup_code(codes[task], row[task], path, task) for task in codes if task in groups}
        rows.append({name: value for name, value in {**row, **labels}.items() if not name.startswith("_")})
    if left_out:
        logger.info("left out, as broken or copies: %s", shorten(left_out))
    return make_table(rows)


def find_table(data_folder: str | Path, name: str) -> Path | None:
    """Return the path of a table in the corpus's folder, in the one above it or at any depth below; None if absent."""
    folder = Path(os.path.expanduser(data_folder)).resolve()
    for file in (folder / name, folder.parent / name):
        if file.is_file():
            return file
    return min(folder.rglob(name), default=None)


def make_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return rows (``id``, ``path``, ``speaker``, labels, extras) as a table sorted by id; missing values are None.

    Of rows with the same id the first is kept: archives that contain a folder twice are common.
    """
    data = pd.DataFrame(rows, dtype=object)
    data = data.where(data.notna(), None)
    copies = data["id"].duplicated()
    if copies.any():
        logger.warning("%d duplicate ids; keeping the first file of each", copies.sum())
    return data[~copies].sort_values("id", ignore_index=True)


def apply_label_map(
    data: pd.DataFrame,
    classes: Mapping[str, tuple[str, ...]],
    label_map: Mapping[str, Any] | None,
    raters: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, tuple[str, ...]]:
    """Rename labels in place, and votes in the columns of ``raters``, as :func:`korser.corpora.load_corpus` describes.

    Returns the classes of each task after renaming, in the old order; names for labels that were no classes come last.

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
            raise UserError(f"label_map.{task}={renames!r}: expected pairs {{old: new}}")
        for old, new in renames.items():
            if isinstance(new, (dict, list)):
                raise UserError(f"label_map.{task}.{old}={new!r}: expected the name of a class, or null to drop it")
        keys = {identify(old): old for old in renames}
        for old in renames:
            same = keys[identify(old)]
            if same is not old:
                raise UserError(f"label_map.{task}: '{old}' and '{same}' are the same label: state it once")
        renames = {identify(old): identify(new) for old, new in renames.items()}
        columns = [task, *(raters or {}).get(task, ())]
        known = dict.fromkeys([*classes[task], *(label for name in columns for label in data[name].dropna().unique())])
        for old in renames:
            if old not in known:
                hint = f"; {QUOTE}" if not isinstance(keys[old], str) else ""
                raise UserError(f"label_map.{task}: there is no label '{old}'{did_you_mean(old, known, SIMILAR)}{hint}")
        for name in columns:
            data[name] = pd.Series([renames.get(label, label) for label in data[name]], index=data.index, dtype=object)
        renamed = [renames.get(c, c) for c in classes[task]] + list(renames.values())
        classes[task] = tuple(dict.fromkeys(c for c in renamed if c is not None))
    return classes


def check_labels(data: pd.DataFrame, classes: Mapping[str, Sequence[str]], locate: Callable[..., str]) -> list[str]:
    """Find labels that are no classes, and files with two labels.

    Returns one line per fault with the place, by ``locate(*ids)``, the label and the fix.
    """
    faults = []
    named = data.assign(path=list(map(str, sources(data))))
    copies = named[named["path"].duplicated(keep=False)].groupby("path", sort=False)
    for task, known in classes.items():
        unknown = data[data[task].notna() & ~data[task].isin(known)]
        for label, rows in unknown.groupby(task, sort=False):
            faults.append(
                f"{locate(*rows['id'].iloc[:1])}: unknown {task} label '{label}' in {len(rows)} of {len(data)} "
                f"utterances{did_you_mean(label, known, SIMILAR)}: rename it by "
                f"label_map={{{task}: {{{yaml_text(label)}: ...}}}}, or drop it with null"
            )
        for path, rows in copies:
            rows = rows[rows[task].notna()].drop_duplicates(task)
            if len(rows) > 1:
                ids, labels = rows["id"].tolist(), rows[task].tolist()
                faults.append(
                    f"{locate(*ids[:2])}: '{ids[0]}' and '{ids[1]}' are the same file, {path}, labelled {task} "
                    f"{labels[0]} and {labels[1]}: keep the correct one"
                )
    return faults


def warn_of_typos(
    data: pd.DataFrame, classes: Mapping[str, Sequence[str]], sorted_tasks: Sequence[str], locate: Callable[..., str]
) -> None:
    """Warn of classes and speakers whose names are nearly the same, and of classes without utterances.

    The classes of ``sorted_tasks`` were taken from the data; for ``locate`` see :func:`check_labels`.
    """
    for task, labels in classes.items():
        counts = data[task].value_counts()
        if task not in sorted_tasks:
            absent = [label for label in labels if label not in counts]
            if absent and len(counts):
                logger.warning("classes of %s without utterances: %s", task, ", ".join(absent))
            continue
        _warn_of_rare_neighbours(data, task, counts, locate)
        _warn_of_doubtful(counts, task)
    for note in (similar_labels(data, sorted_tasks), similar_speakers(data)):
        if note is not None:
            logger.warning("%s", note)


def _warn_of_doubtful(counts: pd.Series, task: str) -> None:
    """Warn of labels that often stand for a missing value, but may be meant."""
    for name in counts.index:
        if means_unknown(name) or name.casefold() == "na":
            logger.warning(
                "%s '%s' of %s: if it means unknown, map it by --label_map='{%s: {%s: null}}'",
                task,
                name,
                plural(counts[name], "utterance"),
                task,
                yaml_text(name),
            )


def _warn_of_rare_neighbours(data: pd.DataFrame, task: str, counts: pd.Series, locate: Callable[..., str]) -> None:
    """Warn of each label that is much rarer than one of almost the same name."""
    for label, count in counts.items():
        near = [other for other in counts.index if counts[other] >= RARER * count and _almost_equal(label, other)]
        if near:
            logger.warning(
                "%s: %s label '%s' (%s) is almost '%s' (%s); if it is a typo: --label_map='{%s: {%s: %s}}'",
                locate(*data["id"][data[task] == label][:3]),
                task,
                label,
                plural(count, "utterance"),
                near[0],
                plural(counts[near[0]], "utterance"),
                task,
                yaml_text(label),
                yaml_text(near[0]),
            )


def _almost_equal(one: str, other: str) -> bool:
    """Return whether one or two letters (of Hangul: parts of a syllable) differ, as by a typo; not in numbers."""
    shorter, longer = sorted((unicodedata.normalize("NFD", _plain_label(name)) for name in (one, other)), key=len)
    if shorter == longer or longer.endswith(shorter) or any(map(str.isdecimal, shorter + longer)):
        return False  # male and female, 1 and 10
    return difflib.SequenceMatcher(None, shorter, longer).ratio() >= SIMILAR


def similar_labels(data: pd.DataFrame, tasks: Iterable[str]) -> Note | None:
    """Return a warning about classes of some tasks whose names differ in capitals, spaces, zeros or short forms."""
    found = {}
    for task in tasks:
        counts = data[task].value_counts()
        labels = sorted(counts.index, key=lambda label: (-counts[label], label != label.lower(), label))
        groups = _similar(labels, _plain_label)
        renames = [f"{yaml_text(label)}: {yaml_text(first)}" for first, *others in groups for label in others]
        if renames:
            found[task] = f"{task}: {{{', '.join(renames)}}}"
    if not found:
        return None
    return Note(
        "similar_labels",
        f"NAMES OF CLASSES: classes of {' and '.join(found)} are likely the same (capitals, spaces, numbers or short "
        f"forms); to merge them: --label_map='{{{', '.join(found.values())}}}'",
    )


def similar_speakers(data: pd.DataFrame) -> Note | None:
    """Return a warning about speakers whose names are nearly the same, or do not name a person.

    Names are nearly the same if they differ in capitals, spaces, punctuation, leading zeros, Unicode forms, a word for
    a person (``07``, ``S07``, ``actor 07``), or the order of parts without digits (``kim-minji``, ``minji kim``).
    """
    names = [str(name) for name in data["speaker"].dropna().unique()]
    together = {"".join(parts): parts for parts in map(_name_parts, names) if len(parts) > 1}

    def plain(name: str) -> str:
        parts = _name_parts(name)
        if any(part.isdecimal() for part in parts):
            return " ".join(part.lstrip("0") or "0" for part in parts if part not in PERSON_WORDS)
        return " ".join(sorted(together.get("".join(parts), parts))) or name  # KimMinji is kim minji

    groups = _similar(names, plain)
    found = [f"{' and '.join(group)} may be one person" for group in groups if group[1:]]
    found += [f"{name} may mean that the speaker is not known" for name in names if may_mean_unknown(name)]
    if not found:
        return None
    return Note(
        "similar_speakers",
        f"NAMES OF SPEAKERS: {shorten(found)}; each name counts as one person, who is in one split: correct the names, "
        "or leave the cell empty",
    )


def _similar(names: Iterable[str], plain: Callable[[str], str]) -> list[list[str]]:
    """Group names with the same plain form."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(plain(name), []).append(name)
    return list(groups.values())


def _plain_label(name: str) -> str:
    """Return a name without what may vary: capitals, spaces, zeros (Excel drops them), decimal commas, short forms."""
    text = "".join(unicodedata.normalize("NFKC", name).casefold().split())
    text = re.sub(r"(?<![\d.])0+(?=\d)", "", re.sub(r"(?<=\d),(?=\d)", ".", text))
    text = re.sub(r"(\.\d*?)0+(?!\d)", r"\1", text).removesuffix(".")
    return ABBREVIATIONS.get(text, text)


def _name_parts(name: str) -> list[str]:
    """Return the words and numbers of a name."""
    return re.findall(r"[^\W\d_]+|\d+", unicodedata.normalize("NFKC", name).casefold())
