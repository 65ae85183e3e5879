"""The utterances that models are wrong about with the highest probability, and their audio."""

import base64
import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import soundfile

from korser.comparison import tables
from korser.data.audio import read_audio
from korser.frontend.base import SAMPLE_RATE
from korser.utils.errors import UserError

MEGABYTE = 2**20
WRONG = 6  # utterances shown of each model
ABOUT = ("gender", "age", "intensity", "sentence")  # columns that say who spoke, and what, in this order


class Clips:
    """Audio for the page, each utterance once, up to a total size."""

    def __init__(self, wanted, limit):
        self.wanted, self.limit = wanted, limit
        self.size = 0
        self.missing = 0
        self.left_out = 0
        self.found = {}

    @property
    def megabytes(self):
        return f"{self.size / MEGABYTE:.1f}"

    @property
    def limit_megabytes(self):
        return f"{self.limit / MEGABYTE:g}"

    def get(self, path):
        """A ``data:`` address of the audio as FLAC, or None."""
        if not self.wanted:
            return None
        if path not in self.found:
            self.found[path] = self._encode(path)
        return self.found[path]

    def _encode(self, path):
        try:
            samples = read_audio(path).numpy()
        except UserError:
            self.missing += 1
            return None
        file = io.BytesIO()
        soundfile.write(file, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        size = len(file.getvalue())
        if self.size + size > self.limit:
            self.left_out += 1
            return None
        self.size += size
        return f"data:audio/flac;base64,{base64.b64encode(file.getvalue()).decode()}"


def confidently_wrong(model, task, n=WRONG):
    """The utterances that a model takes for another class with the highest probability.

    Parameters
    ----------
    model : korser.runs.pool.ModelPredictions
    task : str
    n : int

    Returns
    -------
    pandas.DataFrame
        At most ``n`` rows of the model's table, with ``predicted`` and ``probability``: the class with the highest
        probability, as a mean over seeds, where it is not the right one.
    """
    return _mistakes(model, task).head(n)


def _mistakes(model, task):
    classes = model.tasks[task]["classes"]
    columns = [f"{task}_prob_{c}" for c in classes]
    p = np.mean([model.tables[seed][columns].to_numpy(float) for seed in model.seeds], axis=0)  # (N, K)
    table = model.table.assign(predicted=np.array(classes)[p.argmax(1)], probability=p.max(1))
    wrong = table[table[task].notna() & (table[task] != table["predicted"])]
    return wrong.sort_values(["probability", "id"], ascending=[False, True])


def most_wrong(comparison, clips, n):
    """Utterances that are among the ``n`` worst of some model, with what every model took them for."""
    task = comparison.main
    mistakes = {label: _mistakes(model, task) for label, model in comparison.models.items()}
    chosen = {}
    for label, table in mistakes.items():
        for row in table.head(n).to_dict("records"):
            chosen.setdefault(row["id"], SimpleNamespace(row=row, top_of=[], by=[])).top_of.append(label)
    for label, table in mistakes.items():
        for row in table[table["id"].isin(chosen)].to_dict("records"):
            chosen[row["id"]].by.append((label, row["predicted"], row["probability"]))
    utterances = sorted(chosen.values(), key=lambda u: -max(p for label, _, p in u.by if label in u.top_of))
    shown = []
    for utterance in utterances:
        row = utterance.row
        about = [f"{c} {row[c]}" for c in ABOUT if c in row and c != task and not pd.isna(row[c])]
        speaker = "not known" if pd.isna(row["speaker"]) else row["speaker"]
        shown.append(
            SimpleNamespace(
                id=row["id"],
                speaker=speaker,
                truth=row[task],
                about=", ".join(about),
                seconds=f"{row['duration']:.1f} s",
                audio=clips.get(row["path"]),
                top_of=utterance.top_of,
                by=[(label, c, tables.number(p), p) for label, c, p in sorted(utterance.by, key=lambda b: -b[2])],
            )
        )
    return SimpleNamespace(models=list(mistakes), utterances=shown)
