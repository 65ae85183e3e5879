"""What the parts of a published split share."""

import json

import numpy as np
import pandas as pd
import pytest
import soundfile

from korser.description import audit
from korser.utils.errors import UserError

SENTENCES = {"a01": "Der Lappen liegt auf dem Eisschrank.", "b02": "Heute abend wird das Wetter gut."}


def emodb(n_folds=5, by_speaker=False, n_speakers=10):
    """Rows as EmoBox divides EmoDB: each fold lists all utterances as train or test, drawn at random."""
    rng, rows = np.random.default_rng(0), []
    names = [(f"{s:02d}", text, e) for s in range(n_speakers) for text in SENTENCES for e in "WNFT"]
    tested_in = [int(s) % n_folds if by_speaker else int(rng.integers(n_folds)) for s, _, _ in names]
    for fold in range(n_folds):
        for (speaker, text, emotion), tested in zip(names, tested_in):
            key = f"{speaker}{text}{emotion}"
            row = {"id": f"emodb-{key}", "path": f"downloads/emodb/{key}.wav", "speaker": speaker, "emotion": emotion}
            part = "test" if tested == fold else "train"
            rows.append({**row, "sentence": SENTENCES[text], "fold": fold + 1, "split": part})
    return pd.DataFrame(rows)


def crema_d(n_speakers=12):
    """Rows as EmoBox divides CREMA-D: one fold, a quarter of each emotion's utterances for test, drawn at random."""
    names = [(1001 + s, text, e) for s in range(n_speakers) for text in ("DFA", "IEO") for e in ("ANG", "HAP", "NEU")]
    rows = [
        {"id": f"crema-d-{key}", "path": f"downloads/crema-d/AudioWAV/{key}.wav", "speaker": name, "emotion": emotion}
        for name, text, emotion in names
        for key in [f"{name}_{text}_{emotion}_XX"]
    ]
    table = pd.DataFrame(rows).assign(fold=1, split="train")
    table.loc[table.groupby("emotion").sample(frac=0.25, random_state=0).index, "split"] = "test"
    return table


def emobox(folder, table, name="emodb"):
    """Write the lists of each fold, and the speakers, as EmoBox does; there is no audio."""
    speakers, folder = set(), folder / "data" / name
    for (fold, split), rows in table.groupby(["fold", "split"]):
        file = folder / f"fold_{fold}" / f"{name}_{split}_fold_{fold}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        entries = []
        for row in rows.itertuples():
            audio = {"key": row.id, "dataset": name, "wav": row.path, "sample_rate": 16000, "num_frame": 70312.0}
            entries.append(json.dumps({**audio, "length": 4.3945, "emo": row.emotion, "channel": 1}))
            speakers.add(f"{row.id} 1 {row.speaker} 0 4.3945 <id={row.id},lang=xx,spk={row.speaker}> {row.emotion}")
        file.write_text("\n".join(entries))
    (folder / "data.seg.wrd.stm").write_text("\n".join(sorted(speakers)))
    (folder / "label_map.json").write_text(json.dumps({e: e for e in table["emotion"].unique()}))
    return folder


def write(folder, table):
    file = folder / "folds.csv"
    table.to_csv(file, index=False)
    return file


def test_shared_speakers_of_random_folds_are_found(tmp_path, call):
    file = write(tmp_path, emodb())
    found = audit(file)
    assert list(found.partitions) == [f"fold {k}" for k in range(1, 6)]
    speakers = [shared for shared in found.shared if shared.kind == "speaker"]
    assert len(speakers) == 5 and all(shared.n == 10 for shared in speakers)
    assert all(shared.pairs[("train", "test")] == len(shared.names) >= 8 for shared in speakers)
    assert "recording" not in {shared.kind for shared in found.shared}
    assert [note.code for note in found.unchecked] == ["unchecked_near_copy"]
    code, out, _ = call("audit", file)
    assert code == 1 and "SHARED between parts: speaker, sentence" in out and "0 of 80 audio files found" in out


