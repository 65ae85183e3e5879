"""Every format of manifests carries the same table."""

import gzip
import json
import os

import pandas as pd
import pytest
from conftest import SHARED

from korser.corpora import load_corpus

RAVDESS = ("03-01-01-01-01-01-01", "03-01-03-02-02-01-01", "03-01-05-01-01-02-02", "03-01-08-01-02-01-02")
EMOTIONTTS = ("nea00001", "nea00101", "neb00201", "nek00301")


def relative(data, folder):
    """Return the rows with paths in ``folder/audio``, a link to where the audio is."""
    root = os.path.commonpath([os.path.dirname(path) for path in data["path"]])
    os.symlink(root, folder / "audio")
    rows = data.assign(path=[f"audio/{os.path.relpath(path, root)}" for path in data["path"]]).to_dict("records")
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def write_lines(file, lines):
    text = "".join(f"{line}\n" for line in lines)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())


def as_json(row):
    return json.dumps(row, ensure_ascii=False)


def without(row, *names):
    return {name: value for name, value in row.items() if name not in names}


def write_csv(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "manifest.csv", index=False)
    return {}


def write_tsv(folder, rows):
    pd.DataFrame(rows).to_csv(folder / "manifest.tsv", index=False, sep="\t")
    return {}


def write_parquet(folder, rows):
    pytest.importorskip("pyarrow")
    pd.DataFrame(rows).astype({"emotion": "category", "gender": "string"}).to_parquet(folder / "manifest.parquet")
    return {}


def write_emobox(folder, rows):
    entries = [
        {
            "key": row["id"],
            "dataset": "x",
            "wav": row["path"].replace("audio", "downloads/x", 1),
            "type": "raw",
            "sample_rate": 16000,
            "num_frame": 16000.0,
            "task": "category",
            "length": 1.0,
            "emo": row["emotion"][:3],
            "channel": 1,
            **without(row, "id", "path", "speaker", "emotion"),
        }
        for row in rows
    ]
    write_lines(folder / "data/x/x.jsonl", map(as_json, entries))
    write_lines(
        folder / "data/x/data.seg.wrd.stm",
        (f"{row['id']} 1 {row['speaker']} 0 1.0 <id={row['id']},lang=en> {row['emotion']}" for row in rows),
    )
    names = {row["emotion"][:3]: row["emotion"] for row in rows}
    (folder / "data/x/label_map.json").write_text(json.dumps(names))
    return {"data_folder": folder / "data/x", "audio_folder": str(folder / "audio")}


def write_audformat(folder, rows):
    audformat = pytest.importorskip("audformat")
    database = audformat.Database("x")
    data = pd.DataFrame(rows).astype(object)
    for column in data.columns.drop("path"):
        database.schemes[column] = audformat.Scheme("str")
    speakers = data.drop_duplicates("speaker").set_index("speaker")["gender"]
    database.schemes["speaker"] = audformat.Scheme("str", labels={s: {"gender": g} for s, g in speakers.items()})
    index = audformat.filewise_index(data["path"].tolist())
    for table, columns in {"emotion": ["emotion"], "files": data.columns.drop(["path", "emotion", "gender"])}.items():
        database[table] = audformat.Table(index)
        for column in columns:
            database[table][column] = audformat.Column(scheme_id=column)
            database[table][column].set(data[column].where(data[column].notna(), None).tolist())
    database.save(folder, storage_format="csv")
    return {}


def write_lhotse(folder, rows):
    cuts = []
    for row in rows:
        custom = without(row, "id", "path", "speaker", "gender")
        place = {"start": 0.0, "duration": 1.0, "channel": 0}
        known = {"speaker": row["speaker"], "gender": row["gender"], "custom": custom}
        source = {"type": "file", "channels": [0], "source": row["path"]}
        recording = {
            "id": row["id"],
            "sources": [source],
            "sampling_rate": 16000,
            "num_samples": 16000,
            "duration": 1.0,
        }
        supervision = {"id": row["id"], "recording_id": row["id"], **place, **known}
        cuts.append(
            {"id": f"{row['id']}-0", **place, "supervisions": [supervision], "recording": recording, "type": "MonoCut"}
        )
    write_lines(folder / "manifests/cuts.jsonl.gz", map(as_json, cuts))
    return {"data_folder": folder / "manifests/cuts.jsonl.gz", "audio_folder": str(folder)}


