import io
import os
import shlex

import numpy as np
import pytest
import soundfile
import torch
import torchaudio.functional

from korser.corpora.segments import Segment
from korser.data import audio, decoder
from korser.data.audio import audio_digest, read_audio, read_blocks, read_recording, read_segments, to_compact, to_float
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
    (folder / "pages.m4a").write_bytes(b"\0\0\0\x20ftypM4A \0\0\0\0" + bytes(99))
    (folder / "text.wav").write_text("this is no audio")
    (folder / "pointer.wav").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    (folder / "page.wav").write_text("<!DOCTYPE html>")
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
        "pages.m4a": "MPEG-4",
        "page.wav": "a web page: download",
        "text.wav": "not a readable audio file",
        "pointer.wav": "git lfs pull",
        "folder.wav": "Is a directory",
        "headerless.raw": "not a readable audio file",
        "hz.wav": "the header states 1 Hz, expected 1000 to 768000",
        "ghz.wav": "the header states 2147483647 Hz",
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


def notes(path):
    return [(note.code, note.text) for note in read_recording(path).notes]


def encoded(samples, **options):
    file = io.BytesIO()
    soundfile.write(file, samples, 16000, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind, chunk", [("WAV", b"data"), ("AIFF", b"SSND"), ("AU", b".snd")])
@pytest.mark.parametrize(
    "length, code, said",
    [(8000, "wrong_length", "0.25 s"), (0, "wrong_length", "no length"), (0xFFFFFFFF, "wrong_length", "no length")],
)
def test_a_wrong_length_in_the_header_is_not_believed(tmp_path, kind, chunk, length, code, said):
    x = tone(1)
    data, order = bytearray(encoded(x, format=kind, subtype="PCM_16")), "little" if kind == "WAV" else "big"
    position = 8 if kind == "AU" else data.index(chunk) + 4
    data[position : position + 4] = length.to_bytes(4, order)
    (tmp_path / "a.wav").write_bytes(data)
    audio = read_audio(tmp_path / "a.wav")
    assert len(audio) == 16000 and np.abs(audio.numpy() - x).max() < 1e-4
    assert notes(tmp_path / "a.wav") == [(code, f"{said} stated, 1.00 s found")]


@pytest.mark.parametrize(
    "options, found",
    [
        ({"format": "WAV", "subtype": "PCM_16"}, 0.49),
        ({"format": "RF64", "subtype": "PCM_16"}, 0.49),
        ({"format": "AIFF", "subtype": "PCM_16"}, 0.49),
        ({"format": "FLAC", "subtype": "PCM_16"}, 0.3),
        ({"format": "MP3", "subtype": "MPEG_LAYER_III"}, 0.4),
        ({"format": "OGG", "subtype": "VORBIS"}, 0.3),
        ({"format": "W64", "subtype": "PCM_16"}, 0.49),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_truncated_file_is_read_as_far_as_it_goes(tmp_path, options, found):
    whole = 10 if options["format"] == "OGG" else 2  # its pages are only readable as a whole
    data = encoded(np.random.default_rng(0).uniform(-0.3, 0.3, whole * 16000), **options)
    (tmp_path / "a").write_bytes(data[: len(data) // 2])
    seconds = len(read_audio(tmp_path / "a")) / 16000
    assert found <= seconds / whole < 0.5
    said = "no end" if options["format"] == "OGG" else "2.00 s"
    assert notes(tmp_path / "a") == [("truncated", f"{said} stated, {seconds:.2f} s found")]
    (tmp_path / "a").write_bytes(data)
    assert notes(tmp_path / "a") == []


def test_damage_in_the_middle_is_noted(tmp_path):
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 32000)
    for options in ({"format": "OGG", "subtype": "VORBIS"}, {"format": "MP3", "subtype": "MPEG_LAYER_III"}):
        data = encoded(x, **options)
        middle = slice(len(data) // 2, len(data) // 2 + 1000)
        (tmp_path / "a").write_bytes(data[: middle.start] + bytes(1000) + data[middle.stop :])
        ((code, text),) = notes(tmp_path / "a")
        assert code == "truncated" and text.startswith("2.00 s stated, ") and read_audio(tmp_path / "a").any()
    data = encoded(x, format="CAF", subtype="PCM_16")
    (tmp_path / "a").write_bytes(data[:20000] + data[24000:])
    assert notes(tmp_path / "a") == [("truncated", "2.00 s stated, 1.87 s found")]


def test_a_file_called_pcm_that_is_none(tmp_path):
    for options in ({"format": "MP3", "subtype": "MPEG_LAYER_III"}, {"format": "CAF", "subtype": "PCM_16"}):
        (tmp_path / "a.pcm").write_bytes(encoded(tone(1.0), **options))
        assert len(read_audio(tmp_path / "a.pcm")) == 16000
    samples = np.array([-1, -1, -1, 3] * 400, "<i2")  # begins like a frame of MP3
    samples.tofile(tmp_path / "b.pcm")
    assert len(read_audio(tmp_path / "b.pcm")) == 1600


def test_streams_without_an_index_are_read_completely(tmp_path):
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 48000) * np.repeat([1, 0.001], 24000)
    mp3 = encoded(x, format="MP3", subtype="MPEG_LAYER_III", bitrate_mode="VARIABLE")
    (tmp_path / "a.mp3").write_bytes(mp3[mp3.index(mp3[:2], 4) :])  # the first frame is the index
    assert 48000 <= len(read_audio(tmp_path / "a.mp3")) < 50000
    ((code, text),) = notes(tmp_path / "a.mp3")
    assert code == "wrong_length" and text.endswith("3.10 s found") and float(text.split()[0]) < 2.5
    flac = bytearray(encoded(x, format="FLAC", subtype="PCM_16"))
    flac[21] &= 0xF0  # 36 bits: the number of samples
    flac[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(flac)
    assert len(read_audio(tmp_path / "a.flac")) == 48000
    assert notes(tmp_path / "a.flac") == [("wrong_length", "no length stated, 3.00 s found")]


def test_all_samples_of_flac_and_of_chained_ogg_streams_are_read(tmp_path):
    x = np.random.default_rng(0).uniform(-0.3, 0.3, 32000)
    flac = bytearray(encoded(x, format="FLAC", subtype="PCM_16"))
    for stated, code in ((8000, "wrong_length"), (64000, "truncated")):
        flac[22:26] = stated.to_bytes(4, "big")
        (tmp_path / "a.flac").write_bytes(flac)
        assert len(read_audio(tmp_path / "a.flac")) == 32000
        assert notes(tmp_path / "a.flac") == [(code, f"{stated / 16000:.2f} s stated, 2.00 s found")]
    for subtype in "VORBIS", "OPUS":
        first = encoded(x, format="OGG", subtype=subtype)
        second = encoded(x[:16000], format="OGG", subtype=subtype)
        (tmp_path / "a.ogg").write_bytes(first + second)
        assert len(read_audio(tmp_path / "a.ogg")) == 48000 and notes(tmp_path / "a.ogg") == []
        (tmp_path / "a.ogg").write_bytes(first + second[:100])
        assert [code for code, _ in notes(tmp_path / "a.ogg")] == ["truncated"]
        stereo = encoded(np.stack([x, x], 1), format="OGG", subtype=subtype)
        (tmp_path / "a.ogg").write_bytes(first + stereo)
        with pytest.raises(UserError, match="different channels or rates .1 at 16000 Hz and 2 at 16000 Hz"):
            read_audio(tmp_path / "a.ogg")


def test_what_follows_the_samples_of_a_wav_is_not_audio(tmp_path):
    data = encoded(tone(), format="WAV", subtype="PCM_16")
    chunk = b"LIST" + (3000).to_bytes(4, "little") + bytes(range(1, 251)) * 12
    for rest in (chunk, chunk * 2, b"ID3" + bytes(range(256)) * 20, bytes(5000), b"TAG" + b"x" * 125):
        (tmp_path / "a.wav").write_bytes(data + rest)
        assert len(read_audio(tmp_path / "a.wav")) == 8000 and notes(tmp_path / "a.wav") == []
    (tmp_path / "a.wav").write_bytes(data + data[44:])
    assert len(read_audio(tmp_path / "a.wav")) == 16000


@pytest.mark.parametrize(
    "start, name",
    [
        (b"\0\0\0\x1cftypisom", "MPEG-4"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01", "WebM or Matroska"),
        (b"#!AMR-WB\n", "AMR"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9", "Windows Media"),
        (b"\xff\xf1\x50\x80\x02\x1f\xfc", "AAC"),
    ],
)
def test_a_format_that_libsndfile_does_not_know_is_named_with_the_command(tmp_path, start, name):
    for file, converted in (("my voice.m4a", "my voice.wav"), ("b.wav", "b.flac")):
        (tmp_path / file).write_bytes(start + bytes(200))
        with pytest.raises(UserError) as error:
            read_audio(tmp_path / file)
        command = shlex.split(str(error.value).partition("`")[2].rstrip("`"))
        assert name in str(error.value)
        assert command == ["ffmpeg", "-i", str(tmp_path / file), str(tmp_path / converted)]


def test_suspicious_audio_is_noted_with_numbers(tmp_path):
    x = tone()
    cases = {
        "opposite.wav": (np.stack([x, -0.99 * x], 1), "opposite_phase", "100.0 % of the power is lost"),
        "one_channel.wav": (np.stack([x, 0 * x], 1), None, ""),
        "silent.wav": (np.zeros((8000, 2)), "silent", "the largest sample is 0"),
        "constant.wav": (np.full(8000, 0.25), "silent", "the largest sample is 0, around 0.25"),
        "short.wav": (x[:800], "short", "0.050 s"),
    }
    for name, (samples, code, text) in cases.items():
        found = notes(write(tmp_path / name, samples))
        assert [note[0] for note in found] == ([code] if code else []) and all(text in note[1] for note in found)
    (tmp_path / "odd.pcm").write_bytes((32767 * x).astype("<i2").tobytes() + b"a")
    assert notes(tmp_path / "odd.pcm") == [
        ("odd_bytes", "16001 bytes are not whole 16-bit samples: the last one is left out")
    ]
    assert len(read_audio(tmp_path / "odd.pcm")) == 8000
    write(tmp_path / "a.wav", x).rename(tmp_path / "a.pcm")
    assert len(read_audio(tmp_path / "a.pcm")) == 8000 and notes(tmp_path / "a.pcm") == []


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


SPANS = [(0.5, 1.5), (0.0, None), (1.2345, 1.3), (1.0, None), (0.5, 1.5), (0.25, 2.005), (1.9, 2.0), (0.0, 0.1)]


@pytest.mark.parametrize("rate, block", [(16000, 2**18), (44100, 997)])
def test_a_segment_equals_a_file_of_its_own(tmp_path, monkeypatch, rate, block):
    """Whatever its rate and however it is decoded, whichever others are asked for."""
    monkeypatch.setattr("korser.data.containers.BLOCK", block)
    x = np.random.default_rng(0).integers(-9000, 9000, (2 * rate, 2)).astype(np.int16)
    whole = write(tmp_path / "call.flac", x, rate)
    segments = [Segment(str(whole), *span, channel) for span in SPANS for channel in (0, 1, None)]
    found = dict(read_segments(segments))
    for i, segment in enumerate(segments):
        start, end = (round(s * rate) for s in (segment.start, 2 if segment.end is None else segment.end))
        channels = slice(None) if segment.channel is None else [segment.channel]
        own = read_recording(write(tmp_path / "own.wav", x[start:end, channels], rate))
        for recording in (found[i], read_recording(segment)):
            assert recording.audio.view(torch.int32).equal(own.audio.view(torch.int32)), segment
            assert recording.notes == own.notes


@pytest.mark.parametrize("ending, subtype", [("mp3", None), ("ogg", "VORBIS"), ("opus", "OPUS"), ("pcm", None)])
def test_segments_of_lossy_and_headerless_files_are_cut_out_of_what_is_decoded(tmp_path, ending, subtype, monkeypatch):
    monkeypatch.setattr("korser.data.containers.BLOCK", 4095)
    path = tmp_path / f"a.{ending}"
    if ending == "pcm":
        path.write_bytes((32767 * tone(3)).astype("<i2").tobytes())
    else:
        soundfile.write(path, tone(3), 16000, format="OGG" if subtype else None, subtype=subtype)
    decoded = read_audio(path)
    for start, end in ((0.0, 1.0), (1.5, 2.0), (2.0, None)):
        own = decoded[int(16000 * start) : None if end is None else int(16000 * end)]
        assert read_audio(Segment(str(path), start, end)).equal(own)


def test_segments_are_decoded_together_up_to_the_last_one(tmp_path, monkeypatch):
    monkeypatch.setattr("korser.data.containers.BLOCK", 4095)
    path, held = write(tmp_path / "a.wav", tone(20)), []
    cut = audio._cut

    def watched(blocks, spans):
        def counted():
            for block in blocks:
                held.append(block)
                yield block

        yield from cut(counted(), spans)

    monkeypatch.setattr(audio, "_cut", watched)
    segments = [Segment(str(path), i / 100, i / 100 + 0.02) for i in range(1000)]
    order = [i for i, _ in read_segments(segments)]
    assert order == list(range(1000))
    assert len(held) == 40, "each block once, and none behind the last segment"


def test_wrong_segments_are_errors_of_their_own(tmp_path):
    x = np.stack([tone(1), tone(1)], 1)
    x[8000:] = 3
    path = str(write(tmp_path / "a.wav", x, subtype="FLOAT"))
    wrong = {
        Segment(path, 0.2, 1.02): "from 0.2 s to 1.02 s, but the recording has 1.000 s",
        Segment(path, 1.0): "from 1 s, but the recording has 1.000 s",
        Segment(path, 0.2, 0.1): "expected an end behind the start",
        Segment(path, 0, 0.1, 2): "a.wav#t=0,0.1&channel=2: channel 2: expected 0 to 1",
        Segment(path, 0.2, 0.20001): "no audio .0 samples.: remove the segment",
        Segment(path, 0.4, 0.6): "samples reach 3",
    }
    good = Segment(path, 0.1, 0.4)
    found = dict(read_segments([good, *wrong]))
    assert len(found[0].audio) == 4800
    for i, (segment, reason) in enumerate(wrong.items(), 1):
        with pytest.raises(UserError, match=reason):
            raise found[i]
        with pytest.raises(UserError, match=reason):
            read_recording(segment)


def test_only_a_segment_to_the_end_is_said_to_be_truncated(tmp_path):
    path = write(tmp_path / "a.wav", tone(2))
    path.write_bytes(path.read_bytes()[:-16000])
    assert notes(path) == notes(Segment(str(path), 1.0)) == [("truncated", "2.00 s stated, 1.50 s found")]
    assert notes(Segment(str(path), 0.5, 1.0)) == []


@pytest.mark.parametrize("rate, n", [(16000, 80000), (16000, 79999), (44100, 44100 * 5 + 7), (8000, 5), (11127, 30000)])
def test_blocks_joined_are_the_recording(tmp_path, rate, n, monkeypatch):
    monkeypatch.setattr("korser.data.containers.BLOCK", 4095)
    noise = np.random.default_rng(0).uniform(-0.9, 0.9, (n, 2)).astype(np.float32)
    path = write(tmp_path / "a.wav", noise, rate, "FLOAT")
    blocks = [block.audio for block in read_blocks(path, 2)]
    assert {len(block) for block in blocks[:-1]} <= {32000}
    torch.testing.assert_close(torch.cat(blocks), read_audio(path), rtol=0, atol=2e-6)


def test_blocks_tell_where_a_recording_is_damaged_and_whether_it_is_truncated(tmp_path):
    x = tone(5)
    x[56000] = np.nan
    with pytest.raises(UserError, match=r"a.wav#t=2,4: NaN"):
        list(read_blocks(write(tmp_path / "a.wav", x, subtype="FLOAT"), 2))
    path = write(tmp_path / "b.wav", tone(5))
    path.write_bytes(path.read_bytes()[:-16000])
    assert [[note.code for note in block.notes] for block in read_blocks(path, 2)] == [[], [], ["truncated"]]
    with pytest.raises(UserError, match="no audio"):
        list(read_blocks(write(tmp_path / "c.wav", np.zeros(0))))


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "pcm"])
def test_large_files_are_mapped_and_read_alike(tmp_path, ending, monkeypatch):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, tone(2), 16000, **({"format": "RAW", "subtype": "PCM_16"} if ending == "pcm" else {}))
    whole = read_recording(path)
    monkeypatch.setattr(decoder, "LARGE", 1)
    monkeypatch.setattr("korser.data.containers.RELEASED", 9000)
    monkeypatch.setattr("korser.data.containers.HEAD", 0)
    mapped = read_recording(path)
    assert mapped.audio.equal(whole.audio) and mapped.notes == whole.notes


@pytest.mark.parametrize("stated", [0, 0xFFFFFFFF, 16000])
def test_a_wrong_header_of_a_mapped_file_is_repaired_in_memory_only(tmp_path, stated, monkeypatch):
    path = write(tmp_path / "a.wav", tone(2))
    data = bytearray(path.read_bytes())
    data[40:44] = stated.to_bytes(4, "little")
    path.write_bytes(data)
    whole = read_recording(path)
    monkeypatch.setattr(decoder, "LARGE", 1)
    mapped = read_recording(path)
    assert mapped.audio.equal(whole.audio) and mapped.notes == whole.notes and len(mapped.audio) == 32000
    assert path.read_bytes() == data
