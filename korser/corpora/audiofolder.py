"""Any corpus in the form of an audio folder of the library ``datasets`` of Hugging Face.

``data_folder`` has ``metadata.csv``, ``metadata.jsonl`` or ``metadata.parquet`` (of one kind, also one per folder),
whose column ``file_name`` is relative to it; or, without metadata, folders named as the emotions. Folders called
``train``, ``validation`` or ``test`` are the split. The column ``label`` is the emotion; where its classes are numbers,
their names are taken from the Parquet file or from README.md.

Options are those of :mod:`korser.corpora.csv`. Sets with the audio inside (Parquet files, ``save_to_disk``) have
to be written to files first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from korser.corpora.csv import read_csv_cells
from korser.corpora.manifest import Cells, find_manifest, join_cells, make_manifest
from korser.corpora.readers import (
    class_names,
    decode_classes,
    read_json_lines,
    read_parquet_cells,
    split_in_name,
)
from korser.corpora.table import LABELS
from korser.utils.decoding import read_text
from korser.utils.errors import UserError
from korser.utils.files import walk_files

TASKS = dict.fromkeys(LABELS, ())
IDENTIFIED_BY_FOLDER = True
LAYOUT = "an audio folder with metadata.csv (.jsonl, .parquet), or with a folder of audio files per class"
AUDIO = re.compile(r"[^.].*\.(wav|flac|ogg|opus|mp3|aiff?|pcm)", re.IGNORECASE)
METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".jsonl", ".parquet"))


def prepare(
    data_folder: str | Path,
    tasks: Sequence[str] | None = None,
    classes: Mapping[str, Sequence] | None = None,
    columns: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the table of the corpus; see :mod:`korser.corpora` and :mod:`korser.corpora.csv`."""
    folder = find_manifest(data_folder, LAYOUT)
    folder = folder if folder.is_dir() else folder.parent
    files = sorted(Path(root, name) for root, names in walk_files(folder) for name in names)
    metadata = [file for file in files if file.name in METADATA]
    if len({file.suffix for file in metadata}) > 1:
        found = ", ".join(sorted({file.name for file in metadata}))
        raise UserError(f"{folder} has {found}: expected metadata of one kind: remove the others")
    if metadata:
        names = _names_in_readme(folder / "README.md")
        cells = join_cells([_read_metadata(file, folder, names) for file in metadata], folder)
    else:
        cells = _read_class_folders(folder, files)
    return make_manifest(cells, tasks=tasks, classes=classes, columns=columns, usual={"emotion": "label"})


def _read_metadata(file: Path, folder: Path, names: Mapping[str, list[str]]) -> Cells:
    if file.suffix == ".parquet":
        cells = read_parquet_cells(file, folder, names)
    else:
        if file.suffix == ".jsonl":
            cells = Cells.of_records(file, folder, *read_json_lines(file))
        else:
            cells = read_csv_cells(file)
            cells.folder = folder
        decode_classes(cells, names)
    columns = [name for name in cells.header if name == "file_name" or name.endswith("_file_name")]
    if len(columns) != 1:
        raise UserError(
            f"{file}: expected one column 'file_name' with one audio file per row, not {', '.join(cells.header)}"
        )
    position = cells.header.index(columns[0])
    cells.header[position] = "path"
    inside = file.parent.relative_to(folder)
    for row in cells.rows:
        row[position] = row[position] and (inside / row[position]).as_posix()
    if "split" not in cells.header:
        splits = [_split_of(row[position]) for row in cells.rows]
        if any(splits):
            cells.header.append("split")
            cells.rows = [[*row, split] for row, split in zip(cells.rows, splits)]
    return cells


def _read_class_folders(folder: Path, files: Sequence[Path]) -> Cells:
    """Return the cells of audio files in folders named as their classes."""
    records = []
    for file in files:
        path = file.relative_to(folder)
        classes = [name for name in path.parts[:-1] if not split_in_name(name)]
        if classes and AUDIO.fullmatch(file.name):
            records.append({"path": path.as_posix(), "label": classes[-1], "split": _split_of(path.as_posix())})
    if records:
        return Cells.of_records(folder, folder, records)
    for file in files:
        if file.suffix == ".parquet":
            read_parquet_cells(file, folder)  # which refuses audio in it
        if file.suffix in (".parquet", ".arrow"):
            raise UserError(
                f"{file}: a data set of the library datasets, but korser reads audio files: write the audio to files "
                "and list them in metadata.csv (docs/own-corpora.md shows how)"
            )
    raise UserError(f"data_folder={folder}: expected {LAYOUT}")


def _split_of(path: str | None) -> str | None:
    """Return the split by the folders of a path."""
    return next(filter(None, map(split_in_name, (path or "").split("/")[:-1])), None)


def _names_in_readme(file: Path) -> dict[str, list[str]]:
    """Return the names of classes from the front matter of a README."""
    match = re.match(r"---\n(.*?\n)---", read_text(file), re.DOTALL) if file.exists() else None
    try:
        about: Any = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return {}
    infos = about.get("dataset_info") if isinstance(about, dict) else None
    infos = [info for info in (infos if isinstance(infos, list) else [infos]) if isinstance(info, dict)]
    return next(filter(None, (class_names(info.get("features")) for info in infos)), {})
