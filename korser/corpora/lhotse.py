"""Any corpus described by manifests of lhotse.

``data_folder`` is a file of cuts, or a folder with files of cuts (``*cuts*``), or else with pairs of ``*recordings*``
and ``*supervisions*`` files (``.jsonl``, ``.jsonl.gz`` or ``.json``); train, dev or test in a file's name is the split.
Every supervision is an utterance: its ``id``, ``speaker``, ``gender``, ``text``, ``language``, its place in the
recording, and what stands in ``custom``, such as ``emotion``, or in ``custom`` of its cut. Of a cut without
supervisions only its own ``custom`` is known.

Relative paths of recordings start from the option ``audio_folder`` (for lhotse: where it was run), by default the
manifest's folder. The other options are those of :mod:`korser.corpora.csv`. Read without the library, which would
run commands. Refused: mixed and padded cuts, supervisions of some of several channels, recordings that are not files,
and augmented ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest, option_folder
from korser.corpora.readers import as_written, read_json_file, read_json_lines, split_in_name
from korser.corpora.table import LABELS
from korser.utils.errors import UserError

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "cuts of lhotse, or a folder with cuts or with recordings and supervisions (.jsonl, .jsonl.gz or .json)"
HINT = "lhotse's paths start from where it was run: state that by --corpus_options='{audio_folder: ...}'"
FIELDS = ("id", "speaker", "gender", "text", "language")  # of a supervision
SUFFIXES = (".jsonl.gz", ".jsonl", ".json")
SAME = 1e-3  # seconds by which the end of a supervision may differ from that of its recording


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    audio_folder: str | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    place = find_manifest(data_folder, LAYOUT)
    start = option_folder(audio_folder, place if place.is_dir() else place.parent)
    files = [place] if place.is_file() else [file for file in sorted(place.iterdir()) if file.name.endswith(SUFFIXES)]
    with as_written(place, "lhotse"):
        parts = [_read_cuts(file, start) for file in files if place.is_file() or "cuts" in file.name]
        if not parts:
            parts = [_read_pair(file, start) for file in files if "supervisions" in file.name]
    if not parts:
        raise UserError(f"data_folder={data_folder}: expected {LAYOUT}")
    cells = join_cells(parts, place, [split_in_name(part.file.name) for part in parts])
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns)


def _read_cuts(file: Path, start: Path) -> Cells:
    rows = []
    for number, cut in _read(file, "cuts"):
        row = f"{file} row {number}"
        kind = cut.get("type", "MonoCut") if "recording" in cut or "tracks" in cut else "cut without a recording"
        if kind not in ("MonoCut", "MultiCut", "Cut"):
            raise UserError(f"{row}: a {kind}: write the audio of such cuts to files (cuts.save_audios)")
        own = {"id": cut["id"], "start": 0, "duration": cut.get("duration"), "channel": cut.get("channel")}
        for supervision in cut.get("supervisions") or [own]:
            with as_written(row, "lhotse"):
                inside = {**supervision, "custom": {**(cut.get("custom") or {}), **(supervision.get("custom") or {})}}
                begin, end = supervision["start"], supervision["start"] + supervision["duration"]
                inside["start"] = cut["start"] + max(begin, 0)  # a supervision may exceed its cut
                inside["duration"] = cut["start"] + min(end, cut["duration"]) - inside["start"]
                rows.append((number, _utterance(inside, cut["recording"], row)))
    return _cells(file, start, rows)


def _read_pair(file: Path, start: Path) -> Cells:
    """Read a file of supervisions and the recordings of the same name."""
    other = file.with_name(file.name.replace("supervisions", "recordings"))
    if not other.exists():
        raise UserError(f"{file} has no recordings beside it: expected {other.name}")
    recordings = {recording["id"]: recording for _, recording in _read(other, "recordings")}
    rows = []
    for number, supervision in _read(file, "supervisions"):
        row = f"{file} row {number}"
        recording = recordings.get(supervision["recording_id"])
        if recording is None:
            raise UserError(f"{row}: {other.name} has no recording '{supervision['recording_id']}'")
        with as_written(row, "lhotse"):
            rows.append((number, _utterance(supervision, recording, row)))
    return _cells(file, start, rows)


def _read(file: Path, what: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield number and fields of the entries of a file."""
    if file.suffix == ".json":
        entries = read_json_file(file)
        numbers = range(1, len(entries) + 1) if isinstance(entries, list) else ()
    elif file.name.endswith(SUFFIXES):
        entries, numbers = read_json_lines(file)
    else:
        raise UserError(f"{file}: expected {LAYOUT}; convert others by: lhotse copy {file.name} {file.stem}.jsonl.gz")
    needed = {
        "cuts": ("id",),
        "recordings": ("id", "sources"),
        "supervisions": ("id", "recording_id", "start", "duration"),
    }[what]
    for number, entry in zip(numbers, entries):
        if not isinstance(entry, dict) or not all(key in entry for key in needed):
            raise UserError(f"{file} row {number}: expected {what} of lhotse, with {', '.join(needed)}")
        yield number, entry


def _utterance(supervision: Mapping[str, Any], recording: Mapping[str, Any], row: str) -> dict[str, Any]:
    """Return the cells of an utterance; ``supervision`` is placed in the recording."""
    if any(transform.get("name") != "Resample" for transform in recording.get("transforms") or []):
        raise UserError(f"{row}: the recording is augmented (transforms), which korser does not do: list the original")
    custom = {k: v for k, v in (supervision.get("custom") or {}).items() if not isinstance(v, dict)}  # no arrays
    record = {**custom, **{name: supervision[name] for name in FIELDS if supervision.get(name) is not None}}
    record["path"], record["channel"] = _find_channel(recording, supervision.get("channel"), row)
    start, end = float(supervision["start"]), float(supervision["start"]) + float(supervision["duration"])
    whole = float(recording.get("duration") or float("inf"))
    if start > 0 or end < whole - SAME:
        record |= {"start": start, "end": round(end, 9)}
    return record


def _find_channel(recording: Mapping[str, Any], channel: Any, row: str) -> tuple[str, int | None]:
    """Return the file of a channel, and the channel's position in it; None if it has no other."""
    sources = recording["sources"]
    wrong = [source.get("type") for source in sources if source.get("type") != "file"]
    if wrong:
        raise UserError(f"{row}: audio of the type '{wrong[0]}', but korser reads files: write it to files")
    channels = channel if isinstance(channel, list) else [channel]
    for source in sources:
        own = source.get("channels") or [0]
        if len(sources) == 1 and (channel is None or len(own) == 1 or sorted(own) == sorted(channels)):
            return source["source"], None
        if len(channels) == 1 and channels[0] in own:
            return source["source"], own.index(channels[0]) if len(own) > 1 else None
    raise UserError(f"{row}: channel {channel} is not one channel of one file: make a supervision per channel")


def _cells(file: Path, start: Path, rows: Sequence[tuple[int, dict[str, Any]]]) -> Cells:
    return Cells.of_records(file, start, [record for _, record in rows], [number for number, _ in rows], hint=HINT)
