"""A corpus in the form of EmoBox: lines of JSON, its label map, speakers and folds.

``data_folder`` is the folder of one corpus in a copy of https://github.com/emo-box/EmoBox, ``EmoBox/data/iemocap``, or
one of its ``.jsonl`` files. ``emo``, renamed by ``label_map.json`` (or ``label_dict.json``), is the emotion;
``data.seg.wrd.stm`` has the speakers; ``start_time`` and ``end_time`` are seconds.

Options, besides those of :mod:`korser.corpora.csv`:

``fold``
    Its ``fold_1``, ... as the split. Without it: the only fold as the split, or, of several, the number of the fold
    that tests an utterance as ``fold``.
``audio_folder``
    The folder that stands for ``downloads/<dataset>`` in its paths; by default ``EmoBox/downloads/<dataset>``.
``labels``
    ``mapped`` or ``own``, without the label map, which merges some classes.

Known errors: the speaker of IEMOCAP is the prefix of the dialogue, which mixes two people; it is corrected here.
MESD, MER2023 and RESD have no speakers, and many folds share speakers between training and test, which
``split.protocol: manifest`` refuses.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from korser.corpora.codes import check_option
from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest, option_folder
from korser.corpora.readers import read_json_file, read_json_lines
from korser.corpora.table import LABELS
from korser.utils.decoding import read_text
from korser.utils.errors import UserError
from korser.utils.text import did_you_mean, shorten

logger = logging.getLogger(__name__)

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "a folder of EmoBox, such as EmoBox/data/iemocap with iemocap.jsonl, or a .jsonl file in it"
USUAL = {"emotion": "emo", "start": "start_time", "end": "end_time"}
HINT = "its folder downloads/<dataset> is elsewhere: state it by --corpus_options='{audio_folder: ...}'"
# of the file or of all rows (a channel is 1, or 3 in MELD, and no position)
UNUSED = ("key", "wav", "dataset", "type", "sample_rate", "num_frame", "task", "length", "channel")
NO_SPEAKERS = ("mesd", "mer2023", "resd")  # Female, Male and Child; one per file
SPLITS = ("train", "valid", "test")

_SPEAKER = re.compile(r"(?P<key>.+?)\s+\d+\s+(?P<speaker>.+?)\s+[\d.]+\s+[\d.]+\s+<")  # both may hold blanks
_IEMOCAP = re.compile(r".*(Ses\d\d)[FM]_.*_([FM])[^_]*")  # the second letter is who speaks


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
    fold: int | str | None = None,
    audio_folder: str | None = None,
    labels: str = "mapped",
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    check_option("labels", labels, ("mapped", "own"))
    place = find_manifest(data_folder, LAYOUT)
    folder = place if place.is_dir() else place.parent
    folder = folder.parent if folder.name.startswith("fold_") else folder
    files = {place: {}} if place.is_file() else _find_lists(folder, fold)
    root = folder.parent.parent
    start = option_folder(audio_folder, root / "downloads" / folder.name)
    speakers = _read_speakers(folder / "data.seg.wrd.stm")
    names = _read_label_map(folder) if labels == "mapped" else {}
    parts, unmapped = [], {}
    for file, known in files.items():
        records, numbers = read_json_lines(file)
        rows = []
        for number, entry in zip(numbers, records):
            key, audio, label = (entry.get(name) for name in ("key", "wav", "emo"))
            if not (isinstance(key, str) and isinstance(audio, str)):
                raise UserError(f"{file} row {number}: expected key, wav and emo, as EmoBox writes them")
            prefix, inside, rest = audio.partition(f"downloads/{entry.get('dataset', folder.name)}/")
            row = {"id": key, "path": rest if inside and not prefix else str(root / audio), **known}
            row |= {"speaker": speakers.get(key), **{k: v for k, v in entry.items() if k not in UNUSED}}
            if isinstance(label, str) and names:
                row["emo"] = names.get(label, names.get(label.casefold()))
                if row["emo"] is None:
                    row["emo"] = unmapped[label] = label
            rows.append(row)
        parts.append(Cells.of_records(file, start, rows, numbers, hint=HINT))
    if unmapped:
        logger.warning("the label map of %s has no %s: kept as they are", folder, shorten(unmapped))
    cells = join_cells(parts, folder)
    _require_one_fold(cells, folder)
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns, usual=USUAL)


def _find_lists(folder: Path, fold: int | str | None) -> dict[Path, dict[str, str]]:
    """Return ``{file: cells of its rows}``: the lists of a fold by split, the test lists of all folds, or all rows."""
    folds = {path.name.removeprefix("fold_"): path for path in folder.glob("fold_*") if path.is_dir()}
    if fold is None and len(folds) == 1:
        (fold,) = folds
    if fold is not None:
        if str(fold) not in folds:
            raise UserError(f"corpus_options.fold={fold}: {folder} has no fold_{fold}{did_you_mean(fold, folds)}")
        lists = {_list_of(folds[str(fold)], split): {"split": split} for split in SPLITS}
    elif folds:
        lists = {
            _list_of(folds[name], "test"): {"fold": name} for name in sorted(folds, key=lambda name: (len(name), name))
        }
    else:
        lists = {folder / f"{folder.name}.jsonl": {}}
    found = {file: cells for file, cells in lists.items() if file is not None and file.exists()}
    if not found:
        raise UserError(f"data_folder={folder}: expected {LAYOUT}")
    missing = {"train", "test"} - {cells["split"] for cells in found.values()} if fold is not None else ()
    if missing:
        raise UserError(f"{folder / f'fold_{fold}'} has no list of its {' and '.join(sorted(missing))} split (.jsonl)")
    return found


def _list_of(folder: Path, split: str) -> Path | None:
    """Return the list of a fold's split; EmoDB has two spellings of each."""
    found = sorted(folder.glob(f"*_{split}_fold*.jsonl"), key=lambda file: ("_fold_" not in file.name, file.name))
    return found[0] if found else None


def _require_one_fold(cells: Cells, folder: Path) -> None:
    if "fold" not in cells.header or "split" in cells.header:
        return
    key, fold = cells.header.index("id"), cells.header.index("fold")
    folds: dict[str | None, str | None] = {}
    for row in cells.rows:
        if folds.setdefault(row[key], row[fold]) != row[fold]:
            raise UserError(
                f"{folder}: '{row[key]}' is tested in the folds {folds[row[key]]} and {row[fold]}: choose one by "
                f"--corpus_options='{{fold: {row[fold]}}}'"
            )


def _read_speakers(file: Path) -> dict[str, str]:
    """Return ``{key: speaker}`` as far as the corpus has speakers."""
    if not file.exists() or file.parent.name in NO_SPEAKERS:
        return {}
    speakers = {}
    for line in read_text(file).splitlines():
        match = _SPEAKER.match(line)
        if match:
            wrong = _IEMOCAP.fullmatch(match["key"]) if file.parent.name == "iemocap" else None
            speakers[match["key"]] = "".join(wrong.groups()) if wrong else match["speaker"].rpartition("/")[2]
    return speakers


def _read_label_map(folder: Path) -> dict[str, str]:
    """Return ``{own word, also in small letters: name}``."""
    for name in ("label_map.json", "label_dict.json"):
        if (folder / name).exists():
            names = read_json_file(folder / name)
            if not isinstance(names, dict):
                raise UserError(f"{folder / name}: expected pairs {{own label: name}}")
            return {**{str(word).casefold(): to for word, to in names.items()}, **names}
    return {}
