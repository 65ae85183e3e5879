"""The rows are as lhotse 1.33 writes them."""

import copy
import gzip
import json

import numpy as np
import pytest
import soundfile

from korser.corpora import load_corpus
from korser.utils.errors import UserError

MONO = {
    "id": "a",
    "sources": [{"type": "file", "channels": [0], "source": "wav/a.wav"}],
    "sampling_rate": 16000,
    "num_samples": 16000,
    "duration": 1.0,
    "channel_ids": [0],
}
STEREO = {
    "id": "call",
    "sources": [{"type": "file", "channels": [0, 1], "source": "wav/call.wav"}],
    "sampling_rate": 16000,
    "num_samples": 32000,
    "duration": 2.0,
    "channel_ids": [0, 1],
}


def supervision(name, recording, start=0.0, duration=1.0, channel=0, **custom):
    custom = {"emotion": "happy", "arousal": 3.5, **custom}
    place = {"id": name, "recording_id": recording, "start": start, "duration": duration, "channel": channel}
    return {**place, "text": "안녕", "language": "Korean", "speaker": f"s{channel}", "gender": "F", "custom": custom}


CUT = {
    "id": "a-0",
    "start": 0.0,
    "duration": 1.0,
    "channel": 0,
    "supervisions": [supervision("a", "a")],
    "recording": MONO,
    "type": "MonoCut",
}
CALL = [supervision("c1", "call", duration=0.75, votes=["sad", "sad"]), supervision("c2", "call", 0.5, 1.5, 1)]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "wav").mkdir()
    soundfile.write(tmp_path / "wav/a.wav", np.zeros(16000), 16000)
    soundfile.write(tmp_path / "wav/call.wav", np.zeros((32000, 2)), 16000)
    return tmp_path


def write(file, *rows):
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    file.write_bytes(gzip.compress(text.encode()) if file.suffix == ".gz" else text.encode())
    return file


def changed(row, **others):
    return {**copy.deepcopy(row), **others}


def test_cuts(folder):
    cut = changed(CUT, custom={"emotion": "sad", "session": "1", "target": {"type": "array"}})
    data = load_corpus("lhotse", write(folder / "some.jsonl", cut)).data
    (row,) = data.to_dict("records")
    assert row == {
        "id": "a",
        "path": str(folder / "wav/a.wav"),
        "speaker": "s0",
        "emotion": "happy",
        "gender": "F",
        "text": "안녕",
        "language": "Korean",
        "arousal": "3.5",
        "session": "1",
    }
    cut = changed(cut, supervisions=[])
    data = load_corpus("lhotse", write(folder / "some.jsonl", cut)).data
    assert data["id"].tolist() == ["a-0"] and data["emotion"].tolist() == ["sad"] and data["speaker"].tolist() == [None]


def test_supervisions_are_placed_in_the_recording(folder):
    parts = [supervision("x", "call", -0.25, 0.75, 1), supervision("y", "call", 0.5, 0.25, 1)]
    cut = changed(CUT, start=1.0, duration=0.625, channel=1, supervisions=parts, recording=STEREO)
    data = load_corpus("lhotse", write(folder / "cuts.jsonl", cut)).data
    assert data["start"].tolist() == [1.0, 1.5] and data["end"].tolist() == [1.5, 1.625]
    assert data["channel"].tolist() == [1, 1] and data["speaker"].tolist() == ["s1", "s1"]


def test_recordings_and_supervisions_per_split(folder):
    for split, parts in {"train": CALL, "dev": [supervision("a", "a")]}.items():
        write(folder / f"x_supervisions_{split}.jsonl.gz", *parts)
        write(folder / f"x_recordings_{split}.jsonl.gz", MONO, STEREO)
    data = load_corpus("lhotse", folder).data.set_index("id").loc[["a", "c1", "c2"]]
    assert data["split"].tolist() == ["valid", "train", "train"] and data["channel"].fillna(-1).tolist() == [-1, 0, 1]
    assert data["start"].fillna(-1).tolist() == [-1, 0, 0.5] and data["end"].fillna(-1).tolist() == [-1, 0.75, 2]
    assert data["votes"].tolist() == [None, '["sad", "sad"]', None]
    multi = changed(
        CUT, id="call-1", channel=[0, 1], supervisions=CALL, recording=STEREO, duration=2.0, type="MultiCut"
    )
    (folder / "cuts.json").write_text(json.dumps([CUT, multi]))  # come first, and say the same
    assert load_corpus("lhotse", folder).data.set_index("id")["channel"].fillna(-1).to_dict() == {
        "a": -1,
        "c1": 0,
        "c2": 1,
    }


