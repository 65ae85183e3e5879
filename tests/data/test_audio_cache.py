import hashlib

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from korser.data.audio import read_audio, scan_audio
from korser.data.audio_cache import AudioStore, to_compact
from korser.data.batches import to_float
from korser.utils.errors import UserError


def write(path, x, rate=16000, **kwargs):
    soundfile.write(path, x, rate, **kwargs)
    return str(path)


def noise(n, seed=0):
    return np.random.default_rng(seed).uniform(-0.9, 0.9, n)


@pytest.fixture
def audio(tmp_path):
    """One recording in every kind of file that matters, and what the store is given for them."""
    files = {
        "pcm16.wav": {"subtype": "PCM_16"},
        "pcm24.wav": {"subtype": "PCM_24"},
        "float.wav": {"subtype": "FLOAT"},
        "a.flac": {"subtype": "PCM_16"},
        "b.flac": {"subtype": "PCM_24"},
        "a.ogg": {},
        "48k.wav": {"rate": 48000},
        "stereo.wav": {"x": np.stack([noise(5000), noise(5000, 1)], 1)},
    }
    paths = [
        write(tmp_path / name, settings.pop("x", noise(4000 + 100 * i, i)), **settings)
        for i, (name, settings) in enumerate(files.items())
    ]
    return scan_audio(paths, tmp_path / "cache")


def test_what_comes_out_is_what_read_audio_gives_to_the_bit(audio, tmp_path):
    store = AudioStore(tmp_path / "cache", read_audio)
    assert store.fill(audio, progressbar=False) == len(audio)
    store.read_audio = None  # from here on nothing is decoded
    kinds = {}
    for original, row in audio.iterrows():
        x = store.read(row["audio_path"], row["digest"])
        kinds[original.rpartition("/")[2]] = x.dtype
        assert torch.equal(to_float(x).view(torch.int32), read_audio(original).view(torch.int32)), original
    assert {name for name, dtype in kinds.items() if dtype == torch.int16} == {"pcm16.wav", "a.flac"}
    assert set(kinds.values()) == {torch.int16, torch.float32}


def test_every_16_bit_value_is_kept_and_nothing_else_is_rounded():
    every = torch.arange(-32768, 32768).float() / 32768
    assert to_compact(every).dtype == torch.int16 and torch.equal(to_float(to_compact(every)), every)
    for value in (1.0, -0.0, 0.5 / 32768, 1e-30, 1 - 2**-24):
        x = torch.tensor([0.25, value])
        assert to_compact(x) is x, value


def test_a_second_process_and_a_second_time_decode_nothing(audio, tmp_path):
    AudioStore(tmp_path / "cache", read_audio).fill(audio, progressbar=False)
    assert AudioStore(tmp_path / "cache", None).fill(audio, progressbar=False) == 0


def test_the_same_recording_twice_is_decoded_once(tmp_path):
    x = (noise(3000) * 32768).astype(np.int16)
    audio = scan_audio([write(tmp_path / "a.wav", x), write(tmp_path / "a.flac", x)], tmp_path / "cache")
    assert AudioStore(tmp_path / "cache", read_audio).fill(audio, progressbar=False) == 1


def test_other_audio_under_an_old_name_is_another_entry(tmp_path):
    store, seen = AudioStore(tmp_path / "cache", read_audio), []
    for seed in (0, 1):
        path = write(tmp_path / "a.wav", noise(3000 + seed, seed))
        (row,) = scan_audio([path], tmp_path / "cache").to_dict("records")
        store.fill(pd.DataFrame([row]), progressbar=False)
        seen.append(to_float(store.read(path, row["digest"])))
        assert torch.equal(seen[-1], read_audio(path))
    assert not torch.equal(seen[0][:3000], seen[1][:3000])


def test_a_file_that_changes_between_the_check_and_the_decoding_is_refused(tmp_path):
    path = write(tmp_path / "a.wav", noise(3000))
    audio = scan_audio([path], tmp_path / "cache")
    write(path, noise(3000, 1))
    store = AudioStore(tmp_path / "cache", read_audio)
    with pytest.raises(UserError, match="a.wav has changed since it was checked"):
        store.fill(audio, progressbar=False)
    assert store.store.missing(audio["digest"]) == audio["digest"].tolist()


def test_an_interrupted_fill_keeps_its_whole_shards(audio, tmp_path, monkeypatch):
    monkeypatch.setattr("korser.data.audio_cache.SHARD", 5000)  # samples: one or two files a shard
    decoded = []

    def interrupted(path):
        if len(decoded) == 5:
            raise KeyboardInterrupt
        decoded.append(path)
        return read_audio(path)

    monkeypatch.setattr("os.cpu_count", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        AudioStore(tmp_path / "cache", interrupted).fill(audio, progressbar=False)
    store = AudioStore(tmp_path / "cache", read_audio)
    left = store.store.missing(audio["digest"])
    assert 0 < len(left) < len(audio)
    assert store.fill(audio, progressbar=False) == len(left)
    assert not store.store.missing(audio["digest"])


def test_a_damaged_shard_does_not_come_out(audio, tmp_path):
    AudioStore(tmp_path / "cache", read_audio).fill(audio, progressbar=False)
    for shard in (tmp_path / "cache" / "samples").glob("*.bin"):
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    store = AudioStore(tmp_path / "cache", read_audio)
    for row in audio.itertuples():
        assert torch.equal(to_float(store.read(row.audio_path, row.digest)), read_audio(row.audio_path))


def test_a_cache_folder_that_cannot_be_written_in(audio, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write in"):
        AudioStore(tmp_path / "file", read_audio).fill(audio, progressbar=False)


def test_the_digest_is_that_of_the_scan(tmp_path):
    path = write(tmp_path / "a.flac", noise(2000))
    expected = hashlib.sha256(read_audio(path).numpy().tobytes()).hexdigest()
    assert expected.startswith(scan_audio([path], tmp_path / "cache")["digest"].iloc[0])
