"""Predictions along recordings: windows are files of the same samples, times are right, mistakes come first."""

import json
import re
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import soundfile
from test_predict import trained_model

from korser.data import decoder
from korser.inference.recordings import Division, predict_recordings, without_overlap
from korser.inference.textgrid import read_textgrid
from korser.reporting.recordings import write_predictions
from korser.utils.errors import UserError
from korser.utils.files import read_csv


def noise(path, seconds, rate=16000, channels=1, **options):
    x = np.random.default_rng(0).uniform(-0.5, 0.5, (round(seconds * rate), channels))
    x *= 0.2 + np.sin(np.arange(len(x)) / rate)[:, None] ** 2
    soundfile.write(path, x, rate, **options)
    return str(path)


def predict(trained, path, **division):
    (found,) = predict_recordings(trained, path, Division(**division))
    return found


@pytest.mark.parametrize("rate", [16000, 22050])
def test_a_window_is_predicted_as_a_file_of_its_samples(tmp_path, rate, monkeypatch):
    monkeypatch.setattr(decoder, "LARGE", 1)
    path = noise(tmp_path / "long.wav", 4.1, rate, 2)
    trained = trained_model(tmp_path, piece_length=160000)
    table = predict(trained, path, window=1, hop=0.7).table
    assert table["start"].tolist() == [0, 0.7, 1.4, 2.1, 2.8, 3.1] and table["end"].tolist()[-2:] == [3.8, 4.1]
    x, _ = soundfile.read(path, dtype="int16")
    files = []
    for i, (start, end) in enumerate(zip(table["start"], table["end"])):
        files.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(files[-1], x[round(start * rate) : round(end * rate)], rate)
    alone = trained.predict_files(files).drop(columns="path")
    pd.testing.assert_frame_equal(table.drop(columns=["start", "end"]), alone, check_exact=True)


