"""Any corpus in a data folder of Kaldi.

``data_folder`` has ``wav.scp``, or folders with one each, whose names (train, dev, test) are the split. A line of a
file is a key, a blank and a value:

==================  ===============================================================================================
``wav.scp``         audio file of an utterance, or of a recording if there is ``segments``; commands (``sox ... |``)
                    and positions in archives are refused; relative paths start from the option ``audio_folder``, by
                    default ``data_folder``
``segments``        utterance, recording, start and end in seconds (-1: to the end of it) and maybe a channel from 0
``utt2spk``         speaker; unknown if each utterance is its own
``utt2emo``         emotion; also ``utt2emotion``, ``utt2label`` or ``emotion``
``text``            the words
``utt2x, spk2x``    further columns ``x``, such as ``spk2gender``
==================  ===============================================================================================

Columns and the other options are those of :mod:`korser.corpora.csv`.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest, option_folder, row_names
from korser.corpora.readers import split_in_name
from korser.corpora.table import LABELS
from korser.utils.decoding import read_text
from korser.utils.errors import UserError

logger = logging.getLogger(__name__)

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a Kaldi data folder with wav.scp, or folders with one each"
HINT = "relative paths start from --corpus_options='{audio_folder: ...}'"
OTHER = ("spk2utt", "utt2dur", "utt2num_frames", "utt2uniq", "utt2spk")  # not columns, or read by name
EMOTION = ("emo", "label")  # what follows "utt2"

_MAP = re.compile(r"(utt|spk)2(\w+)|()(text|emotion)")
_ARCHIVE = re.compile(r".*\.ark(?::\d+)?")


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    folder = find_manifest(data_folder, LAYOUT)
    folders = [folder] if (folder / "wav.scp").exists() else sorted(scp.parent for scp in folder.glob("*/wav.scp"))
    if not folders:
        raise UserError(f"data_folder={data_folder}: expected {LAYOUT}")
    start = option_folder(audio_folder, folder)
    splits = [split_in_name(part.name) or part.name for part in folders]
    cells = join_cells([_read_folder(part, start) for part in folders], folder, splits)
    usual = {"emotion": next((name for name in EMOTION if name in cells.header), ""), "language": "lang"}
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns, usual=usual)


def _read_folder(folder: Path, start: Path) -> Cells:
    recordings = _read_map(folder / "wav.scp")
    utt2spk = folder / "utt2spk"
    speakers = {key: name for key, (_, name) in _read_map(utt2spk).items()} if utt2spk.exists() else {}
    if len(speakers) > 1 and all(utterance == name for utterance, name in speakers.items()):
        logger.warning("%s names each utterance as its own speaker: the speakers are unknown", utt2spk)
        known = {}
    else:
        known = speakers
    segments = folder / "segments"
    file = segments if segments.exists() else folder / "wav.scp"
    records, numbers, faults, unread = {}, [], [], {}
    for utterance, (number, value) in _read_map(file).items():
        record = {"id": utterance, "path": value, "speaker": known.get(utterance)}
        if file is segments:
            parts = value.split()
            if len(parts) not in (3, 4) or parts[0] not in recordings:
                faults.append(f"{file} row {number}: expected a recording of wav.scp, start and end, not '{value}'")
                continue
            record["path"] = recordings[parts[0]][1]
            record |= _interval(*parts[1:])
        if record["path"].endswith("|") or _ARCHIVE.fullmatch(record["path"]):
            unread[number] = record["path"]
            continue
        records[utterance] = record
        numbers.append(number)
    if unread:
        faults.append(
            f"{file} {row_names(list(unread))}: a command or an archive instead of an audio file, "
            f"'{next(iter(unread.values()))}', which korser does not run or read: write the audio to files (wav-copy)"
        )
    for name in sorted(os.listdir(folder)):
        match = _MAP.fullmatch(name)
        if match and name not in OTHER:
            key, column = match[1] or "utt", match[2] or match[4]
            values = _read_map(folder / name)
            for utterance, record in records.items():
                entry = values.get(utterance if key == "utt" else speakers.get(utterance))
                record.setdefault(column, entry and entry[1])
    return Cells.of_records(file, start, list(records.values()), numbers, faults=faults, hint=HINT)


def _interval(start: str, end: str, channel: str | None = None) -> dict[str, str | None]:
    """Return the cells of a segment; empty for a whole recording."""
    end = None if end.startswith("-") else end
    return {"start": start if end or start.strip("0.") else None, "end": end, "channel": channel}


def _read_map(file: Path) -> dict[str, tuple[int, str]]:
    """Return ``{key: (number of the line, value)}``."""
    found = {}
    for number, line in enumerate(read_text(file).split("\n"), 1):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key in found:
            raise UserError(f"{file} rows {found[key][0]}, {number}: '{key}' is used twice: remove one of them")
        if key:
            found[key] = (number, value.strip())
    return found
