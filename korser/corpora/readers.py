"""Read the files of manifests: JSON, JSON lines and Parquet. Nothing is unpickled."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from korser.corpora.manifest import Cells, to_text
from korser.utils.errors import UserError
from korser.utils.files import LARGEST, read_bytes, require_regular
from korser.utils.text import first_line, shorten

__all__ = [
    "as_written",
    "class_names",
    "decode_classes",
    "read_json_file",
    "read_json_lines",
    "read_parquet_cells",
    "split_in_name",
]

SPLIT = re.compile(
    r"(?<![a-z])(?:(?P<train>train(?:ing)?)|(?P<valid>valid(?:ation)?|val|dev(?:elopment)?)|(?P<test>test(?:ing)?|eval))"
    r"(?![a-z])",
    re.IGNORECASE,
)


def split_in_name(name: str) -> str | None:
    """Return train, valid or test if one of them, and one only, is a word of a name.

    Examples
    --------
    >>> split_in_name("cuts_dev-clean.jsonl.gz"), split_in_name("contest.json"), split_in_name("train_test.json")
    ('valid', None, None)
    """
    found = {match.lastgroup for match in SPLIT.finditer(name)}
    return found.pop() if len(found) == 1 else None


@contextmanager
def as_written(place: str | Path, program: str) -> Iterator[None]:
    """Turn errors of values that are missing or of another type than a program writes into a UserError."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise UserError(f"{place} is not as {program} writes it ({reason})") from error


def read_json_file(file: Path) -> Any:
    """Read a JSON file, which may be compressed (``.gz``)."""
    return _parse(file, _read(file), "")


def read_json_lines(file: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the objects of a file with one per line, which may be compressed (``.gz``), and their lines."""
    records, numbers = [], []
    for number, line in enumerate(_read(file).splitlines(), 1):
        if line.strip():
            record = _parse(file, line, f" row {number}")
            if not isinstance(record, dict):
                raise UserError(f"{file} row {number}: expected one JSON object per line, {{...}}")
            records.append(record)
            numbers.append(number)
    return records, numbers


def _read(file: Path) -> bytes:
    limit = LARGEST["table"]
    try:
        data = read_bytes(file, limit)
        if file.suffix == ".gz":
            data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(limit + 1)  # few bytes may unfold into very many
            if len(data) > limit:
                raise UserError(f"{file} unfolds into more than {limit} bytes: divide it")
        return data
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error


def _parse(file: Path, data: bytes, place: str) -> Any:
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}{place} is not JSON in UTF-8 ({first_line(error)}): write it again") from None


def read_parquet_cells(file: Path, folder: Path, names: Mapping[str, Sequence[str]] | None = None) -> Cells:
    """Read a Parquet file, whose audio paths start from ``folder``; rows are counted from 1.

    ``names`` are those of the classes of columns of numbers, by default those in the file's metadata, where the library
    ``datasets`` writes them.

    Raises
    ------
    UserError
        If pyarrow is not installed, the file is damaged, or it holds the audio itself.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise UserError(f"{file} is a Parquet file, which needs pyarrow: pip install 'korser[parquet]'") from None
    try:
        require_regular(file, LARGEST["table"])
        table = parquet.read_table(file)
        embedded = [
            field.name  # bytes, or a structure with bytes, as `datasets` stores audio
            for field in table.schema
            if any(str(part.type) in ("binary", "large_binary") for part in field.flatten())
        ]
        if embedded:
            raise UserError(
                f"{file}: column '{embedded[0]}' holds the audio itself, but korser reads audio files: write each to a "
                "file and list the files in a column 'path' (docs/own-corpora.md shows how)"
            )
        header = [name for name in table.column_names if not name.startswith("__index_level_")]  # of pandas
        columns = [[to_text(value) for value in table.column(name).to_pylist()] for name in header]
        metadata = (table.schema.metadata or {}).get(b"huggingface")
    except (ArrowException, OSError, ValueError) as error:
        raise UserError(f"{file} is not a Parquet table: {first_line(error)}") from error
    rows = [list(row) for row in zip(*columns)]
    cells = Cells(file, folder, header, rows, list(range(1, len(rows) + 1)))
    decode_classes(cells, class_names(json.loads(metadata)["info"]["features"]) if metadata else names or {})
    return cells


def class_names(features: Any) -> dict[str, list[str]]:
    """Return ``{column: names of its classes}`` from the description of a table by the library ``datasets``.

    Both of its forms are understood: ``{"label": {"names": [...], "_type": "ClassLabel"}}`` of Parquet files, and
    ``[{"name": "label", "dtype": {"class_label": {"names": {"0": ...}}}}]`` of README files.
    """
    found = {}
    if isinstance(features, dict):
        features = [{"name": name, "dtype": {"class_label": value}} for name, value in features.items()]
    for feature in features if isinstance(features, list) else []:
        kind = feature.get("dtype") if isinstance(feature, dict) else None
        label = kind.get("class_label") if isinstance(kind, dict) else None
        names = label.get("names") if isinstance(label, dict) else None
        if isinstance(names, dict):
            names = [names[key] for key in sorted(names, key=int)]
        if isinstance(names, list):
            found[feature["name"]] = [str(name) for name in names]
    return found


def decode_classes(cells: Cells, names: Mapping[str, Sequence[str]]) -> None:
    """Replace the numbers of classes by their names, in place; -1 is a missing label."""
    for column, labels in names.items():
        if column not in cells.header:
            continue
        codes = {None: None, "-1": None, **{str(i): to_text(label) for i, label in enumerate(labels)}}
        position = cells.header.index(column)
        wrong = {row[position] for row in cells.rows} - codes.keys() - set(labels)
        if wrong:
            raise UserError(
                f"{cells.file}: column '{column}' has {shorten(sorted(wrong))}: expected a number from 0 to "
                f"{len(labels) - 1}, since its classes are {', '.join(labels)}"
            )
        for row in cells.rows:
            row[position] = codes.get(row[position], row[position])
