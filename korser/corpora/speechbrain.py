"""Any corpus described by a JSON or CSV manifest of SpeechBrain.

``data_folder`` is a file, or a folder with one per split (``train.json``, ``valid.json``, ``test.json``, or ``.csv``),
whose names are the split. The key of a JSON entry or the column ``ID`` is the id, ``wav`` the audio file, ``spk_id``
the speaker, and ``emo`` the emotion; other names are given by the option ``columns`` (:mod:`korser.corpora.csv`).
``start`` and ``stop`` count samples, also in ``{"file": ..., "start": ..., "stop": ...}``.

Placeholders of paths, ``{data_root}`` in JSON and ``$data_root`` in CSV, and relative paths mean the option
``audio_folder`` (``{data_root: folder, ...}`` if there are several), by default the folder of the manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import soundfile

from korser.corpora.csv import read_csv_cells
from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest, option_folder
from korser.corpora.readers import read_json_file, split_in_name
from korser.corpora.table import LABELS
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a JSON or CSV manifest of SpeechBrain, or a folder with train.json (or .csv) and so on"
USUAL = {"speaker": "spk_id", "emotion": "emo"}
HINT = "placeholders and relative paths start from --corpus_options='{audio_folder: ...}'"

_PLACEHOLDERS = {".json": re.compile(r"\{(\w+)\}"), ".csv": re.compile(r"\$([\w.]+)")}
_UNUSED = re.compile(r"duration|length|\w+_format|\w+_opts")  # what the library reads or ignores


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    place = find_manifest(data_folder, LAYOUT)
    columns = dict(columns) if isinstance(columns, dict) else columns
    path_column = columns.pop("path", "wav") if isinstance(columns, dict) else "wav"
    files = _find_files(place)
    parts = []
    for file in files:
        roots = audio_folder if isinstance(audio_folder, dict) else {}
        start = option_folder(None if roots else audio_folder, file.parent)
        records, numbers = [], []
        for number, key, entry in _read_entries(file):
            record = {name: value for name, value in entry.items() if not _UNUSED.fullmatch(name)}
            audio = record.pop(path_column, None)
            if isinstance(audio, dict):
                record |= {name: audio.get(name) for name in ("start", "stop")}
                audio = audio.get("file")
            if not isinstance(audio, str):
                raise UserError(
                    f"{file} row {number} ('{key}'): expected one audio file as '{path_column}'"
                    f"{did_you_mean(path_column, entry)}; name another by --corpus_options='{{columns: {{path: ...}}}}'"
                )
            path = _fill(audio, _PLACEHOLDERS[file.suffix], roots, start, f"{file} row {number}")
            interval = _seconds(start / path, record.pop("start", None), record.pop("stop", None))
            records.append({"id": key, "path": path, **interval, **record})
            numbers.append(number)
        parts.append(Cells.of_records(file, start, records, numbers, hint=HINT))
    cells = join_cells(parts, place, [split_in_name(file.stem) for file in files])
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns, usual=USUAL)


def _find_files(place: Path) -> list[Path]:
    """Return the manifests of a folder whose names have a split, or the one that is given."""
    if place.is_file():
        if place.suffix not in _PLACEHOLDERS:
            raise UserError(f"data_folder={place}: expected {LAYOUT}")
        return [place]
    for suffix in _PLACEHOLDERS:
        found = [file for file in sorted(place.glob(f"*{suffix}")) if split_in_name(file.stem)]
        if found:
            return found
    raise UserError(f"data_folder={place}: expected {LAYOUT}")


def _read_entries(file: Path) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yield number, id and fields of the entries."""
    if file.suffix == ".json":
        entries = read_json_file(file)
        if not isinstance(entries, dict) or not all(isinstance(entry, dict) for entry in entries.values()):
            raise UserError(f"{file}: expected {{id: {{wav: ..., spk_id: ..., emo: ...}}}}, as SpeechBrain writes it")
        yield from ((number, key, entry) for number, (key, entry) in enumerate(entries.items(), 1))
        return
    cells = read_csv_cells(file, blanks=False)
    if "ID" not in cells.header:
        raise UserError(f"{file} has no column 'ID', as SpeechBrain needs: --corpus=csv reads other tables")
    for number, row in zip(cells.numbers, cells.rows):
        entry = dict(zip(cells.header, row))
        yield number, entry.pop("ID"), entry


def _fill(path: str, pattern: re.Pattern, roots: Mapping[str, str], start: Path, row: str) -> str:
    def folder(match: re.Match) -> str:
        if roots and match[1] not in roots:
            raise UserError(f"{row}: corpus_options.audio_folder has no '{match[1]}'{did_you_mean(match[1], roots)}")
        return str(option_folder(roots.get(match[1]), start))

    return pattern.sub(folder, path)


def _seconds(path: Path, start: Any, stop: Any) -> dict[str, float]:
    """Return a part of a recording in seconds; stop at the start means the end, as in SpeechBrain."""
    try:
        start, stop = float(start or 0), float(stop or 0)
        if stop <= start == 0:
            return {}
        rate = soundfile.info(path).samplerate
    except (ValueError, TypeError, soundfile.LibsndfileError):  # a missing file is reported with all others
        return {}
    return {"start": start / rate, **({"end": stop / rate} if stop > start else {})}
