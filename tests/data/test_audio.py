import os

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import torchaudio.functional

import korser.data.audio
from korser.data.audio import read_audio, scan_audio
from korser.data.split_checks import check_splits
from korser.utils.errors import UserError


def tone(seconds=0.5, rate=16000, frequency=440, peak=0.5):
    return (peak * np.sin(2 * np.pi * frequency * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def write(path, samples, rate=16000, subtype="PCM_16"):
    soundfile.write(path, samples, rate, subtype=subtype)
    return path


@pytest.mark.parametrize(
    "ending, subtype", [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24"), ("ogg", "VORBIS")]
)
def test_reads_what_libsndfile_reads(tmp_path, ending, subtype):
    x = tone()
    audio = read_audio(write(tmp_path / f"a.{ending}", x, subtype=subtype))
    assert audio.dtype == torch.float32 and audio.shape == x.shape
    assert np.abs(audio.numpy() - x).max() < (0.05 if subtype == "VORBIS" else 1e-4)


def test_headerless_pcm_is_16_bit_little_endian(tmp_path):
    samples = np.array([0, 1, -1, 32767, -32768], "<i2")
    (tmp_path / "a.PCM").write_bytes(samples.tobytes())
    assert torch.equal(read_audio(tmp_path / "a.PCM"), torch.tensor([0, 1, -1, 32767, -32768]) / 32768)


def test_stereo_is_averaged(tmp_path):
    stereo = np.stack([tone(), 0.5 * tone(frequency=300)], 1)
    audio = read_audio(write(tmp_path / "a.wav", stereo, subtype="FLOAT"))
    np.testing.assert_allclose(audio.numpy(), stereo.mean(1), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    x = tone(rate=rate)
    audio = read_audio(write(tmp_path / "a.wav", x, rate, "FLOAT"))
    assert torch.equal(audio, torchaudio.functional.resample(torch.from_numpy(x), rate, 16000).clamp(-1, 1))
    np.testing.assert_allclose(audio.numpy()[100:-100], tone()[: len(audio)][100:-100], atol=5e-3)


def test_stays_within_full_scale(tmp_path):
    square = np.sign(tone(rate=48000)).astype(np.float32)  # resampling overshoots its edges
    audio = read_audio(write(tmp_path / "a.wav", square, 48000, "FLOAT"))
    assert audio.abs().max() == 1


def test_a_small_excess_is_clipped(tmp_path):
    audio = read_audio(write(tmp_path / "a.wav", tone(peak=1.2), subtype="FLOAT"))
    np.testing.assert_array_equal(audio.numpy(), tone(peak=1.2).clip(-1, 1))


def bad_files(folder):
    """``{file: what its error says}``"""
    nan, inf = tone(), tone()
    nan[7], inf[7] = np.nan, np.inf
    write(folder / "nan.wav", nan, subtype="FLOAT")
    write(folder / "inf.wav", inf, subtype="FLOAT")
    write(folder / "unscaled.wav", 32768 * tone(), subtype="FLOAT")
    write(folder / "loud.wav", tone(peak=1.6), subtype="FLOAT")
    write(folder / "empty.wav", np.zeros(0, np.float32))
    (folder / "nothing.wav").write_bytes(b"")
    (folder / "nothing.pcm").write_bytes(b"")
    (folder / "odd.pcm").write_bytes(b"abc")
    (folder / "text.wav").write_text("this is no audio")
    (folder / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "folder.wav").mkdir()
    (folder / "headerless.raw").write_bytes(b"abcd")
    return {
        "nan.wav": "NaN",
        "inf.wav": "infinite",
        "unscaled.wav": "scale them",
        "loud.wav": "reach 1.6: scale them",
        "empty.wav": "no audio",
        "nothing.wav": "not audio",
        "nothing.pcm": "no audio",
        "odd.pcm": "3 bytes",
        "text.wav": "not audio",
        "pointer.wav": "git lfs pull",
        "folder.wav": "Is a directory",
        "headerless.raw": "not audio",
        "missing.wav": "No such file",
        "missing.pcm": "No such file",
    }


def test_bad_files_give_one_line_that_names_them(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(UserError) as error:
            read_audio(tmp_path / name)
        message = str(error.value)
        assert str(tmp_path / name) in message and reason in message and "\n" not in message


def test_scan_measures_and_converts_only_what_needs_it(tmp_path):
    paths = [
        write(tmp_path / "plain.wav", tone()),
        write(tmp_path / "stereo.wav", np.stack([tone(), tone(frequency=300)], 1)),
        write(tmp_path / "rate.flac", tone(1, 48000), 48000),
        tmp_path / "raw.pcm",
    ]
    paths[3].write_bytes((tone() * 32767).astype("<i2").tobytes())
    table = scan_audio(paths, tmp_path / "cache", n_workers=2)
    assert list(table.index) == [str(p) for p in paths]
    assert list(table["samples"]) == [8000, 8000, 16000, 8000]
    assert list(table["duration"]) == [0.5, 0.5, 1.0, 0.5]
    assert table["digest"].nunique() == 4 and table["digest"].str.fullmatch("[0-9a-f]{16,}").all()
    assert table["audio_path"].iloc[0] == str(paths[0])
    assert all(str(tmp_path / "cache" / "audio") in p for p in table["audio_path"].iloc[1:])
    for original, row in zip(paths, table.itertuples()):
        assert torch.equal(read_audio(row.audio_path), read_audio(original))  # to the bit
        info = soundfile.info(row.audio_path)
        assert (info.samplerate, info.channels, info.frames) == (16000, 1, row.samples)


def test_silent_and_very_short_files_are_told(tmp_path, caplog):
    paths = [write(tmp_path / "a.wav", tone()), write(tmp_path / "quiet.wav", tone(peak=0.001))]
    scan_audio(paths, tmp_path / "cache")
    assert not caplog.messages
    paths += [write(tmp_path / f"silent{i}.flac", np.zeros(9600 + i), 8000) for i in range(2)]
    paths.append(write(tmp_path / "short.wav", tone(0.09)))
    expected = [
        f"2 of 5 audio files are silent ({paths[2]}, ...): mend or leave out",
        f"1 of 5 audio files is shorter than 0.1 s ({paths[4]}): mend or leave out",
    ]
    for _ in range(2):  # from the scan that is kept, too
        caplog.clear()
        scan_audio(paths, tmp_path / "cache")
        assert caplog.messages == expected


def test_scan_reads_a_file_once_until_it_changes(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"{i}.wav", tone(frequency=100 + i), 8000) for i in range(5)]
    first = scan_audio(paths, tmp_path / "cache")
    read, scanned = korser.data.audio._read, []
    monkeypatch.setattr(korser.data.audio, "_read", lambda path: scanned.append(str(path)) or read(path))
    assert scan_audio(paths, tmp_path / "cache").equals(first) and scanned == []

    write(paths[1], tone(1, 8000), 8000)
    os.remove(first["audio_path"].iloc[2])
    write(tmp_path / "new.wav", tone(), 8000)
    second = scan_audio([*paths, tmp_path / "new.wav"], tmp_path / "cache")
    assert sorted(scanned) == [str(paths[1]), str(paths[2]), str(tmp_path / "new.wav")]
    assert second["digest"].iloc[1] != first["digest"].iloc[1] and second["samples"].iloc[1] == 16000
    assert second.iloc[[0, 2, 3, 4]].equals(first.iloc[[0, 2, 3, 4]])


@pytest.mark.parametrize("text", ["", "path,size\na", "\x00\x00", 'path\n"a'])
def test_a_damaged_scan_file_is_made_anew(tmp_path, text):
    path = write(tmp_path / "a.wav", tone())
    first = scan_audio([path], tmp_path / "cache")
    (tmp_path / "cache" / "audio" / korser.data.audio.SCAN).write_text(text)
    assert scan_audio([path], tmp_path / "cache").equals(first)
    assert len((tmp_path / "cache" / "audio" / korser.data.audio.SCAN).read_text().splitlines()) == 2


def test_any_file_name(tmp_path, monkeypatch):
    names = ["한글.wav", 'a "quoted", name.wav', os.fsdecode(b"\xb0\xa1.wav")]  # the last as CP949 left it
    paths = [write(tmp_path / "a.wav", tone()).rename(tmp_path / name) for name in names]
    first = scan_audio(paths, tmp_path / "cache")
    monkeypatch.setattr(korser.data.audio, "_read", lambda path: pytest.fail("all are known by now"))
    assert scan_audio(paths, tmp_path / "cache").equals(first)


def test_same_audio_has_the_same_digest(tmp_path):
    """Whatever the container: the leak check goes by it."""
    x = (32767 * tone()).astype("<i2")
    paths = [
        write(tmp_path / "a.wav", x),
        write(tmp_path / "b.wav", x),
        write(tmp_path / "c.flac", x),
        write(tmp_path / "d.wav", np.stack([x, x], 1)),
        tmp_path / "e.pcm",
    ]
    paths[4].write_bytes(x.tobytes())
    table = scan_audio(paths, tmp_path / "cache", n_workers=2)
    assert table["digest"].nunique() == 1
    assert [os.path.basename(p) for p in table["audio_path"][:3]] == ["a.wav", "b.wav", "c.flac"]
    assert set(table["audio_path"][3:]) == {str(tmp_path / "cache" / "audio" / f"{table['digest'].iloc[0]}.wav")}
    assert torch.equal(read_audio(table["audio_path"].iloc[3]), read_audio(paths[0]))
    other = scan_audio([write(tmp_path / "f.wav", tone(frequency=441))], tmp_path / "cache")
    assert other["digest"].iloc[0] != table["digest"].iloc[0]


def test_a_recording_in_two_containers_is_a_leak(tmp_path):
    x = (32767 * tone()).astype("<i2")
    paths = [write(tmp_path / name, x) for name in ("a.wav", "a.flac")]
    paths.append(write(tmp_path / "b.wav", tone(frequency=300)))
    data = pd.DataFrame({"path": [str(p) for p in paths], "split": ["train", "test", "valid"]})
    data["digest"] = scan_audio(paths, tmp_path / "cache")["digest"].tolist()
    with pytest.raises(UserError, match="a.wav, .*a.flac are the same audio"):
        check_splits(data, "random_stratified")


def test_a_scan_by_the_files_bytes_is_not_used(tmp_path):
    path = write(tmp_path / "a.wav", tone())
    stat = os.stat(path)
    (tmp_path / "cache" / "audio").mkdir(parents=True)
    row = f"{path},{stat.st_size},{stat.st_mtime_ns},1,1.0,{'0' * 32},0"
    (tmp_path / "cache" / "audio" / "scan.csv").write_text(f"{','.join(korser.data.audio.SCAN_COLUMNS)}\n{row}\n")
    assert scan_audio([path], tmp_path / "cache")["samples"].iloc[0] == 8000


def test_scan_gathers_all_bad_files_and_keeps_the_good(tmp_path, monkeypatch):
    good = write(tmp_path / "good.wav", tone())
    bad = [tmp_path / name for name in bad_files(tmp_path)]
    with pytest.raises(UserError) as error:
        scan_audio([bad[0], good, *bad[1:]], tmp_path / "cache")
    message = str(error.value)
    assert f"{len(bad)} of {len(bad) + 1} audio files" in message and f"and {len(bad) - 3} more" in message
    assert "\n" not in message and str(good) not in message
    monkeypatch.setattr(korser.data.audio, "_read", lambda path: pytest.fail("the good file is known by now"))
    assert len(scan_audio([good], tmp_path / "cache")) == 1


def test_a_kill_leaves_no_half_files(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(), 8000)

    def dies(file, *args, **kwargs):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(soundfile, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            scan_audio([path], tmp_path / "cache")
    assert list((tmp_path / "cache" / "audio").iterdir()) == []
    table = scan_audio([path], tmp_path / "cache")
    assert torch.equal(read_audio(table["audio_path"].iloc[0]), read_audio(path))


def test_a_full_disk_is_not_called_a_bad_file(tmp_path, monkeypatch):
    path = write(tmp_path / "a.wav", tone(), 8000)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(soundfile, "write", full)
    with pytest.raises(UserError, match="cannot write in cache_folder .*No space left"):
        scan_audio([path], tmp_path / "cache")
