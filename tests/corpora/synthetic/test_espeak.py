"""The synthetic corpus for pretraining: variety, no overlap with mini, sound, reproducibility."""

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from test_engine import digests, spy

from korser.corpora import load_corpus
from korser.corpora.synthetic import _engine, espeak, mini
from korser.utils.errors import UserError

HOURS = 0.02  # 13 utterances


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A corpus of 13 utterances, made by one worker; read-only."""
    folder = tmp_path_factory.mktemp("small")
    return folder, espeak.prepare(folder, hours=HOURS, n_workers=1)


@pytest.fixture(scope="module")
def large():
    """The design of five hours."""
    return espeak.design(5)


# The design


def test_korean_is_half_and_the_others_are_even(large):
    shares = large.language.value_counts(normalize=True)
    assert shares["ko"] == pytest.approx(0.5, abs=0.03)
    assert len(shares) == 11 and shares.drop("ko").between(0.035, 0.065).all()


def test_many_speakers_each_of_one_language_voice_and_speed(large):
    assert large.id.is_unique and large.id.is_monotonic_increasing
    assert large.speaker.nunique() > 1000 and large.variant.nunique() == sum(map(len, espeak.VARIANTS.values()))
    for columns in ("language", "variant", "ratio"):
        assert (large.groupby("speaker")[columns].nunique() == 1).all()
    women = large.variant.isin(espeak.VARIANTS["female"]).mean()
    assert women == pytest.approx(espeak.FEMALE_PROPORTION, abs=0.04)


def test_gender_is_known_only_of_voices_near_their_own_speed(large):
    for row in large.itertuples():
        known = [gender for gender, variants in espeak.VARIANTS.items() if row.variant in variants][0]
        assert row.gender == (known if abs(espeak._speed(row.ratio) - 1) <= 0.1 else None)
    assert {"female", "male"} <= set(large.gender)


def test_prosody_varies_widely_also_within_a_speaker(large):
    phrases = [phrase for row in large.phrases for phrase in row]
    for key, lowest, highest in (("rate", 110, 270), ("pitch", 20, 80), ("range", 15, 70)):
        values = np.array([phrase[key] for phrase in phrases])
        assert np.percentile(values, 10) < lowest and np.percentile(values, 90) > highest
    counts = large.speaker.value_counts()
    for speaker in counts.index[counts >= 10][:5]:
        pitches = [row[0]["pitch"] for row in large.phrases[large.speaker == speaker]]
        assert max(pitches) - min(pitches) > 25  # four semitones
        assert np.ptp(large.level[large.speaker == speaker].astype(float)) > 10
    assert sum(a["pitch"] != b["pitch"] for row in large.phrases for a, b in zip(row, row[1:])) > 1000


def test_an_utterance_does_not_depend_on_the_hours(large):
    assert espeak.design(0.1).equals(large[: len(espeak.design(0.1))])
    assert not espeak.design(0.1, seed=1).text.isin(large.text).any()


def test_no_sentence_of_mini_occurs(large):
    bare = [sentence.rstrip(".") for sentence in mini.SENTENCES]
    assert not [text for text in large.text for sentence in bare if sentence in text]
    assert not set(espeak.WHO + espeak.WHAT + espeak.WHERE) & set(" ".join(bare).split())


def test_no_speaker_of_mini_occurs(large):
    theirs = [mini._speaker(number, mini.GENDERS[number % 2]) for number in range(140)]
    theirs = {(speaker["voice"].partition("+")[2], speaker["played_at"] / _engine.ESPEAK_RATE) for speaker in theirs}
    assert len(theirs) == 140  # every speaker that there can be
    ours = {(row.variant, espeak._speed(row.ratio)) for row in large.itertuples()}
    ratios = [speed / other for name, speed in ours for variant, other in theirs if variant == name]
    assert ratios and all(ratio >= 1.05 or ratio <= 1 / 1.05 for ratio in ratios)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hours": 0}, "hours=0"), ({"hours": "25"}, "hours='25'"), ({"hours": math.nan}, "hours=nan"),
     ({"hours": True}, "hours=True"), ({"seed": 0.5}, "seed=0.5"), ({"n_workers": 0}, "n_workers=0")],
)  # fmt: skip
def test_impossible_options(tmp_path, options, message):
    with pytest.raises(UserError, match=f"corpus_options.{message}: expected an? "):
        espeak.prepare(tmp_path, **options)
    assert not list(tmp_path.iterdir())


# The sound


def test_as_a_corpus(small):
    folder, table = small
    corpus = load_corpus("espeak", folder, corpus_options={"hours": HOURS})
    assert corpus.synthetic and corpus.classes == {"gender": ("female", "male")}
    assert list(corpus.data) == ["id", "path", "speaker", "gender", "language", "variant", "text"]
    assert corpus.data.equals(table) and len(table) == 13
    for word in ("Source", "Licence", "Layout", "Labels"):
        assert word in espeak.__doc__


def test_format_level_and_duration(small):
    _, table = small
    durations = []
    for path, level in zip(table.path, espeak.design(HOURS).level):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "FLAC", "PCM_16")
        wave, _ = soundfile.read(path)
        rms = 20 * np.log10(np.sqrt(np.mean(wave**2)))
        assert abs(wave).max() <= 0.951
        assert rms == pytest.approx(level, abs=0.1) or abs(wave).max() > 0.949 and rms < level
        durations.append(info.duration)
    assert 1.5 < min(durations) and max(durations) < 14
    assert sum(durations) / 3600 == pytest.approx(HOURS, rel=0.25)


@pytest.mark.slow
def test_hours_are_as_asked_for_and_every_variant_is_clear_of_clipping(tmp_path):
    table = espeak.prepare(tmp_path, hours=0.5)
    assert sum(soundfile.info(path).duration for path in table.path) / 3600 == pytest.approx(0.5, rel=0.05)
    with _engine.Worker() as worker:
        for variant in [variant for variants in espeak.VARIANTS.values() for variant in variants]:
            request = {"voice": f"ko+{variant}", "text": "하나 둘 셋 넷 다섯 여섯 일곱.", "rate": 175, "pitch": 90,
                       "range": 90, "volume": espeak.VOLUME, "seed": 1}  # fmt: skip
            samples = np.frombuffer(worker.speak(request), "<i2").astype(int)
            assert 300 < abs(samples).max() < 32767, variant


# Reproducibility


def test_three_workers_give_the_same_files(small, tmp_path):
    espeak.prepare(tmp_path, hours=HOURS, n_workers=3)
    assert digests(tmp_path) == digests(small[0])


def test_more_hours_extend_the_corpus(small, tmp_path, monkeypatch):
    made, table = small
    short = espeak.prepare(tmp_path, hours=HOURS / 2)
    assert len(short) == 7 and list(short.path) == [path.replace(str(made), str(tmp_path)) for path in table.path[:7]]
    written = spy(monkeypatch)
    espeak.prepare(tmp_path, hours=HOURS)
    assert len(written) == 6
    assert digests(tmp_path) == digests(made)
    Path(short.path[2]).unlink()
    espeak.prepare(tmp_path, hours=HOURS / 2)  # keeps the record of the longer one
    assert len(written) == 7
    espeak.prepare(tmp_path, hours=HOURS)
    assert len(written) == 7
    assert digests(tmp_path) == digests(made)


def test_other_rules_get_another_folder(small, monkeypatch):
    _, table = small
    assert espeak._digest(0) in table.path[0]
    monkeypatch.setattr(espeak, "WHERE", (*espeak.WHERE[:-1], "시장에서"))
    assert espeak._digest(0) not in table.path[0]


def test_a_phrase_that_espeak_crashes_at_is_spoken_more_evenly():
    phrase = {
        "voice": "de+Demonic",
        "text": "stesfö zotwaschaus si komröm trautröweim.",
        "rate": 195,
        "pitch": 0,
        "range": 72,
        "volume": 20,
        "seed": 2070121401,
    }
    with _engine.Worker() as worker:
        with pytest.raises(RuntimeError, match="crashed"):
            worker.speak(phrase)
        spoken = espeak._spoken(worker.speak, phrase)
        assert spoken == worker.speak({**phrase, "pitch": 12, "range": 54})
        with pytest.raises(RuntimeError, match="no voice"):
            espeak._spoken(worker.speak, {**phrase, "voice": "none"})
