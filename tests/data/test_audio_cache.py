"""Scanning a corpus's files into the store, and reading them from it."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from test_audio import bad_files, tone, write

from korser.corpora.segments import Segment
from korser.data import audio_cache
from korser.data.audio import audio_digest, read_audio, read_segments
from korser.data.audio_cache import AudioStore, scan_audio
from korser.data.bad_recordings import LengthLimits
from korser.data.split_checks import check_splits
from korser.utils.errors import UserError
from korser.utils.files import read_csv


def noise(n, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, n)


def bits(audio):
    return audio.view(torch.int32)


@pytest.fixture
def paths(tmp_path):
    """Utterances in every kind of file: encoding, container, rate, channels."""
    paths = [
        write(tmp_path / "pcm16.wav", noise(4000)),
        write(tmp_path / "pcm24.wav", noise(4100), subtype="PCM_24"),
        write(tmp_path / "float.wav", noise(4200), subtype="FLOAT"),
        write(tmp_path / "a.flac", noise(4300)),
        write(tmp_path / "a.ogg", noise(4400), subtype="VORBIS"),
        write(tmp_path / "48k.flac", tone(0.25, 48000), 48000),
        write(tmp_path / "stereo.wav", np.stack([noise(4500), noise(4500, 1)], 1)),
        tmp_path / "raw.pcm",
    ]
    paths[-1].write_bytes((tone() * 32767).astype("<i2").tobytes())
    return paths


@pytest.fixture
def decoded(monkeypatch):
    """Names of the files that are decoded from now on."""
    names = []
    monkeypatch.setattr(
        audio_cache, "read_segments", lambda given: names.append(os.path.basename(given[0])) or read_segments(given)
    )
    return names


def test_the_scan_measures_and_the_store_returns_the_same_bits_without_decoding(tmp_path, paths, decoded):
    table = scan_audio(paths, tmp_path / "cache")
    assert list(table.index) == list(table["path"]) == [str(path) for path in paths]
    assert list(table["samples"]) == [4000, 4100, 4200, 4300, 4400, 4000, 4500, 8000]
    assert (table["duration"] == table["samples"] / 16000).all()
    assert sorted(decoded) == sorted(path.name for path in paths)
    store, dtypes = AudioStore(tmp_path / "cache"), {}
    for path, row in zip(paths, table.itertuples()):
        expected = read_audio(path)
        assert row.digest == audio_digest(expected)
        assert bits(store.waveform(row.path, row.digest)).equal(bits(expected)), path
        dtypes[path.name] = store.read(row.path, row.digest).dtype
    assert {name for name, dtype in dtypes.items() if dtype == torch.int16} == {"pcm16.wav", "a.flac", "raw.pcm"}
    assert len(decoded) == len(paths)


def test_nothing_is_written_beside_the_store(tmp_path, paths):
    table = scan_audio(paths, tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["audio"]
    (samples,) = (tmp_path / "cache" / "audio").glob("*.bin")
    sizes = [2 if path.name in ("pcm16.wav", "a.flac", "raw.pcm") else 4 for path in paths]  # bytes
    assert 0 <= samples.stat().st_size - (sizes * table["samples"]).sum() < 64 * len(paths)


def test_only_new_and_changed_files_are_decoded(tmp_path, decoded):
    paths = [write(tmp_path / f"{i}.wav", tone(frequency=100 + i), 8000) for i in range(4)]
    first = scan_audio(paths, tmp_path / "cache")
    decoded.clear()
    assert scan_audio(paths, tmp_path / "cache").equals(first) and decoded == []

    write(paths[1], tone(0.25), 8000)
    os.utime(paths[2], (1, 1))
    paths.append(write(tmp_path / "new.wav", tone(), 8000))
    second = scan_audio(paths, tmp_path / "cache")
    assert sorted(decoded) == ["1.wav", "2.wav", "new.wav"]
    assert second["samples"].tolist() == [16000, 8000, 16000, 16000, 16000]
    assert second.iloc[[0, 2, 3]].equals(first.iloc[[0, 2, 3]])
    for row in second.itertuples():  # both recordings of 1.wav have entries
        assert AudioStore(tmp_path / "cache").waveform(row.path, row.digest).equal(read_audio(row.path))


def test_the_same_recording_is_stored_once(tmp_path):
    x = (noise(3000) * 32768).astype(np.int16)
    paths = [write(tmp_path / name, x) for name in ("a.wav", "a.flac", "b.wav")]
    table = scan_audio(paths, tmp_path / "cache")
    assert table["digest"].nunique() == 1
    (samples,) = (tmp_path / "cache" / "audio").glob("*.bin")
    assert samples.stat().st_size < 2 * 3000 + 64


def test_a_recording_in_two_containers_is_a_leak(tmp_path):
    paths = [write(tmp_path / name, (32767 * tone()).astype("<i2")) for name in ("a.wav", "a.flac")]
    paths.append(write(tmp_path / "b.wav", tone(frequency=300)))
    data = scan_audio(paths, tmp_path / "cache").assign(split=["train", "test", "valid"])
    with pytest.raises(UserError, match="a.wav, .*a.flac are the same audio"):
        check_splits(data, "random_stratified")


def test_silent_and_very_short_files_are_reported(tmp_path, caplog):
    paths = [write(tmp_path / "a.wav", tone()), write(tmp_path / "quiet.wav", tone(peak=0.001))]
    scan_audio(paths, tmp_path / "cache")
    assert not caplog.messages
    paths += [write(tmp_path / f"silent{i}.flac", np.zeros(9600 + i), 8000) for i in range(2)]
    paths.append(write(tmp_path / "short.wav", tone(0.09)))
    for _ in range(2):  # the second scan reads the list of known files
        caplog.clear()
        scan_audio([*paths, paths[0]], tmp_path / "cache")
        assert caplog.messages == [
            f"1 of 5 audio files: copy ({paths[0]}: listed 2 times)",
            f"2 of 5 audio files: silent ({paths[2]}: the largest sample is 0 and 1 more)",
            f"1 of 5 audio files: short ({paths[4]}: 0.090 s)",
        ]


@pytest.mark.parametrize("column", range(5))
def test_a_changed_digit_in_the_list_of_files_is_noticed(tmp_path, column):
    path = write(tmp_path / "a.wav", tone())
    first = scan_audio([path], tmp_path / "cache")
    files = tmp_path / "cache" / "audio" / audio_cache.FILES
    good = files.read_bytes()
    head, _, row = good.rstrip().rpartition(b"\n")
    cells = row.split(b",")
    cells[column] = cells[column][:-1] + bytes([cells[column][-1] ^ 1])
    files.write_bytes(head + b"\n" + b",".join(cells) + b"\n")
    assert scan_audio([path], tmp_path / "cache").equals(first)
    assert files.read_bytes() == good


@pytest.mark.parametrize("text", ["", "path,size\na", "\x00\x00", 'path\n"a', None])
def test_a_damaged_list_of_files_is_replaced(tmp_path, text):
    path = write(tmp_path / "a.wav", tone())
    first = scan_audio([path], tmp_path / "cache")
    files = tmp_path / "cache" / "audio" / audio_cache.FILES
    files.unlink()
    os.mkfifo(files) if text is None else files.write_text(text)
    assert scan_audio([path], tmp_path / "cache").equals(first)
    assert len(files.read_text().splitlines()) == 3


def test_any_file_name(tmp_path, decoded):
    names = ["한글.wav", 'a "quoted", name.wav', os.fsdecode(b"\xb0\xa1.wav")]  # the last in CP949
    paths = [write(tmp_path / "a.wav", tone()).rename(tmp_path / name) for name in names]
    first = scan_audio(paths, tmp_path / "cache")
    decoded.clear()
    assert scan_audio(paths, tmp_path / "cache").equals(first) and decoded == []


def test_all_bad_files_are_reported_together_and_good_ones_kept(tmp_path, decoded):
    good = write(tmp_path / "good.wav", tone())
    bad = [tmp_path / name for name in bad_files(tmp_path)]
    with pytest.raises(UserError) as error:
        scan_audio([bad[0], good, *bad[1:]], tmp_path / "cache")
    message = str(error.value)
    assert f"{len(bad)} of {len(bad) + 1} audio files" in message and f"and {len(bad) - 3} more" in message
    assert "\n" not in message and str(good) not in message
    cut = tmp_path / "cut.wav"
    cut.write_bytes(good.read_bytes()[:-4000])
    copy = shutil.copy(good, tmp_path / "copy.wav")
    with pytest.raises(UserError, match="; all are listed in .*bad.csv$"):
        scan_audio([*bad, good, copy, cut], tmp_path / "cache", bad_recordings=tmp_path / "bad.csv")
    listed = read_csv(tmp_path / "bad.csv")
    assert listed["path"].tolist() == [*map(str, bad), str(copy), str(cut)]
    assert listed["problem"].tolist() == ["unusable"] * len(bad) + ["copy", "truncated"]
    assert listed["details"].tolist()[-2:] == [f"the same audio as {good}", "0.50 s stated, 0.38 s found"]
    with pytest.raises(UserError, match="good.wav: too short: 0.500 s, but the model needs 0.625 s"):
        scan_audio([good], tmp_path / "cache", limits=LengthLimits(10_000), bad_recordings=tmp_path / "bad.csv")
    reason = r"good.wav: too long: 0.500 s, but the model takes at most 0.250 s: shorten it, leave it out.*windows: t"
    with pytest.raises(UserError, match=reason):
        scan_audio([good], tmp_path / "cache", limits=LengthLimits(1, 4000), bad_recordings=tmp_path / "bad.csv")
    assert read_csv(tmp_path / "bad.csv")["problem"].tolist() == ["unusable"]
    scan_audio([good], tmp_path / "cache", bad_recordings=tmp_path / "bad.csv")
    assert not (tmp_path / "bad.csv").exists()  # of an earlier attempt
    decoded.clear()
    assert len(scan_audio([good], tmp_path / "cache")) == 1 and decoded == []


def test_an_interrupted_scan_keeps_its_complete_shards(tmp_path, paths, monkeypatch):
    monkeypatch.setattr(audio_cache, "SHARD_SAMPLES", 8000)  # two files
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    names = []

    def interrupted(files):
        if len(names) == 5:
            raise KeyboardInterrupt
        names.extend(files)
        return read_segments(files)

    with monkeypatch.context() as patch:
        patch.setattr(audio_cache, "read_segments", interrupted)
        with pytest.raises(KeyboardInterrupt):
            scan_audio(paths, tmp_path / "cache")
    kept = [path for path in paths if AudioStore(tmp_path / "cache").store.has(audio_digest(read_audio(path)))]
    assert kept == paths[:4]
    monkeypatch.setattr(audio_cache, "read_segments", lambda files: names.extend(files) or read_segments(files))
    names.clear()
    scan_audio(paths, tmp_path / "cache")
    assert names == paths[4:]


def test_a_cache_folder_that_cannot_be_written(tmp_path, paths, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in .*file.*cache_folder"):
        scan_audio(paths, tmp_path / "file")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="cannot write in .*No space left"):
        scan_audio(paths, tmp_path / "cache")


def test_a_cleared_cache_is_filled_again_or_decoded_on_reading(tmp_path, paths, decoded):
    table = scan_audio(paths, tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    store, row = AudioStore(tmp_path / "cache"), table.iloc[1]
    decoded.clear()
    assert store.waveform(row["path"], row["digest"]).equal(read_audio(row["path"]))
    assert decoded == ["pcm24.wav"]
    assert store.fill(pd.concat([table, table]), progressbar=False) == len(table)
    decoded.clear()
    assert AudioStore(tmp_path / "cache").fill(table, progressbar=False) == 0
    assert store.read(row["path"], row["digest"]).dtype == torch.float32 and decoded == []


def test_a_damaged_shard_is_not_used(tmp_path, paths):
    table = scan_audio(paths, tmp_path / "cache")
    (shard,) = (tmp_path / "cache" / "audio").glob("*.bin")
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    store = AudioStore(tmp_path / "cache")
    for row in table.itertuples():
        assert bits(store.waveform(row.path, row.digest)).equal(bits(read_audio(row.path)))


def test_a_file_that_changed_after_the_scan_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", noise(3000))
    table = scan_audio([path], tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    write(path, noise(3000, 1))
    store = AudioStore(tmp_path / "cache")
    for read in (lambda: store.fill(table, progressbar=False), lambda: store.read(str(path), table["digest"].iloc[0])):
        with pytest.raises(UserError, match="a.wav: the audio has changed since it was scanned"):
            read()
    assert store.store.missing(table["digest"])


def test_a_file_of_many_segments_is_decoded_once_and_each_has_a_digest_of_its_own(tmp_path, decoded):
    path = str(write(tmp_path / "call.wav", np.stack([noise(48000), noise(48000, 1)], 1)))
    segments = [Segment(path, i / 100, i / 100 + 1, channel) for i in range(100) for channel in (0, 1)]
    segments.append(path)
    table = scan_audio(segments, tmp_path / "cache")
    assert decoded == ["call.wav"] and table["digest"].nunique() == 201
    assert list(table.index) == list(map(str, segments)) and set(table["path"]) == {path}
    assert table["duration"].tolist() == [1.0] * 200 + [3.0]
    assert scan_audio(segments[::-1], tmp_path / "cache").iloc[::-1].equals(table) and len(decoded) == 1
    assert scan_audio([path], tmp_path / "cache").equals(table[-1:]) and len(decoded) == 1

    frame = pd.DataFrame({"path": path, "start": [1.0, 1.5, None], "end": [2, 2.0, None], "channel": [1, None, 0]})
    frame["digest"] = [audio_digest(read_audio(Segment(path, *span))) for span in ((1, 2, 1), (1.5, 2), (0, None, 0))]
    shutil.rmtree(tmp_path / "cache")
    decoded.clear()
    assert AudioStore(tmp_path / "cache").fill(frame) == 3 and decoded == ["call.wav"]
    store = AudioStore(tmp_path / "cache").store
    assert not store.missing(frame["digest"]) and len(store.read(frame["digest"][1])) == 8000
    shutil.rmtree(tmp_path / "cache")
    store = AudioStore(tmp_path / "cache")
    assert store.waveform(segments[201 - 2], table["digest"].iloc[-2]).equal(read_audio(segments[-2]))
    with pytest.raises(UserError, match=r"call.wav#t=0.99,1.99&channel=1: the audio has changed since it was scanned"):
        store.waveform(segments[199], "0" * 32)


def test_wrong_segments_stop_the_scan_together_and_right_ones_are_kept(tmp_path):
    path = str(write(tmp_path / "a.wav", noise(16000)))
    segments = [Segment(path, 0.2, 0.7), Segment(path, 0.5, 1.5), Segment(path, 0, 0.5, 1), Segment("none.wav", 1)]
    with pytest.raises(UserError, match=r"3 of 4 audio files cannot be used: .*t=0.5,1.5: .*channel=1: .*none.wav#t=1"):
        scan_audio(segments, tmp_path / "cache", bad_recordings=tmp_path / "bad.csv")
    assert read_csv(tmp_path / "bad.csv")["path"].tolist() == [
        f"{path}#t=0.5,1.5",
        f"{path}#t=0,0.5&channel=1",
        "none.wav#t=1",
    ]
    assert AudioStore(tmp_path / "cache").store.has(audio_digest(read_audio(segments[0])))


def test_large_files_do_not_wait_for_each_other_in_memory(tmp_path, paths, monkeypatch):
    expected = scan_audio(paths, tmp_path / "a")
    monkeypatch.setattr(audio_cache, "AHEAD_BYTES", 1)
    assert scan_audio(paths, tmp_path / "b").equals(expected)
