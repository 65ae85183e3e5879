"""The synthetic corpus for pretraining: its variety, that it is none of mini's, its bits, and how it is made."""

import hashlib
import math
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile

from korser.corpora import espeak, load_corpus, mini
from korser.errors import UserError

HOURS = 0.02  # 13 utterances


def digests(folder):
    """The hash of every file under a folder, by its relative path."""
    paths = (path for path in Path(folder).rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A corpus of 13 utterances, made by one worker; not to be changed."""
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
    assert women == pytest.approx(espeak.FEMALE_SHARE, abs=0.04)


def test_gender_is_told_of_voices_near_their_own_speed_only(large):
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
    theirs = {(speaker["voice"].partition("+")[2], speaker["played_at"] / mini.ESPEAK_RATE) for speaker in theirs}
    assert len(theirs) == 140  # every speaker that there can be
    ours = {(row.variant, espeak._speed(row.ratio)) for row in large.itertuples()}
    ratios = [speed / other for name, speed in ours for variant, other in theirs if variant == name]
    assert ratios and all(ratio >= 1.05 or ratio <= 1 / 1.05 for ratio in ratios)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"hours": 0}, "hours is 0"), ({"hours": "25"}, "hours is '25'"), ({"hours": math.nan}, "hours is nan"),
     ({"hours": True}, "hours is True"), ({"seed": 0.5}, "seed is 0.5"), ({"n_workers": 0}, "n_workers is 0")],
)  # fmt: skip
def test_impossible_options(tmp_path, options, message):
    with pytest.raises(UserError, match=f"corpus_options.{message}: write a"):
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
    with mini._Worker() as worker:
        for variant in [variant for variants in espeak.VARIANTS.values() for variant in variants]:
            worker.ask({"voice": f"ko+{variant}", "text": "하나 둘 셋 넷 다섯 여섯 일곱.", "rate": 175, "pitch": 90,
                        "range": 90, "volume": espeak.VOLUME, "seed": 1})  # fmt: skip
            samples = np.frombuffer(worker.answer(), "<i2").astype(int)
            assert 300 < abs(samples).max() < 32767, variant


# The same bits


def test_three_workers_give_the_same_files(small, tmp_path):
    made, _ = small
    espeak.prepare(tmp_path, hours=HOURS, n_workers=3)
    assert digests(tmp_path) == digests(made)


def test_more_hours_go_on_where_fewer_ended(small, tmp_path, monkeypatch):
    made, table = small
    short = espeak.prepare(tmp_path, hours=HOURS / 2)
    assert len(short) == 7 and list(short.path) == [path.replace(str(made), str(tmp_path)) for path in table.path[:7]]
    written = spy(monkeypatch)
    espeak.prepare(tmp_path, hours=HOURS)
    assert len(written) == 6
    assert digests(tmp_path) == digests(made)
    Path(short.path[2]).unlink()
    espeak.prepare(tmp_path, hours=HOURS / 2)  # forgets nothing of the longer one
    assert len(written) == 7
    espeak.prepare(tmp_path, hours=HOURS)
    assert len(written) == 7
    assert digests(tmp_path) == digests(made)


def spy(monkeypatch):
    """The list of the audio files written from now on."""
    written, write = [], mini._write

    def spying(path, data):
        if path.suffix == ".flac":
            written.append(path)
        write(path, data)

    monkeypatch.setattr(mini, "_write", spying)
    return written


def test_damaged_files_are_made_anew_and_the_others_left_alone(small, tmp_path, monkeypatch):
    made, _ = small
    table = espeak.prepare(tmp_path, hours=HOURS)
    cut, flipped, gone = (Path(path) for path in table.path[:3])
    cut.write_bytes(cut.read_bytes()[:1000])
    data = bytearray(flipped.read_bytes())
    data[-100] ^= 1
    flipped.write_bytes(data)
    gone.unlink()
    with open(gone.parents[1] / "checksums.txt", "a") as log:
        log.write("u00000")  # a line that a kill cut short
    written = spy(monkeypatch)
    espeak.prepare(tmp_path, hours=HOURS)
    assert sorted(written) == [cut, flipped, gone]
    assert digests(tmp_path) == digests(made)


def test_killed_in_the_middle_then_finished_by_two_at_once(tmp_path, monkeypatch):
    hours = 0.06
    command = f"from korser.corpora import espeak; espeak.prepare({str(tmp_path / 'a')!r}, hours={hours}, n_workers=2)"
    process = subprocess.Popen([sys.executable, "-c", command], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("*.flac"))) < 5 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    made = len(list(tmp_path.rglob("*.flac")))
    total = len(espeak.design(hours))
    assert 5 <= made < total
    written = spy(monkeypatch)
    with ThreadPoolExecutor() as pool:
        tables = list(pool.map(lambda _: espeak.prepare(tmp_path / "a", hours=hours, n_workers=2), range(2)))
    assert tables[0].equals(tables[1])
    assert len(written) == len(set(written)) <= total - made + 4  # those whose line in checksums.txt was not yet there
    espeak.prepare(tmp_path / "b", hours=hours)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_a_complete_corpus_is_only_read(small, monkeypatch):
    made, table = small
    monkeypatch.setattr(mini, "_Worker", None)
    monkeypatch.setattr(mini, "_write", None)
    assert espeak.prepare(made, hours=HOURS).equals(table)


def test_other_rules_get_another_folder(small, monkeypatch):
    _, table = small
    assert espeak._digest(0) in table.path[0]
    monkeypatch.setattr(espeak, "WHERE", (*espeak.WHERE[:-1], "시장에서"))
    assert espeak._digest(0) not in table.path[0]


# What may go wrong


def test_no_espeak(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(UserError, match="pip install espeakng-loader"):
        espeak.prepare(tmp_path, hours=HOURS)


def test_a_failure_stops_the_rest_and_the_same_call_goes_on(small, tmp_path, monkeypatch):
    made, _ = small
    encode, calls = espeak._encode, []

    def failing(pieces, row):
        calls.append(row.id)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return encode(pieces, row)

    with monkeypatch.context() as patch:
        patch.setattr(espeak, "_encode", failing)
        with pytest.raises(UserError, match=f"{tmp_path}.*No space left.*data_folder"):
            espeak.prepare(tmp_path, hours=HOURS, n_workers=1)
    assert len(calls) < 8
    espeak.prepare(tmp_path, hours=HOURS)
    assert digests(tmp_path) == digests(made)


@pytest.mark.parametrize("folder", [None, ""])
def test_no_folder(folder):
    with pytest.raises(UserError, match="data_folder is"):
        espeak.prepare(folder, hours=HOURS)