@pytest.mark.parametrize(
    ("seconds", "division", "starts"),
    [
        (9, {"window": 3}, [0, 3, 6]),
        (9.005, {"window": 3}, [0, 3, 6]),
        (10, {"window": 3, "hop": 3}, [0, 3, 6, 7]),
        (2.5, {"window": 3, "hop": 1}, [0]),
        (0.7, {"window": 0.3, "hop": 0.1}, [0, 0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_windows_cover_the_recording(seconds, division, starts):
    windows = Division(**division).windows("a.wav", seconds)
    assert [window.segment.start for window in windows] == starts


def test_segments_of_a_file(tmp_path):
    path = noise(tmp_path / "a.wav", 3, channels=2)
    (tmp_path / "a.csv").write_text("start,end,channel,segment\n1,2,1,late\n0.5,1.5,0,\n2.5,,,\n")
    found = predict(trained_model(tmp_path), path, segments=str(tmp_path / "a.csv"))
    assert found.table.columns.tolist()[:5] == ["start", "end", "channel", "segment", "emotion_pred"]
    assert found.table["end"].tolist() == [1.5, 2.0, 3.0] and found.table["segment"].tolist() == ["", "late", ""]
    assert [name for name, _ in found.tracks()] == ["channel 0", "channel 1", "all channels"]
    (tmp_path / "a.csv").write_text("start,end,segment\n0,1,\n1,4,\n1,1.0003,\n1,2,\n1,1e308,\n")
    with pytest.raises(UserError) as error:
        predict(trained_model(tmp_path), path, segments=str(tmp_path / "a.csv"))
    first, second, third = str(error.value).splitlines()
    assert third.startswith(f"{tmp_path}/a.csv row 6: from 1 s to 1e+308 s, but the recording has 3.000 s")
    assert "a.csv row 4: too short: 0.000 s, but the model needs 0.001 s" in first
    assert "a.csv row 3: from 1 s to 4 s, but the recording has 3.000 s" in second


def test_all_recordings_are_checked_before_the_first_is_predicted(tmp_path):
    good, silent = noise(tmp_path / "a.wav", 1), str(tmp_path / "b.wav")
    soundfile.write(silent, np.zeros(32000), 16000)
    trained = trained_model(tmp_path)
    assert [found.path for found in predict_recordings(trained, [good, silent], Division(window=0.5))] == [good, silent]
    listed = read_csv(tmp_path / "evaluations" / "predict-bad-recordings.csv")
    assert listed[["path", "problem"]].values.tolist() == [[silent, "silent"]]
    trained = trained_model(tmp_path)
    soundfile.write(silent, np.full(32000, np.nan), 16000, subtype="FLOAT")
    with pytest.raises(UserError, match="1 of 2 audio files cannot be used: .*b.wav: NaN"):
        predict_recordings(trained, [good, silent], Division(window=0.5))
    assert trained.model.seen == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "expected either --window=SECONDS or --segments=vad|FILE"),
        ({"window": 3.0, "segments": "vad"}, "expected either"),
        ({"hop": 1.0, "segments": "vad"}, "--hop=1 is the distance of windows"),
        ({"window": float("nan")}, "--window=nan: expected seconds"),
        ({"window": 1.0, "hop": 2.0}, "--hop=2: expected seconds from 0.01 to those of --window=1"),
        ({"window": 1.0, "tier": "x"}, "--tier=x is that of a TextGrid"),
        ({"window": 0.001}, "--window=0.001: expected seconds from 0.01 on"),
        ({"window": 0.015}, "--window=0.015: the model needs at least 0.02 s"),
        ({"window": 60.0}, "--window=60: the model takes at most 30 s"),
    ],
)
def test_options_that_cannot_be_used(tmp_path, options, said):
    trained = trained_model(tmp_path)
    trained.min_length, trained.max_length = 320, 480000
    with pytest.raises(UserError, match=re.escape(said)):
        predict_recordings(trained, noise(tmp_path / "a.wav", 1), Division(**options))


def test_intervals_do_not_overlap():
    start = np.arange(0, 3, 0.5)
    begin, end = without_overlap(start, start + 2, 4.2)
    np.testing.assert_allclose(begin, [0, 1.25, 1.75, 2.25, 2.75, 3.25])
    np.testing.assert_allclose(end, [1.25, 1.75, 2.25, 2.75, 3.25, 4.2])
    begin, end = without_overlap(np.array([0, 1, 1, 2, 5, 9.5]), np.array([9, 2, 2, 3, 6, 11]), 10.0)
    np.testing.assert_allclose(begin, [0, 9, 9, 9, 9, 9.5])  # those within the first one are empty
    np.testing.assert_allclose(end, [9, 9, 9, 9, 9, 10])


def test_all_time_of_overlapping_intervals_remains():
    rng = np.random.default_rng(0)
    for _ in range(100):
        start = np.sort(rng.uniform(0, 10, rng.integers(1, 9)).round(1))
        stop = start + rng.uniform(0.1, 5, len(start)).round(1)
        begin, end = without_overlap(start, stop, 12.0)
        assert (np.diff(np.stack([begin, end], 1).ravel()) >= 0).all()
        middles = np.arange(0.05, 12, 0.1)[:, None]
        held, left = (((a <= middles) & (middles <= b)).any(1) for a, b in ((start, stop), (begin, end)))
        assert (held == left).all()
        some = end > begin
        assert (begin >= start)[some].all() and (end <= stop)[some].all()
    assert [len(x) for x in without_overlap(np.zeros(0), np.zeros(0), 1.0)] == [0, 0]


def test_files_of_each_recording(tmp_path):
    folder = tmp_path / "in"
    (folder / "day 1").mkdir(parents=True)
    path = noise(folder / "day 1" / "회의.v2.wav", 2)
    trained = trained_model(tmp_path)
    ((found, file),) = write_predictions(trained, [str(folder)], Division(1, 0.5), tmp_path / "out")
    assert file == tmp_path / "out" / "day 1" / "회의.v2.csv"
    assert sorted(p.name.removeprefix("회의.v2.") for p in file.parent.iterdir()) == [
        "TextGrid",
        "csv",
        "json",
        "pdf",
        "png",
    ]
    pd.testing.assert_frame_equal(read_csv(file), found.table)
    record = json.loads(file.with_suffix(".json").read_text())
    assert (record["path"], record["seconds"]) == (path, 2.0) and record["segments"] == found.table.to_dict("records")
    (intervals,) = read_textgrid(file.with_suffix(".TextGrid")).values()
    assert [interval[:2] for interval in intervals] == [(0, 0.75), (0.75, 1.25), (1.25, 2)]
    assert [interval.text for interval in intervals] == found.table["emotion_pred"].tolist()
    same = noise(tmp_path / "회의.v2.flac", 2), str(folder / "day 1" / "회의.v2.wav")
    with pytest.raises(UserError, match="would both be written as .*out/회의.v2.csv: predict one by one"):
        next(write_predictions(trained, same, Division(1), tmp_path / "out"))
    with pytest.raises(UserError, match="--out=.*/in.txt: File exists"):
        (tmp_path / "in.txt").touch()
        next(write_predictions(trained, [path], Division(1), tmp_path / "in.txt"))


def test_memory_does_not_depend_on_the_length(tmp_path, monkeypatch):
    monkeypatch.setattr(decoder, "LARGE", 1)
    monkeypatch.setattr("korser.data.containers.BLOCK", 2**14)
    peaks = []
    for seconds in (40, 120):
        path, trained = noise(tmp_path / f"{seconds}.wav", seconds), trained_model(tmp_path, 16000)
        tracemalloc.start()
        assert len(predict(trained, path, window=2).table) == seconds / 2
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0] < 2e7
