"""Tables of the labels of a corpus: by class, speaker, gender, split, duration, loudness, sampling rate."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from korser.data.speaker_groups import natural_order
from korser.utils.table import Table, TableCell
from korser.utils.text import number

__all__ = ["format_table", "label_table", "level_table", "numbers_table", "speaker_table"]

UNLABELLED = "(no label)"
UNKNOWN = "(unknown)"
SHOWN = 30  # rows of a table that is not folded
MOST_COLUMNS = 8  # values of a column that get columns of their own


def numbers_table(data: pd.DataFrame, classes: dict[str, Sequence[str]]) -> Table:
    """Return how many utterances, hours and speakers there are, and how many labels are missing."""
    duration = data["duration"]
    rows = [
        ["utterances", len(data)],
        ["hours", TableCell(duration.sum() / 3600, format="{:.2f}".format)],
        ["speakers", data["speaker"].nunique()],
        ["utterances of unknown speakers", int(data["speaker"].isna().sum())],
        ["shortest, median, longest utterance in s", _spread(duration, "{:.1f}")],
    ]
    rows += [[f"utterances without {task}", int(data[task].isna().sum())] for task in classes]
    return Table("The corpus", ["", "value"], rows)


def label_table(data: pd.DataFrame, task: str, classes: Sequence[str]) -> Table:
    """Return utterances, hours and speakers of each class, and its utterances by corpus, gender, split and fold."""
    by = [c for c in ("corpus", "gender", "split", "fold") if c in data and c != task]
    by = [c for c in by if 0 < data[c].nunique() <= MOST_COLUMNS]
    values = [(c, value) for c in by for value in sorted(data[c].dropna().unique(), key=natural_order)]
    rows = []
    for name, part in _by_label(data, task, classes):
        hours = TableCell(part["duration"].sum() / 3600, format="{:.2f}".format)
        counts = [int((part[c] == value).sum()) for c, value in values]
        rows.append([name, len(part), hours, part["speaker"].nunique(), *counts])
    titles = [value if c in ("corpus", "gender") else f"{c} {value}" for c, value in values]
    return Table(f"Utterances by {task}", [task, "utterances", "hours", "speakers", *titles], rows)


def level_table(data: pd.DataFrame, task: str, classes: Sequence[str]) -> Table:
    """Return the median, and the range of nine tenths, of duration, loudness and silence of each class."""
    rows = []
    for name, part in _by_label(data, task, classes):
        row = [name]
        for column, style in (("duration", "{:.2f}".format), ("loudness", "{:.1f}".format), ("silence", number)):
            low, high = part[column].quantile([0.05, 0.95])
            row.append(TableCell(part[column].median(), format=style, detail=f"{style(low)} to {style(high)}"))
        rows.append(row)
    columns = [task, "duration in s", "loudness in dB", "silence"]
    notes = [
        "Median, and the range of nine tenths of the utterances. Loudness: of the frames that are not silent, relative "
        "to full scale. Silence: proportion of frames of 20 ms at least 35 dB below the loudest."
    ]
    return Table(f"Duration, loudness and silence by {task}", columns, rows, notes=notes)


def speaker_table(data: pd.DataFrame, task: str, classes: Sequence[str]) -> Table:
    """Return utterances, minutes and the number of each class of each speaker."""
    present = [name for name in classes if (data[task] == name).any()]
    about = [c for c in ("gender", "age") if c in data and c != task]
    rows = []
    speakers = data.groupby(data["speaker"].where(data["speaker"].notna(), UNKNOWN))
    for speaker, part in sorted(speakers, key=lambda item: natural_order(item[0])):
        details = [", ".join(map(str, part[c].dropna().unique())) or None for c in about]
        minutes = TableCell(part["duration"].sum() / 60, format="{:.1f}".format)
        counts = [int((part[task] == name).sum()) for name in present]
        rows.append([speaker, *details, len(part), minutes, *counts, int(part[task].isna().sum())])
    columns = ["speaker", *about, "utterances", "minutes", *present, f"no {task}"]
    return Table(f"Speakers, and their utterances by {task}", columns, rows, folded=len(rows) > SHOWN)


def format_table(data: pd.DataFrame, task: str, classes: Sequence[str]) -> Table:
    """Return the number of files with each sampling rate and number of channels, and bandwidth, of each class."""
    kinds = sorted(set(zip(data["rate"], data["channels"])))
    rows = []
    for name, part in _by_label(data, task, classes):
        counts = [int(((part["rate"] == rate) & (part["channels"] == channels)).sum()) for rate, channels in kinds]
        rows.append([name, _spread(part["bandwidth"], "{:.0f}", (0.05, 0.5, 0.95)), *counts])
    titles = [f"{rate} Hz, {'mono' if channels == 1 else f'{channels} channels'}" for rate, channels in kinds]
    notes = [
        "Bandwidth: the frequency below which 99.9 % of the energy of the differentiated samples lies; 5 %, median and "
        "95 % of the files."
    ]
    columns = [task, "bandwidth in Hz", *titles]
    return Table(f"Sampling rate and bandwidth by {task}", columns, rows, notes=notes)


def _by_label(data: pd.DataFrame, task: str, classes: Sequence[str]) -> list[tuple[str, pd.DataFrame]]:
    """Return the utterances of each class, and of those without a label if there are any."""
    parts = [(name, data[data[task] == name]) for name in classes]
    missing = data[data[task].isna()]
    return [*parts, (UNLABELLED, missing)] if len(missing) else parts


def _spread(values: pd.Series, style: str, quantiles: Sequence[float] = (0, 0.5, 1)) -> str:
    return ", ".join(style.format(value) for value in values.quantile(quantiles)) if len(values) else ""