def write_speechbrain_json(folder, rows):
    entries = {}
    for row in rows:
        fields = {
            "wav": f"{{data_root}}/{row['path']}",
            "duration": "1.0",
            "spk_id": row["speaker"],
            "emo": row["emotion"],
        }
        entries[row["id"]] = {**fields, **without(row, "id", "path", "speaker", "emotion")}
    (folder / "all.json").write_text(json.dumps(entries))
    return {"data_folder": folder / "all.json", "audio_folder": str(folder)}


def write_speechbrain_csv(folder, rows):
    names = {"id": "ID", "path": "wav", "speaker": "spk_id", "emotion": "emo"}
    table = pd.DataFrame(rows).rename(columns=names).assign(duration=1.0, wav_format="wav", wav_opts=None)
    table["wav"] = "$data_root/" + table["wav"]
    table.to_csv(folder / "all.csv", index=False)
    return {"data_folder": folder / "all.csv", "audio_folder": {"data_root": str(folder)}}


def write_kaldi(folder, rows):
    write_lines(folder / "data/wav.scp", (f"{row['id']} {row['path']}" for row in rows))
    write_lines(folder / "data/spk2gender", sorted({f"{row['speaker']} {row['gender']}" for row in rows}))
    for name, column in {"utt2spk": "speaker", "utt2emo": "emotion"}.items():
        write_lines(folder / "data" / name, (f"{row['id']} {row[column]}" for row in rows))
    for name in ("intensity", "sentence"):
        write_lines(folder / f"data/utt2{name}", (f"{row['id']} {row[name]}" for row in rows if name in row))
    return {"data_folder": folder / "data", "audio_folder": str(folder)}


def write_audiofolder(folder, rows):
    write_lines(
        folder / "metadata.jsonl",
        (
            as_json({"file_name": row["path"], "label": row["emotion"], **without(row, "path", "emotion")})
            for row in rows
        ),
    )
    return {}


FORMATS = {
    "csv": (write_csv, write_tsv),
    "parquet": (write_parquet,),
    "emobox": (write_emobox,),
    "audformat": (write_audformat,),
    "lhotse": (write_lhotse,),
    "speechbrain": (write_speechbrain_json, write_speechbrain_csv),
    "kaldi": (write_kaldi,),
    "audiofolder": (write_audiofolder,),
}


@pytest.mark.parametrize("write, name", [(write, name) for name, writers in FORMATS.items() for write in writers])
@pytest.mark.parametrize(
    "corpus, real", [("ravdess", False), ("emotiontts", False), ("ravdess", True), ("emotiontts", True)]
)
def test_every_format_gives_the_same_table(tmp_path, corpus, real, write, name):
    folder = SHARED / corpus if real else tmp_path / corpus
    if real and not folder.is_dir():
        pytest.skip("needs the shared speech data")
    if not real:
        for stem in RAVDESS if corpus == "ravdess" else EMOTIONTTS:
            file = folder / stem[:3] / f"{stem}.wav"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    expected = load_corpus(corpus, folder)
    made = tmp_path / name
    made.mkdir()
    options = write(made, relative(expected.data, made))
    place = options.pop("data_folder", made)
    found = load_corpus(
        name, place, corpus_options={**options, "classes": {t: list(c) for t, c in expected.classes.items()}}
    )
    data = found.data.drop(columns="emo", errors="ignore")
    assert set(data.columns) == set(expected.data.columns)
    data["path"] = pd.Series(list(map(os.path.realpath, data["path"])), dtype=object)
    pd.testing.assert_frame_equal(data[expected.data.columns], expected.data, check_exact=True)
    assert list(data["id"]) == list(expected.data["id"]) and found.classes == expected.classes