def test_folds_of_speakers_are_clean_but_for_sentences(tmp_path, call):
    file = write(tmp_path, emodb(by_speaker=True))
    assert {shared.kind for shared in audit(file).shared} == {"sentence"}
    assert call("audit", file)[0] == 1
    code, out, _ = call("audit", file, "--allow", "sentence")
    assert code == 0 and "clean: nothing is shared but sentence, as allowed" in out


def test_folds_of_emobox(tmp_path, call):
    found = audit(emobox(tmp_path, emodb()), corpus="emobox")
    (speakers,) = found.shared
    assert (speakers.kind, len(speakers.names), speakers.n) == ("speaker", 10, 10)
    assert sum(found.partitions["fold"].values()) == 80
    clean = emobox(tmp_path / "clean", emodb(by_speaker=True))
    assert call("audit", clean, "--corpus=emobox")[:1] == (0,)
    (speakers,) = audit(emobox(tmp_path, crema_d(), "crema-d"), corpus="emobox").shared
    tested = crema_d().query("split == 'test'")["speaker"].nunique()
    assert speakers.kind == "speaker" and len(speakers.names) == tested > 6


@pytest.mark.parametrize("columns", ["fold", "several"])
def test_any_form_of_folds(tmp_path, columns):
    table = emodb().query("split == 'test'").drop(columns=["split", "sentence"])
    if columns == "several":
        dummies = {f"fold_{k}": np.where(table["fold"] == k, "test", "train") for k in (1, 2)}
        table = table.drop(columns="fold").assign(**dummies)
    found = audit(write(tmp_path, table))
    assert list(found.partitions) == (["fold"] if columns == "fold" else ["fold_1", "fold_2"])
    assert {shared.kind for shared in found.shared} == {"speaker"}
    assert "unchecked_sentence" in [note.code for note in found.unchecked]
    if columns == "fold":
        assert found.shared[0].between == "10 of 10 pairs of parts"


def test_repeated_recordings_other_spellings_and_what_words_tell(tmp_path):
    table = emodb(1).drop(columns="fold")
    table["split"] = np.where(table["speaker"] < "07", "Training", "Validation")
    table.loc[table["speaker"] == "09", "split"] = "test"
    table["sentence"] = table["emotion"].map({"W": "Ärger!", "N": "nichts", "F": "froh", "T": "ach"})
    table = pd.concat([table, table.iloc[[0]].assign(split="test", speaker="S09")])
    found = audit(write(tmp_path, table.drop(columns="id")))
    assert list(found.partitions["split"]) == ["train", "valid", "test"]
    (recording,) = [shared for shared in found.shared if shared.kind == "recording"]
    assert recording.pairs == {("train", "valid"): 0, ("train", "test"): 1, ("valid", "test"): 0}
    assert {"similar_speakers", "lexical_leakage"} <= {note.code for note in found.notes}


def test_copies_are_found_where_there_is_audio(tmp_path):
    rng = np.random.default_rng(0)
    sounds = [np.repeat(rng.uniform(0, 0.3, 10), 1600) * rng.normal(size=16000).clip(-3, 3) for _ in range(3)]
    for name, sound in zip("abcde", [*sounds, -0.5 * sounds[0], sounds[1]]):
        soundfile.write(tmp_path / f"{name}.wav", sound, 16000)
    table = pd.DataFrame({"path": [f"{name}.wav" for name in "abcde"], "spk": list("12345")})
    file = write(tmp_path, table.assign(split=["train", "train", "train", "test", "test"]))
    found = audit(file, cache_folder=tmp_path / "cache")
    assert {shared.kind: [name[-5:] for name in shared.names] for shared in found.shared} == {
        "copy": ["b.wav"],
        "near copy": ["d.wav"],
    }
    assert "rename 'spk' to 'speaker'" in found.unchecked[0].text


def test_a_manifest_without_parts_is_refused(tmp_path):
    table = emodb(1).drop(columns=["fold", "split"])
    with pytest.raises(UserError, match="has no column 'split' or 'fold'"):
        audit(write(tmp_path, table))
    with pytest.raises(UserError, match="split: a single part, expected at least two"):
        audit(write(tmp_path, table.assign(split="train")))
