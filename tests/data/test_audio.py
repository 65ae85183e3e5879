import os

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from korser.data.audio import audio_digest, read_audio, to_compact, to_float
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


@pytest.mark.parametrize("rate", [8000, 44100])
def test_other_rates_are_resampled(tmp_path, rate):
    x = tone(rate=rate)
    audio = read_audio(write(tmp_path / "a.wav", x, rate, "FLOAT"))
    assert torch.equal(audio, torchaudio.functional.resample(torch.from_numpy(x), rate, 16000).clamp(-1, 1))
    np.testing.assert_allclose(audio.numpy()[100:-100], tone()[: len(audio)][100:-100], atol=5e-3)


@pytest.mark.parametrize("rate", [11127, 44101])
def test_unusual_rates_do_not_take_gigabytes(tmp_path, rate, monkeypatch):
    monkeypatch.setattr(torchaudio.functional, "resample", None)  # its kernel has (16000 * rate) values here
    audio = read_audio(write(tmp_path / "a.wav", tone(rate=rate), rate, "FLOAT"))
    assert audio.dtype == torch.float32 and abs(len(audio) - 8000) <= 2
    np.testing.assert_allclose(audio.numpy()[100:-100], tone()[: len(audio)][100:-100], atol=5e-3)


def test_resampled_audio_stays_within_full_scale(tmp_path):
    square = np.sign(tone(rate=48000)).astype(np.float32)  # resampling overshoots its edges
    audio = read_audio(write(tmp_path / "a.wav", square, 48000, "FLOAT"))
    assert audio.abs().max() == 1


def test_a_small_excess_is_clipped(tmp_path):
    audio = read_audio(write(tmp_path / "a.wav", tone(peak=1.2), subtype="FLOAT"))
    np.testing.assert_array_equal(audio.numpy(), tone(peak=1.2).clip(-1, 1))


def bad_files(folder):
    """Write bad files; return ``{file: reason in its error}``."""
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
    write(folder / "hz.wav", tone(), 1)
    write(folder / "ghz.wav", tone(), 2**31 - 1)
    os.mkfifo(folder / "fifo.wav")
    (folder / "full.wav").symlink_to("/dev/full")
    (folder / "zero.pcm").symlink_to("/dev/zero")
    return {
        "nan.wav": "NaN",
        "inf.wav": "infinite",
        "unscaled.wav": "scale them",
        "loud.wav": "reach 1.6: scale them",
        "empty.wav": "no audio",
        "nothing.wav": "not a readable audio file",
        "nothing.pcm": "no audio",
        "odd.pcm": "3 bytes",
        "text.wav": "not a readable audio file",
        "pointer.wav": "git lfs pull",
        "folder.wav": "Is a directory",
        "headerless.raw": "not a readable audio file",
        "hz.wav": "sampling rate 1 Hz, expected 1000 to 768000",
        "ghz.wav": "sampling rate 2147483647 Hz",
        "fifo.wav": "a FIFO, expected a file",
        "full.wav": "a device, expected a file",
        "zero.pcm": "a device, expected a file",
        "missing.wav": "No such file",
        "missing.pcm": "No such file",
    }


def test_bad_files_are_named_with_the_reason_in_one_line(tmp_path):
    for name, reason in bad_files(tmp_path).items():
        with pytest.raises(UserError) as error:
            read_audio(tmp_path / name)
        message = str(error.value)
        assert str(tmp_path / name) in message and reason in message and "\n" not in message


def test_the_digest_is_of_the_samples_not_of_the_container(tmp_path):
    x = (32767 * tone()).astype("<i2")
    paths = [write(tmp_path / name, x) for name in ("a.wav", "b.flac")]
    paths.append(write(tmp_path / "stereo.wav", np.stack([x, x], 1)))
    (tmp_path / "c.pcm").write_bytes(x.tobytes())
    digests = {audio_digest(read_audio(path)) for path in [*paths, tmp_path / "c.pcm"]}
    assert len(digests) == 1 and len(digests.pop()) == 32
    assert audio_digest(read_audio(write(tmp_path / "d.wav", tone(frequency=441)))) not in digests


def test_every_16_bit_value_is_compact_and_nothing_else_is_rounded():
    every = torch.arange(-32768, 32768).float() / 32768
    assert to_compact(every).dtype == torch.int16 and torch.equal(to_float(to_compact(every)), every)
    for value in (1.0, -0.0, 0.5 / 32768, 1e-30, 1 - 2**-24):
        x = torch.tensor([0.25, value])
        assert to_compact(x) is x, value
