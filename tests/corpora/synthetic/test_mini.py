"""The synthetic corpus: design, reproducibility, sound, invalid sizes."""

import os
from pathlib import Path

import numpy
import pandas
import pytest
import soundfile
import torch
import torchaudio
from sklearn.metrics import recall_score
from sklearn.model_selection import GroupKFold, cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from test_engine import digests

from korser.corpora.synthetic import _engine, mini
from korser.utils.errors import UserError

SMALL = {"n_speakers": 2, "n_utterances": 16}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A corpus of 16 utterances, made by one worker; read-only."""
    folder = tmp_path_factory.mktemp("small")
    return folder, mini.prepare(folder, n_workers=1, **SMALL)


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """Four utterances of each of the 24 default speakers."""
    return mini.prepare(tmp_path_factory.mktemp("speakers"), n_speakers=24, n_utterances=96)


# The design


def test_the_papers_size():
    table = mini.design(120, 68000)
    assert table.emotion.value_counts().tolist() == [17000] * 4
    rest, test = train_test_split(table, test_size=8000, stratify=table.emotion, random_state=0)
    train, valid = train_test_split(rest, test_size=8000, stratify=rest.emotion, random_state=0)
    for part, size in ((train, 13000), (valid, 2000), (test, 2000)):
        assert part.emotion.value_counts().tolist() == [size] * 4
    assert set(table.speaker.value_counts()) == {566, 567}
    assert set(table.groupby(["speaker", "emotion"]).size()) == {141, 142}
    assert set(table.groupby(["emotion", "gender"]).size()) == {8500}
    assert set(table.groupby(["emotion", "sentence"]).size()) == {425}
    assert set(table.groupby(["emotion", "intensity"]).size()) == {4250}
    assert table.id.is_unique and table.speaker.nunique() == 120


@pytest.mark.parametrize(("n_speakers", "n_utterances"), [(24, 576), (24, 768), (30, 1001), (2, 8)])
def test_everything_is_distributed_evenly(n_speakers, n_utterances):
    table = mini.design(n_speakers, n_utterances)
    assert len(table) == n_utterances and table.id.is_unique and table.id.is_monotonic_increasing
    assert numpy.ptp(table.emotion.value_counts()) <= 1
    assert numpy.ptp(table.speaker.value_counts()) <= 1
    assert numpy.ptp(table.groupby(["speaker", "emotion"]).size()) <= 1
    assert table.groupby("gender").speaker.nunique().tolist() == [n_speakers // 2] * 2
    per_sentence = pandas.crosstab(table.sentence, table.emotion)
    assert numpy.ptp(per_sentence.to_numpy()) <= 1
    levels = table[table.emotion != "neutral"].groupby(["speaker", "emotion"]).intensity.value_counts()
    assert levels.max() <= n_utterances // (16 * n_speakers) + 1


def test_labels_are_the_declared_ones_and_neutral_has_no_intensity():
    table = mini.design()
    for task, classes in mini.TASKS.items():
        assert set(table[task].dropna()) == set(classes)
    assert (table.intensity.isna() == (table.emotion == "neutral")).all()
    assert table.intensity[table.emotion == "neutral"].map(lambda value: value is None).all()
    assert table.age.between(20, 59).all() and table.groupby("speaker").age.nunique().max() == 1
    ages = table.drop_duplicates("speaker").groupby("gender").age
    assert ages.nunique().min() == 12 and ages.mean().between(35, 44).all()


def test_words_and_names_do_not_reveal_the_emotion():
    table = mini.design(24, 576)
    sentences = table.groupby(["speaker", "repetition"]).sentence.nunique()
    assert (sentences == 1).all()  # a speaker says the same in all four emotions
    number = table.id.str[-4:].astype(int)
    assert numpy.ptp(number.groupby(table.emotion).mean()) < 2.5  # of 24; in order of emotion it would be 18
    assert len(set(mini.SENTENCES)) == 40


@pytest.mark.parametrize(("n_speakers", "n_utterances", "key"), [(3, 60, "n_speakers=3"), (24, 95, "n_utterances=95")])
def test_impossible_sizes(tmp_path, n_speakers, n_utterances, key):
    with pytest.raises(UserError, match=key):
        mini.prepare(tmp_path, n_speakers=n_speakers, n_utterances=n_utterances)


# Reproducibility


def test_two_workers_in_reversed_order_give_the_same_files(small, tmp_path):
    made, rows = small
    table = mini.design(**SMALL)
    requests = mini._requests(table)
    folder = tmp_path / Path(rows.path[0]).parents[1].name
    files = {name: folder / name[:4] / f"{name}.flac" for name in requests}
    before = torch.get_num_threads()
    torch.set_num_threads(1 if before > 1 else 2)
    try:
        _engine.make_missing(
            folder,
            dict(reversed(files.items())),
            lambda name, speak: mini._encode(speak(requests[name]), requests[name]),
            n_workers=2,
            description="reversed",
        )
    finally:
        torch.set_num_threads(before)
    assert digests(tmp_path) == digests(made)
    assert len(digests(made)) == 16 + 2


def test_other_rules_get_another_folder(small, monkeypatch):
    _, table = small
    before = mini._digest(mini._requests(mini.design(**SMALL)))
    assert before in table.path[0]
    monkeypatch.setitem(mini.RULES, "anger", (1.3, 1.0, 1.1, 6.0))
    assert mini._digest(mini._requests(mini.design(**SMALL))) != before


# The sound


def test_table_and_audio_format(small):
    _, table = small
    assert list(table) == ["id", "path", "speaker", "emotion", "gender", "intensity", "age", "sentence"]
    for path in table.path:
        info = soundfile.info(path)
        assert os.path.isabs(path)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")


def test_no_more_than_full_scale_and_no_silence(speakers):
    for path in speakers.path:
        wave, rate = soundfile.read(path)
        assert 0.01 < abs(wave).max() <= 0.951
        assert 0.5 < len(wave) / rate < 5


def test_a_loud_utterance_is_turned_down_rather_than_clipped(tmp_path):
    samples = (20000 * numpy.sin(numpy.arange(22050) / 20)).astype("<i2").tobytes()
    (tmp_path / "loud.flac").write_bytes(mini._encode(samples, {"gain": 20, "played_at": 22050}))
    wave, _ = soundfile.read(tmp_path / "loud.flac")
    assert abs(wave).max() == pytest.approx(0.95, abs=1e-4)
    assert (abs(wave) > 0.949).mean() < 0.1  # a sine spends 3 % of its time there, a clipped one nearly all


def pitch(path):
    """Median f0 in Hz over the voiced frames, by autocorrelation."""
    wave, rate = soundfile.read(path)
    frames = numpy.lib.stride_tricks.sliding_window_view(wave, 640)[::160]
    frames = frames[frames.std(axis=1) > 0.3 * wave.std()] * numpy.hanning(640)
    power = abs(numpy.fft.rfft(frames, 2560)) ** 2
    window = numpy.fft.irfft(abs(numpy.fft.rfft(numpy.hanning(640), 2560)) ** 2)[:320]
    lags = numpy.fft.irfft(power)[:, :320] / window
    lags = lags[:, rate // 400 : rate // 60] / lags[:, :1]
    voiced = lags[lags.max(axis=1) > 0.5]
    first = (voiced > 0.9 * voiced.max(axis=1, keepdims=True)).argmax(axis=1)  # not an octave below
    return numpy.median(rate / (first + rate // 400))


def test_women_are_higher_than_men(speakers):
    neutral = speakers[speakers.emotion == "neutral"]
    f0 = neutral.path.map(pitch)
    female, male = f0[neutral.gender == "female"], f0[neutral.gender == "male"]
    assert len(female) == len(male) == 12
    assert male.max() < 150 < female.min()


def test_emotions_move_the_cues_as_documented(speakers):
    waves = [soundfile.read(path)[0] for path in speakers.path]
    table = speakers.assign(
        duration=[len(wave) / 16000 for wave in waves],
        level=[20 * numpy.log10(wave.std()) for wave in waves],
        pitch=[numpy.log2(pitch(path)) for path in speakers.path],
    )
    means = table.groupby("emotion")[["duration", "level", "pitch"]].mean()
    assert means.duration["anger"] < means.duration["joy"] < means.duration["neutral"] < means.duration["sadness"]
    assert means.level["anger"] > means.level["joy"] > means.level["neutral"] > means.level["sadness"]
    assert means.pitch["joy"] > means.pitch["anger"] > means.pitch["neutral"] > means.pitch["sadness"]


@pytest.mark.slow
def test_learnable_but_not_trivial_on_unseen_speakers(tmp_path):
    table = mini.prepare(tmp_path)
    mel = torchaudio.transforms.MelSpectrogram(16000, 400, hop_length=160, n_mels=64)
    rows = []
    for path in table.path:
        spectrum = torch.log(mel(torch.from_numpy(soundfile.read(path, dtype="float32")[0])) + 1e-5)
        rows.append(torch.cat([spectrum.mean(1), spectrum.std(1), spectrum.diff(dim=1).std(1)]).numpy())
    pairs = (table.speaker.str[1:].astype(int) - 1) // 2  # a woman and a man together, so that folds stay balanced
    model = make_pipeline(StandardScaler(), SVC(C=3))

    def recall(task):
        known = table[task].notna()
        truth, rows_ = table[task][known].astype(str), numpy.stack(rows)[known]
        guess = cross_val_predict(model, rows_, truth, groups=pairs[known], cv=GroupKFold(6))
        return recall_score(truth, guess, average="macro")

    assert 0.6 < recall("emotion") < 0.95
    assert recall("intensity") > 0.3  # chance: 0.25
    assert recall("gender") > 0.8


# What may go wrong


@pytest.mark.parametrize("value", ["24", 24.0, True, 0, [24]])
@pytest.mark.parametrize("option", ["n_speakers", "n_utterances", "n_workers"])
def test_options_that_are_not_positive_integers(tmp_path, option, value):
    with pytest.raises(UserError, match=f"corpus_options.{option}=.*: expected an integer >= 1"):
        mini.prepare(tmp_path, **{**SMALL, option: value})
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_data_is_refused(tmp_path):
    (tmp_path / "Actor_01").mkdir()
    with pytest.raises(UserError, match="contains Actor_01: for your own data set the corpus too"):
        mini.prepare(tmp_path, n_speakers=8, n_utterances=64)
    assert [path.name for path in tmp_path.iterdir()] == ["Actor_01"]