def test_one_file_per_channel(folder):
    sources = [{"type": "file", "channels": [i], "source": f"wav/{name}.wav"} for i, name in enumerate(("a", "call"))]
    write(folder / "supervisions.jsonl", supervision("x", "call", channel=1, duration=2.0))
    write(folder / "recordings.jsonl", changed(STEREO, sources=sources))
    data = load_corpus("lhotse", folder).data
    assert data["path"].tolist() == [str(folder / "wav/call.wav")] and "channel" not in data and "start" not in data


def test_paths_start_from_where_lhotse_was_run(folder):
    (folder / "manifests").mkdir()
    file = write(folder / "manifests/cuts_train.jsonl.gz", CUT)
    with pytest.raises(
        UserError, match=r"row 1: file not found: wav/a.wav in .*; lhotse's paths .*audio_folder: \.\.\."
    ):
        load_corpus("lhotse", file)
    assert len(load_corpus("lhotse", file, corpus_options={"audio_folder": str(folder)}).data) == 1


MIXED = {"id": "m", "tracks": [{"cut": CUT, "type": "MonoCut", "offset": 0.0}], "type": "MixedCut"}
URL = changed(MONO, sources=[{"type": "command", "channels": [0], "source": "rm -r x"}])
SPEED = changed(MONO, transforms=[{"name": "Speed", "kwargs": {"factor": 1.1}}])


@pytest.mark.parametrize(
    "row, said",
    [
        (MIXED, "row 1: a MixedCut: write the audio of such cuts to files"),
        (changed(CUT, type="PaddingCut"), "row 1: a PaddingCut"),
        ({key: value for key, value in CUT.items() if key != "recording"}, "row 1: a cut without a recording"),
        (changed(CUT, recording=URL), "row 1: audio of the type 'command', but korser reads files"),
        (changed(CUT, recording=SPEED), r"row 1: the recording is augmented \(transforms\)"),
        (changed(CUT, recording=STEREO, channel=2, supervisions=[]), "row 1: channel 2 is not one channel of one file"),
        (changed(CUT, supervisions=[{"id": "x"}]), "row 1 is not as lhotse writes it .KeyError: 'start'"),
        (changed(CUT, recording={"id": "a"}), "row 1 is not as lhotse writes it .KeyError: 'sources'"),
        ({"no": "id"}, "row 1: expected cuts of lhotse, with id"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_refused(folder, row, said):
    with pytest.raises(UserError, match=said) as error:
        load_corpus("lhotse", write(folder / "cuts.jsonl", row))
    assert "\n" not in str(error.value)


def test_resampling_does_not_matter(folder):
    resampled = changed(MONO, sampling_rate=8000, num_samples=8000, transforms=[{"name": "Resample", "kwargs": {}}])
    assert len(load_corpus("lhotse", write(folder / "cuts.jsonl", changed(CUT, recording=resampled))).data) == 1


def test_files_that_are_missing_or_damaged(folder):
    with pytest.raises(UserError, match="expected cuts of lhotse, or a folder with cuts"):
        load_corpus("lhotse", folder)
    write(folder / "supervisions.jsonl", supervision("a", "b"))
    with pytest.raises(UserError, match="supervisions.jsonl has no recordings beside it: expected recordings.jsonl"):
        load_corpus("lhotse", folder)
    write(folder / "recordings.jsonl", MONO)
    with pytest.raises(UserError, match="row 1: recordings.jsonl has no recording 'b'"):
        load_corpus("lhotse", folder)
    (folder / "cuts.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="cannot read .*cuts.jsonl.gz: Not a gzipped file"):
        load_corpus("lhotse", folder)
    (folder / "cuts.yaml").write_text("[]")
    with pytest.raises(UserError, match="convert others by: lhotse copy cuts.yaml cuts.jsonl.gz"):
        load_corpus("lhotse", folder / "cuts.yaml")
